//! The same load for a long time: memory, descriptors and the store's log stay as they are. Its rounds are seconds.

use std::time::{Duration, Instant};

use super::rounds;
use crate::support::{
    database::{Database, on_each_store},
    load::evenly,
    process::Process,
    until::look_again,
};

on_each_store! { a_steady_load_leaves_memory_and_descriptors_as_they_are }

const RATE: u32 = 1_000;
/// The log begins anew at 80 MiB, between two commits; what comes until then is on top.
const LONGEST_LOG: u64 = 128 << 20;

async fn a_steady_load_leaves_memory_and_descriptors_as_they_are(database: Database) {
    let time = Duration::from_secs(rounds(10) as u64);
    let process = Process::serve(&database);
    let (started, mut samples, mut longest_log) = (Instant::now(), Vec::new(), 0);
    let load = tokio::spawn(evenly(process.address, RATE, time, 32, 5));
    while !load.is_finished() {
        if started.elapsed() >= time.mul_f64(0.01) * u32::try_from(samples.len()).unwrap() {
            samples.push((process.resident(), process.descriptors()));
        }
        if !database.is_postgres() {
            longest_log = longest_log.max(database.sqlite_log());
        }
        look_again().await;
    }
    let report = load.await.unwrap();
    // The highest of the second third, when all is warm, and of the last, when the load may have ended already.
    let third = samples.len() / 3;
    let (memory, files): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
    let highest =
        |of: &[usize]| (*of[third..2 * third].iter().max().unwrap(), *of[2 * third..].iter().max().unwrap());
    let ((early, late), (fewer, more)) = (highest(&memory), highest(&files));
    println!(
        "{time:?} at {RATE} a second: memory {} MiB, then {} MiB; descriptors {fewer}, then {more}; log {} MiB at most\n{report}",
        early >> 20,
        late >> 20,
        longest_log >> 20
    );
    assert!(report.is_good(), "{report}");
    assert!(late < early + early / 4 + (4 << 20), "memory grows: {early}, {late}");
    assert!(more <= fewer + 16, "descriptors: {fewer}, {more}");
    assert!(longest_log < LONGEST_LOG, "{longest_log}");
}
