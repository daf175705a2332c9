//! `kill -9` under load, of the service and of the database, at any moment: what was answered 200 is there afterwards,
//! once.

use std::time::Duration;

use fastrand::Rng;
use nexo_receiver::store::open::open;

use super::{judge, rounds, seed};
use crate::support::{
    cluster::{Cluster, Death},
    database::{Database, on_each_store},
    load::Load,
    process::{Process, Setup, free_port},
    receiver::{Receiver, options},
    until::any_moment,
};

on_each_store! {
    every_event_answered_200_survives_a_killed_service,
    sigterm_ends_it_with_0,
}

const CONNECTIONS: usize = 16;

async fn every_event_answered_200_survives_a_killed_service(database: Database) {
    let (rounds, seed) = (rounds(20), seed());
    let mut rng = Rng::with_seed(seed);
    let store = database.environment();
    let start = |port| Process::begin(&store, Setup { port, ..Setup::default() });
    // A file has one service.
    let replicas = if database.is_postgres() { 2 } else { 1 };
    let mut processes: Vec<_> = (0..replicas).map(|_| start(free_port())).collect();
    let addresses: Vec<_> = processes.iter().map(|process| process.address).collect();
    let load = Load::start(&addresses, CONNECTIONS, seed);
    for _ in 0..rounds {
        // Now and then while it still starts.
        if rng.u8(..4) > 0 {
            load.ledger.until_more(1).await;
        }
        any_moment(&mut rng, Duration::from_millis(400)).await;
        let victim = processes.swap_remove(rng.usize(..replicas));
        let port = victim.address.port();
        victim.kill();
        processes.push(start(port));
    }
    load.ledger.until_more(100).await;
    let ledger = load.stop().await;
    judge(&format!("{rounds} services killed, seed {seed}"), &ledger, &*database.open().await).await;
    drop(processes);
}

/// Or each start would read more than the one before, until it takes longer than a life.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_service_that_is_killed_again_and_again_stays_as_short_as_after_once() {
    let database = Database::on_sqlite().await;
    let mut logs = Vec::new();
    for life in 0..8 {
        let process = Process::serve(&database);
        let load = Load::start(&[process.address], CONNECTIONS, life);
        load.ledger.until_more(400).await;
        process.kill();
        load.stop().await;
        logs.push(database.sqlite_log() >> 10);
    }
    assert!(logs[7] < 3 * logs[0], "KiB of log after each life: {logs:?}");
}

async fn sigterm_ends_it_with_0(database: Database) {
    let process = Process::serve(&database);
    let load = Load::start(&[process.address], 4, seed());
    load.ledger.until_more(20).await;
    let status = process.terminate();
    let ledger = load.stop().await;
    assert_eq!(status.code(), Some(0));
    judge("one service stopped", &ledger, &*database.open().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_answered_200_survives_a_killed_database() {
    let (rounds, seed) = (rounds(20), seed());
    let mut rng = Rng::with_seed(seed);
    let cluster = Cluster::start();
    let location = cluster.location();
    let replicas = [
        Receiver::start_at(options(location.clone())).await,
        Receiver::start_at(options(location.clone())).await,
    ];
    let load = Load::start(&replicas.each_ref().map(Receiver::address), CONNECTIONS, seed);
    for _ in 0..rounds {
        any_moment(&mut rng, Duration::from_millis(300)).await;
        match rng.u8(..3) {
            0 => cluster.crash(Death::OneServerProcess),
            1 => cluster.crash(Death::AllKilled),
            _ => cluster.crash(Death::Immediate),
        }
        load.ledger.until_more(20).await;
    }
    let ledger = load.stop().await;
    let store = open(&location).await.unwrap();
    judge(&format!("{rounds} databases killed, seed {seed}"), &ledger, &*store).await;
    for replica in replicas {
        replica.stop().await;
    }
}
