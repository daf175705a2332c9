//! The slowest hundredth of other deliveries' events while one delivery's row can't be read, or is locked.

use std::{net::SocketAddr, time::Duration};

use tokio::{task::JoinHandle, time::interval};

use super::rounds;
use crate::support::{
    database::{Database, on_each_store},
    load::evenly,
    process::Process,
    provider::event,
    sender::Sender,
    until::until,
};

on_each_store! {
    an_unreadable_row_slows_nobody_down,
}

const BAD: &str = "bad";

/// Services on one database, and an event of the delivery that is to be in trouble.
async fn serve(database: &Database) -> Vec<Process> {
    let replicas = if database.is_postgres() { 2 } else { 1 };
    let processes: Vec<_> = (0..replicas).map(|_| Process::serve(database)).collect();
    for process in &processes {
        let mut sender = Sender::connect(process.address).await;
        // It listens before it has reached its database.
        until(async || sender.post(&event(BAD, "sent")).await.status == 200).await;
    }
    processes
}

/// The slowest hundredth of 500 signed events a second at each, in milliseconds; all of them are answered 200.
async fn slowest_hundredth(processes: &[Process]) -> f64 {
    let seconds = Duration::from_secs(rounds(4) as u64);
    let runs = processes.iter().map(|process| evenly(process.address, 500, seconds, 8, 0));
    let mut slowest: f64 = 0.0;
    for report in futures_util::future::join_all(runs).await {
        assert!(report.is_good(), "{report}");
        let report = serde_json::to_value(&report).unwrap();
        slowest = slowest.max(report["latency_ms"]["p99"].as_f64().unwrap());
    }
    slowest
}

/// Posts another event of the delivery in trouble ten times a second.
fn post_bad(address: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(100));
        for _ in 0.. {
            pace.tick().await;
            tokio::spawn(async move {
                let mut sender = Sender::connect(address).await;
                let _ = sender.try_post(&event(BAD, "delivered")).await;
            });
        }
    })
}

async fn measure(what: &str, processes: &[Process], trouble: impl AsyncFnOnce()) {
    let quiet = slowest_hundredth(processes).await;
    trouble().await;
    let posts: Vec<_> = processes.iter().map(|process| post_bad(process.address)).collect();
    let troubled = slowest_hundredth(processes).await;
    posts.iter().for_each(JoinHandle::abort);
    println!(
        "{what}: p99 of 500 events a second at each of {} {quiet:?} ms before and {troubled:?} ms meanwhile, {:.2} times",
        processes.len(),
        troubled / quiet
    );
}

async fn an_unreadable_row_slows_nobody_down(database: Database) {
    let processes = serve(&database).await;
    let spoil = "UPDATE deliveries SET phone = '0981234567' WHERE kind = 'otp.sent'";
    measure("an unreadable row", &processes, async || database.execute(spoil).await).await;
    for process in processes {
        assert!(process.terminate().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_slows_nobody_down() {
    let database = Database::on_postgres().await;
    let processes = serve(&database).await;
    let mut hold = database.direct().await;
    let lock = format!("BEGIN; SELECT FROM deliveries WHERE text_id = '{BAD}' FOR UPDATE");
    measure("a locked row", &processes, async || hold.execute(&lock).await).await;
    hold.close().await;
    for process in processes {
        assert!(process.terminate().success());
    }
}
