//! `kill -9` under load: what was answered 200 is there afterwards. The long loop is for another day; these few rounds
//! are for every day.

use nexo_receiver::cli::rebuild::check;

use crate::support::{
    database::{Database, on_each_store},
    load::Load,
    process::Process,
};

on_each_store! {
    every_event_answered_200_survives_kill_9,
    sigterm_ends_it_with_0,
}

async fn every_event_answered_200_survives_kill_9(database: Database) {
    let mut ledgers = Vec::new();
    for round in 0..5 {
        let process = Process::serve(&database);
        let load = Load::start(process.address, 16, &format!("r{round}"));
        load.ledger.until(|ledger| ledger.kept() >= 100 + 37 * round).await;
        process.kill();
        ledgers.push(load.stop().await);
    }
    let process = Process::serve(&database);
    let store = database.open().await;
    for ledger in ledgers {
        assert!(ledger.kept() >= 100);
        ledger.holds_in(&*store).await;
    }
    let checked = check(&*store, None, None, || {}).await.unwrap();
    assert!(checked.differing.is_empty(), "{checked}");
    drop(process);
}

async fn sigterm_ends_it_with_0(database: Database) {
    let process = Process::serve(&database);
    let load = Load::start(process.address, 4, "t");
    load.ledger.until(|ledger| ledger.kept() >= 20).await;
    let status = process.terminate();
    let ledger = load.stop().await;
    assert_eq!(status.code(), Some(0));
    ledger.holds_in(&*database.open().await).await;
}
