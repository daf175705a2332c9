//! More connections than there are places: whoever waits longest for its peer makes way, and whoever sends is answered.

#![expect(clippy::print_stdout, reason = "how long the slowest webhook took")]

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::support::{
    database::{Database, on_each_store},
    provider::{event, head, request, sign},
    receiver::Receiver,
    wire::{PATIENCE, Wire},
};

on_each_store! {
    connections_that_send_nothing_stop_no_webhook,
    connections_that_idle_after_a_request_stop_no_webhook,
    connections_with_half_a_request_stop_no_webhook,
    connections_that_read_no_answer_stop_no_webhook,
    a_request_under_way_keeps_its_place,
    the_one_that_has_waited_longest_makes_way,
    a_connection_that_never_sent_a_byte_is_closed_as_soon_as_a_head_would_be,
}

const PLACES: usize = 50;
/// A tenth of what they would wait for if nobody made way.
const SOON: Duration = Duration::from_secs(6);

/// Patient, so that only who makes way leaves.
async fn crowded(database: &Database, places: usize) -> Receiver {
    Receiver::start_with(database, |options| {
        options.http.connections = places;
        options.http.head_timeout = SOON * 10;
        options.http.body_timeout = SOON * 10;
        options.http.idle_timeout = SOON * 10;
        options.http.write_timeout = SOON * 10;
    })
    .await
}

/// Posts over new connections, more than there are places, and says how long the slowest took.
async fn post_each(receiver: &Receiver, ids: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for n in 0..PLACES + 5 {
        let started = Instant::now();
        let post = async {
            let mut wire = Wire::open(receiver.address()).await;
            wire.send(request(&event(&format!("{ids}{n}"), "delivered"))).await.answer().await
        };
        let answer = timeout(SOON, post).await.expect("a signed webhook is not kept waiting");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        slowest = slowest.max(started.elapsed());
    }
    slowest
}

async fn connections_that_send_nothing_stop_no_webhook(database: Database) {
    let receiver = crowded(&database, PLACES).await;
    for silent in [PLACES, 10 * PLACES] {
        let mut crowd = Vec::new();
        for _ in 0..silent {
            crowd.push(Wire::open(receiver.address()).await);
        }
        let slowest = post_each(&receiver, &format!("s{silent}-")).await;
        println!("{silent} silent connections, {PLACES} places: the slowest webhook took {slowest:?}");
        // They left without a word.
        assert_eq!(crowd[0].until_closed().await, "");
    }
    receiver.until_metric("nexo_connections_made_way_total", |closed| closed >= 10.0).await;
    receiver.stop().await;
}

async fn connections_that_idle_after_a_request_stop_no_webhook(database: Database) {
    let receiver = crowded(&database, PLACES).await;
    let mut crowd = Vec::new();
    for _ in 0..2 * PLACES {
        let mut wire = Wire::open(receiver.address()).await;
        let answer = wire.send("GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        crowd.push(wire);
    }
    post_each(&receiver, "i").await;
    assert_eq!(crowd[0].until_closed().await, "", "it is closed without a word");
    drop(crowd);
    receiver.stop().await;
}

async fn connections_with_half_a_request_stop_no_webhook(database: Database) {
    let receiver = crowded(&database, PLACES).await;
    let halves = ["POST /webhooks/nexo HTTP/1.1\r\nx-".to_owned(), head(9, &sign(b"x")) + "half"];
    let mut crowd = Vec::new();
    for half in halves.iter().cycle().take(2 * PLACES) {
        let mut wire = Wire::open(receiver.address()).await;
        wire.send(half).await;
        crowd.push(wire);
    }
    post_each(&receiver, "h").await;
    for wire in &mut crowd[..2] {
        let answer = wire.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
    }
    drop(crowd);
    receiver.stop().await;
}

async fn connections_that_read_no_answer_stop_no_webhook(database: Database) {
    let receiver = crowded(&database, PLACES).await;
    let ask = "GET /metrics HTTP/1.1\r\nhost: test\r\nauthorization: Bearer token-under-test\r\n\r\n";
    let mut crowd = Vec::new();
    for _ in 0..PLACES {
        let mut wire = Wire::open(receiver.address()).await;
        // More than the kernel takes for a peer that reads nothing.
        let mut asked = 0;
        while asked < 2_000 && timeout(Duration::from_millis(50), wire.send(ask.repeat(100))).await.is_ok() {
            asked += 100;
        }
        crowd.push(wire);
    }
    post_each(&receiver, "r").await;
    drop(crowd);
    receiver.stop().await;
}

async fn a_request_under_way_keeps_its_place(database: Database) {
    let receiver = crowded(&database, 3).await;
    let hold = database.hold_writers().await;
    let mut under_way = Wire::open(receiver.address()).await;
    under_way.send(request(&event("a", "delivered"))).await;
    receiver.until_metric("nexo_in_flight", |requests| requests >= 2.0).await;
    let mut newcomers = Vec::new();
    for _ in 0..20 {
        newcomers.push(Wire::open(receiver.address()).await);
    }
    receiver.until_metric("nexo_connections_made_way_total", |closed| closed >= 15.0).await;
    hold.close().await;
    assert!(under_way.answer().await.starts_with("HTTP/1.1 200 "));
    receiver.stop().await;
}

async fn the_one_that_has_waited_longest_makes_way(database: Database) {
    let receiver = crowded(&database, 3).await;
    let ask = "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::open(receiver.address()).await;
        wire.send(ask).await.answer().await;
        wires.push(wire);
    }
    // The first has now waited for the shortest time.
    wires[0].send(ask).await.answer().await;
    let mut newcomer = Wire::open(receiver.address()).await;
    newcomer.send(ask).await.answer().await;
    assert_eq!(wires[1].until_closed().await, "");
    for n in [0, 2] {
        assert!(wires[n].send(ask).await.answer().await.starts_with("HTTP/1.1 200 "));
    }
    receiver.stop().await;
}

async fn a_connection_that_never_sent_a_byte_is_closed_as_soon_as_a_head_would_be(database: Database) {
    let receiver = Receiver::start_with(&database, |options| {
        options.http.head_timeout = Duration::from_millis(200);
        options.http.idle_timeout = PATIENCE * 10;
    })
    .await;
    let mut idle = Wire::open(receiver.address()).await;
    idle.send(request(&event("a", "delivered"))).await.answer().await;
    assert_eq!(Wire::open(receiver.address()).await.until_closed().await, "");
    // Between two requests there is more time.
    assert!(idle.send(request(&event("b", "delivered"))).await.answer().await.starts_with("HTTP/1.1 200 "));
    receiver.stop().await;
}
