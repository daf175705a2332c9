//! What a power cut leaves of the embedded store's file: every write that was not synced may be missing, or torn. Each
//! event that was answered 200 before is there.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use fastrand::Rng;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::{judge, rounds, seed};
use crate::support::{
    database::Database,
    ledger::{Ledger, body},
    load::Load,
    process::{Process, Setup},
    recording::{Call, Disk, build, logs_begun_anew, read},
};

/// How a life of the service ends.
#[derive(Clone, Copy)]
enum End {
    Stopped,
    Killed,
}

/// Calls, and what was answered 200 meanwhile: bodies, and when.
struct Recorded {
    calls: Vec<Call>,
    kept: Vec<(u64, Vec<u8>)>,
}

/// Lives of the service on a new store, one after the other, each until so many events were answered 200.
async fn record(lives: &[(usize, End)], seed: u64) -> Recorded {
    let place = TempDir::new().unwrap();
    let (library, log, data) = (build(place.path()), place.path().join("log"), place.path().join("data"));
    let mut kept = Vec::new();
    for (n, (events, end)) in lives.iter().enumerate() {
        let preload = |name, path: &Path| (name, path.to_str().unwrap().to_owned());
        let environment = vec![
            preload("LD_PRELOAD", &library),
            preload("RECORDER_LOG", &log),
            preload("RECORDER_FOLDER", &data),
        ];
        let store = [("DATA_DIR", data.to_str().unwrap().to_owned())];
        let process = Process::serve_with(&store, Setup { environment, ..Setup::default() });
        let load = Load::start(&[process.address], 8, seed + n as u64);
        // In steps, each with a deadline of its own.
        for _ in 0..events.div_ceil(20) {
            load.ledger.until_more(20).await;
        }
        match end {
            End::Stopped => assert!(process.terminate().success()),
            End::Killed => process.kill(),
        }
        let ledger: std::sync::Arc<Ledger> = load.stop().await;
        let answered = ledger.events().into_iter().filter(|(_, answers)| answers.kept > 0);
        kept.extend(answered.map(|((id, status), answers)| (answers.kept_at, body(&id, status))));
    }
    kept.sort();
    Recorded { calls: read(&log), kept }
}

/// What is found in a folder after a cut.
async fn bodies(folder: &Path, thoroughly: bool) -> Option<Vec<Vec<u8>>> {
    let options =
        SqliteConnectOptions::new().filename(folder.join("nexo-receiver.db")).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    if thoroughly {
        let check = sqlx::query("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
        assert_eq!(check.get::<&str, _>(0), "ok");
    }
    let all = "SELECT body FROM deliveries UNION ALL SELECT body FROM older_events";
    let rows = sqlx::query(all).fetch_all(&mut connection).await;
    connection.close().await.unwrap();
    // Before the first migration there is no table.
    Some(rows.ok()?.into_iter().map(|row| row.get(0)).collect())
}

/// Cuts at so many points, and looks for what was answered before each. Answers how many events were looked for.
async fn cut(recorded: &Recorded, cuts: usize, mut rng: Rng) -> usize {
    const THOROUGHLY: usize = 16;
    let known: HashMap<&[u8], usize> =
        recorded.kept.iter().enumerate().map(|(n, (_, body))| (&body[..], n)).collect();
    let calls = &recorded.calls;
    let mut points: Vec<usize> = (0..cuts).map(|_| rng.usize(1..=calls.len())).collect();
    points.sort_unstable();
    let mut disk = Disk::new(calls);
    let mut looked_for = 0;
    for (n, point) in points.into_iter().enumerate() {
        disk.advance(point);
        // Until the next call.
        let until = calls.get(point).map_or(u64::MAX, |call| call.time);
        let required = recorded.kept.partition_point(|(kept_at, _)| *kept_at < until);
        let folder = in_memory();
        disk.cut(&mut rng, folder.path());
        let found = bodies(folder.path(), n % THOROUGHLY == 0).await;
        let mut is_there = vec![false; recorded.kept.len()];
        for body in found.unwrap_or_default() {
            if let Some(n) = known.get(&body[..]) {
                is_there[*n] = true;
            }
        }
        let lost = (0..required).find(|n| !is_there[*n]);
        assert_eq!(
            lost,
            None,
            "lost after call {point} of {}, of {required} that were answered 200",
            calls.len()
        );
        looked_for += required;
    }
    looked_for
}

fn in_memory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// Two halves side by side.
async fn cut_everywhere(what: &str, recorded: Recorded, cuts: usize, seed: u64) {
    let recorded = std::sync::Arc::new(recorded);
    let halves = [0, 1].map(|half| {
        let recorded = std::sync::Arc::clone(&recorded);
        tokio::spawn(async move { cut(&recorded, cuts.div_ceil(2), Rng::with_seed(seed + half)).await })
    });
    let mut looked_for = 0;
    for half in halves {
        looked_for += half.await.unwrap();
    }
    println!(
        "{what}: {cuts} cuts after any of {} calls, seed {seed}: {looked_for} events were answered 200 before one, all there",
        recorded.calls.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cut_of_the_power_loses_what_was_answered_200() {
    let seed = seed();
    let lives =
        [(40, End::Killed), (40, End::Stopped), (40, End::Killed), (40, End::Killed), (40, End::Stopped)];
    cut_everywhere("short lives", record(&lives, seed).await, rounds(400), seed).await;
}

/// A life so long that the log is copied into the file, and begun anew, while events come in.
#[tokio::test(flavor = "multi_thread")]
async fn no_cut_loses_it_while_the_log_is_begun_anew() {
    let seed = seed();
    let recorded = record(&[(6_000, End::Killed), (10, End::Stopped)], seed).await;
    let logs = logs_begun_anew(&recorded.calls);
    // The last may be the next life's doing.
    assert!(logs.len() > 1 && logs[..logs.len() - 1].iter().any(|length| *length > 1 << 20), "{logs:?}");
    cut_everywhere("a long life", recorded, rounds(800).div_ceil(20), seed).await;
}

/// Every seventh write is done by half, as the system may: the rest is written next.
#[tokio::test(flavor = "multi_thread")]
async fn short_writes_are_carried_on() {
    let database = Database::on_sqlite().await;
    let place = TempDir::new().unwrap();
    let library = build(place.path());
    let folder = database.sqlite_file().parent().unwrap().to_owned();
    let environment = vec![
        ("LD_PRELOAD", library.to_str().unwrap().to_owned()),
        ("RECORDER_LOG", place.path().join("log").to_str().unwrap().to_owned()),
        ("RECORDER_FOLDER", String::from_utf8(folder.as_os_str().as_bytes().to_vec()).unwrap()),
        ("RECORDER_SHORT", "7".to_owned()),
    ];
    let log = File::create(place.path().join("said")).unwrap();
    let setup = Setup { environment, log: Some(log), ..Setup::default() };
    let process = Process::serve_with(&database.environment(), setup);
    let load = Load::start(&[process.address], 8, seed());
    load.ledger.until_more(300).await;
    let ledger = load.stop().await;
    assert_eq!((ledger.refused(), ledger.unanswered()), (0, 0));
    process.kill();
    judge("short writes", &ledger, &*database.open().await).await;
}
