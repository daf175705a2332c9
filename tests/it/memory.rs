//! The memory of a real process stays below the README's figure, whatever callers with a token do.

#![expect(clippy::print_stdout, reason = "how much memory it took")]

use nexo_receiver::{batch::Batch, clock::Timestamp, event::Arrival};

use crate::support::{
    database::{Database, on_each_store},
    http::{API_TOKEN, Client},
    process::{Process, Setup},
    provider::{WEBHOOK_SECRET, event, request, verified},
    until::until,
    wire::Wire,
};

on_each_store! {
    answers_that_nobody_reads_and_half_sent_bodies_have_a_bound,
}

const READERS: usize = 60;
const HALF_SENT: usize = 600;

/// Of the README's figure what such callers can take: 64 MiB of answers that wait to be read, eight that are being made,
/// 16 MiB of bodies that still come, and 48 KiB for each connection.
const MOST: usize = (64 + 8 * 8 + 16) * 1024 * 1024 + (2 * READERS + HALF_SENT) * 48 * 1024;

async fn keep(database: &Database, bodies: impl Iterator<Item = String>) {
    let store = database.open().await;
    let now = Timestamp::parse("2026-05-26T10:00:00Z").unwrap();
    let arrivals: Vec<_> =
        bodies.map(|body| Arrival::understand(verified(WEBHOOK_SECRET, body.as_bytes()), now)).collect();
    for batch in arrivals.chunks(50) {
        store.commit(&Batch::fold(batch.to_vec()).0).await.unwrap();
    }
    store.close().await;
}

/// What the metrics say: how many requests of a route were answered, and how many are under way, our own not counted.
async fn requests(client: &Client, route: &str) -> (usize, usize) {
    let metrics = client.get("/metrics").await;
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
    let answered = format!("nexo_http_request_seconds_count{{route=\"{route}\"");
    let answered = metrics.text().lines().filter(|line| line.starts_with(&answered)).map(number).sum();
    let under_way = metrics.text().lines().find(|line| line.starts_with("nexo_in_flight ")).map_or(1, number);
    (answered, under_way - 1)
}

async fn answers_that_nobody_reads_and_half_sent_bodies_have_a_bound(database: Database) {
    let large = "x".repeat(60_000);
    keep(&database, (0..300).map(|n| format!("{n} {large}"))).await;
    let told = String::from_utf8(event("big", "delivered")).unwrap();
    let told = told.trim_end_matches('}');
    keep(&database, (0..200).map(|n| format!("{told},\"note\":\"{n} {large}\"}}"))).await;

    let process = Process::serve_with(&database.environment(), Setup::default());
    let client = Client::new(process.address);
    until(async || client.try_send(http::Method::GET, "/readyz", "").await.is_ok_and(|it| it.status == 200))
        .await;
    let quiet = process.resident();
    let mut crowd = Vec::new();
    for (path, route) in [
        ("/api/v1/quarantine?limit=500", "/api/v1/quarantine"),
        ("/api/v1/deliveries/big/events", "/api/v1/deliveries/{id}/events"),
    ] {
        for _ in 0..READERS {
            let mut wire = Wire::open(process.address).await;
            let head =
                format!("GET {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {API_TOKEN}\r\n\r\n");
            wire.send(head).await;
            crowd.push(wire);
        }
        until(async || requests(&client, route).await.0 >= READERS).await;
    }
    for n in 0..HALF_SENT {
        let mut wire = Wire::open(process.address).await;
        let head = format!(
            "PUT /api/v1/deliveries/half{n} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {API_TOKEN}\r\n\
             content-length: 65000\r\n\r\n"
        );
        wire.send(head).await.send(&large).await;
        crowd.push(wire);
    }
    until(async || {
        let (answered, under_way) = requests(&client, "/api/v1/deliveries/{id}").await;
        answered + under_way >= HALF_SENT
    })
    .await;
    // Webhooks have room of their own, also those that come in pieces.
    let webhook = request(format!("{told},\"note\":\"{large}\"}}").as_bytes());
    let mut wire = Wire::open(process.address).await;
    for piece in webhook.chunks(9_000) {
        wire.send(piece).await;
    }
    let answer = wire.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let took = process.peak() - quiet;
    println!("from {} to {} MiB", quiet >> 20, process.peak() >> 20);
    assert!(took < MOST, "{} MiB more than the {} of a quiet service", took >> 20, quiet >> 20);
    drop(crowd);
    assert!(process.terminate().success());
}
