//! The limits of refused calls: those beyond wait, and are refused all the same; what is signed never waits.

use std::time::{Duration, Instant};

use http::Method;

use crate::support::{
    database::{Database, on_each_store},
    process::Logged,
    provider::{event, request},
    receiver::Receiver,
    wire::Wire,
};

on_each_store! {
    beyond_its_limit_an_address_waits_for_its_refusals,
    a_signed_event_never_waits,
    without_a_limit_nobody_waits,
}

/// As long as a refusal beyond the limit waits.
const PAUSE: Duration = Duration::from_secs(1);
const FORGED: &str =
    "POST /webhooks/nexo HTTP/1.1\r\nhost: test\r\nx-nexo-signature: sha256=00\r\ncontent-length: 1\r\n\r\nx";
const NO_TOKEN: &str = "GET /api/v1/stats HTTP/1.1\r\nhost: test\r\n\r\n";

async fn limited(database: &Database, per_address: u32, overall: u32) -> Receiver {
    Receiver::start_with(database, |options| {
        options.http.refused_per_address = per_address;
        options.http.refused_per_second = overall;
    })
    .await
}

/// How long the answer to each takes, one after the other, each over a connection of its own.
async fn refused(receiver: &Receiver, requests: &[&str]) -> Vec<Duration> {
    let mut took = Vec::new();
    for request in requests {
        let started = Instant::now();
        let answer = Wire::open(receiver.address()).await.send(request).await.answer().await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        took.push(started.elapsed());
    }
    took
}

async fn beyond_its_limit_an_address_waits_for_its_refusals(database: Database) {
    for (per_address, overall) in [(3, 0), (0, 3), (3, 100)] {
        let receiver = limited(&database, per_address, overall).await;
        let started = Instant::now();
        let took = refused(&receiver, &[FORGED, NO_TOKEN, FORGED, NO_TOKEN]).await;
        // Unless this machine was so slow that a second's worth was forgotten.
        if started.elapsed() - took[3] < PAUSE / 4 {
            assert!(took[3] >= PAUSE, "{took:?}");
        }
        let answer = Wire::open(receiver.address()).await.send(FORGED.repeat(6)).await.until_closed().await;
        assert!(answer.ends_with("bad signature") && answer.contains("connection: close"), "{answer}");
        receiver.stop().await;
    }
}

async fn a_signed_event_never_waits(database: Database) {
    let receiver = limited(&database, 1, 1).await;
    let mut forged = Wire::open(receiver.address()).await;
    forged.send(FORGED).await.answer().await;
    // The same address, and while a refusal of its waits.
    forged.send(FORGED).await;
    let started = Instant::now();
    let mut sender = receiver.sender().await;
    for n in 0..20 {
        assert_eq!(sender.post(&event(&format!("e{n}"), "delivered")).await.short(), (200, "ok"));
    }
    let answer =
        Wire::open(receiver.address()).await.send(request(&event("e", "failed"))).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // If each of them had waited.
    assert!(started.elapsed() < 20 * PAUSE);
    assert!(forged.answer().await.starts_with("HTTP/1.1 401 "));
    receiver.stop().await;
}

async fn without_a_limit_nobody_waits(database: Database) {
    let receiver = limited(&database, 0, 0).await;
    let mut wire = Wire::open(receiver.address()).await;
    let started = Instant::now();
    for _ in 0..200 {
        let answer = wire.send(FORGED).await.answer().await;
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    assert!(started.elapsed() < 100 * PAUSE);
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_a_few_lines_of_log() {
    let database = Database::on_sqlite().await;
    let logged = Logged::serve(&database, vec![("LIMITS_REFUSED_PER_ADDRESS", "5".to_owned())]);
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let address = logged.process.address;
        flood.spawn(async move {
            let mut sender = crate::support::sender::Sender::connect(address).await;
            let reply = sender.send(Method::POST, &[("x-nexo-signature", "sha256=00")], b"x").await.unwrap();
            assert_eq!(reply.short(), (401, "bad signature"));
        });
    }
    flood.join_all().await;
    let log = logged.terminate().await;
    let lines = log.lines().filter(|line| line.contains("refused")).count();
    assert!((5..30).contains(&lines), "{log}");
    assert!(log.contains("\"client\":\"127.0.0.1\""), "{log}");
}
