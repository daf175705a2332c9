//! The system refuses a write or a sync of the embedded store, once: what was answered 200 is there all the same, and
//! after a failed sync nothing more is.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fastrand::Rng;
use tempfile::TempDir;

use super::{judge, rounds, seed};
use crate::support::{
    database::Database,
    ledger::monotonic,
    load::Load,
    process::{Process, Setup},
    provider::event,
    sender::Sender,
    until::until,
};

/// How the embedded store sees to it that something is on the disk; a folder by the first, its files by the second.
const SYNCS: &str = "fsync,fdatasync";

/// The first call of each thread's that fails is the one of this number.
struct Failing {
    call: &'static str,
    error: &'static str,
    number: usize,
    /// How much later than it is called it fails.
    delay: Duration,
    /// Only calls on this file.
    file: Option<PathBuf>,
}

impl Failing {
    /// Starts the service so that it meets it; the trace goes to a file.
    fn wrapper(&self, trace: &std::path::Path) -> Vec<std::ffi::OsString> {
        let Self { call, error, number, delay, file } = self;
        let mut words: Vec<std::ffi::OsString> =
            ["strace", "-D", "-f", "-qq", "-ttt", "-e", "signal=none", "-o"].map(Into::into).to_vec();
        words.push(trace.into());
        words.extend(["-e".into(), format!("trace={call}").into()]);
        words.extend([
            "-e".into(),
            format!("inject={call}:error={error}:when={number}:delay_enter={}", delay.as_micros()).into(),
        ]);
        if let Some(file) = file {
            words.extend(["-P".into(), file.into()]);
        }
        words
    }
}

/// When a call was made to fail, by the system's monotonic clock in nanoseconds.
fn failed_at(trace: &std::path::Path) -> Option<u64> {
    let trace = fs::read_to_string(trace).unwrap_or_default();
    let line = trace.lines().find(|line| line.contains("(INJECTED)"))?;
    let seconds: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    #[expect(clippy::disallowed_methods, reason = "strace tells the time of day")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "it lies in the past")]
    let ago = ((now - seconds).max(0.0) * 1e9) as u64;
    Some(monotonic() - ago)
}

/// One life that meets the failure, if it lives long enough.
async fn meet(database: &Database, failing: &Failing, seed: u64) -> bool {
    let place = TempDir::new().unwrap();
    let trace = place.path().join("trace");
    let log = place.path().join("log");
    let setup = Setup {
        wrapper: failing.wrapper(&trace),
        log: Some(File::create(&log).unwrap()),
        environment: vec![("STORE_COMMIT_SECONDS", "1".to_owned())],
        ..Setup::default()
    };
    let mut process = match Process::try_serve_with(&database.environment(), setup) {
        Ok(process) => process,
        Err(status) => {
            let said = fs::read_to_string(&log).unwrap();
            assert!(status.code().is_some_and(|code| code > 0), "{status}: {said}");
            assert!(!said.contains("panicked"), "{said}");
            return true;
        }
    };
    let load = Load::start(&[process.address], 4, seed);
    until(async || failed_at(&trace).is_some() || load.ledger.kept() > 400).await;
    let failed = failed_at(&trace);
    if failed.is_some() && failing.call == SYNCS {
        let status = process.until_ended().await;
        assert_eq!(status.code(), Some(1), "after a failed sync it ends");
    } else if failed.is_some() && failing.number > 60 {
        // A new connection is as far from its own failure.
        load.ledger.until_more(5).await;
    }
    let ledger = load.stop().await;
    if let Some(failed) = failed.filter(|_| failing.call == SYNCS) {
        let late =
            ledger.events().into_iter().find(|(_, answers)| answers.sent_at > failed && answers.kept > 0);
        assert_eq!(late.map(|(event, _)| event), None, "answered 200 after a failed sync");
    }
    process.kill();
    let said = fs::read_to_string(&log).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    let Failing { call, error, number, delay, .. } = failing;
    judge(&format!("{call} number {number}: {error} after {delay:?}"), &ledger, &*database.open().await)
        .await;
    failed.is_some()
}

async fn one_after_the_other(call: &'static str, most: usize, delay: Duration) {
    let (rounds, seed) = (rounds(6), seed());
    let mut rng = Rng::with_seed(seed);
    let database = Database::on_sqlite().await;
    let mut met = 0;
    for round in 0..rounds {
        let error = if round % 2 == 0 { "EIO" } else { "ENOSPC" };
        let failing = Failing { call, error, number: rng.usize(1..=most), delay, file: None };
        met += usize::from(meet(&database, &failing, seed + round as u64).await);
    }
    assert!(met * 2 >= rounds, "{met} of {rounds} were met");
    println!("{call}: {met} of {rounds} failures met, seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_loses_nothing_that_was_answered_200() {
    one_after_the_other("pwrite64", 300, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_answered_200() {
    one_after_the_other(SYNCS, 30, Duration::ZERO).await;
}

/// By then nobody waits for the commit any more.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_sync_that_fails_later_than_a_commit_may_take_nothing_is_answered_200() {
    one_after_the_other(SYNCS, 30, Duration::from_secs(3)).await;
}

/// No further webhook is needed to find out.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_checkpoints_failed_sync_the_process_ends() {
    let database = Database::on_sqlite().await;
    let place = TempDir::new().unwrap();
    let (trace, log) = (place.path().join("trace"), place.path().join("log"));
    let failing = Failing {
        call: "fdatasync",
        error: "EIO",
        number: 1,
        delay: Duration::ZERO,
        // Commits sync the log alone.
        file: Some(database.sqlite_file()),
    };
    let setup = Setup {
        wrapper: failing.wrapper(&trace),
        log: Some(File::create(&log).unwrap()),
        ..Setup::default()
    };
    let mut process = Process::serve_with(&database.environment(), setup);
    let mut sender = Sender::connect(process.address).await;
    let answer = sender.post(&event("a", "delivered")).await;
    assert_eq!(answer.short(), (200, "ok"));
    let status = process.until_ended().await;
    assert!(failed_at(&trace).is_some());
    assert_eq!(status.code(), Some(1), "{}", fs::read_to_string(&log).unwrap());
    // It comes through a thread of ours.
    until(async || fs::read_to_string(&log).unwrap().contains("a sync of the embedded store failed")).await;
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, 1);
}
