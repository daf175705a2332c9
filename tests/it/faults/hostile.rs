//! Clients that mean no good: what they send gets nowhere, costs bounded memory, and keeps no signed event waiting.

use std::{net::SocketAddr, time::Duration};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

use super::rounds;
use crate::support::{
    database::{Database, on_each_store},
    load::evenly,
    oddities::oddities,
    process::{Logged, Process, Setup},
    provider::{event, head, sign},
    sender::Sender,
    until::until,
};

on_each_store! {
    what_no_client_sends_gets_nowhere,
    hundreds_of_bad_connections_slow_nobody_down,
    without_descriptors_it_goes_on,
}

/// Everything that is answered until the connection ends, or nothing comes for a while.
pub(super) async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> String {
    const SILENCE: Duration = Duration::from_millis(300);
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // A reset is an answer too.
    while let Ok(Ok(1..)) = timeout(SILENCE, stream.read_buf(&mut answer)).await {}
    String::from_utf8_lossy(&answer).into_owned()
}

/// Nothing of it is a success.
pub(super) fn assert_refused(what: &str, answer: &str) {
    assert!(!answer.contains("HTTP/1.1 2") && !answer.contains("HTTP/1.0 2"), "{what}: {answer}");
}

async fn what_no_client_sends_gets_nowhere(database: Database) {
    let environment = vec![("RUST_LOG", "debug".to_owned()), ("LIMITS_BODY_SECONDS", "2".to_owned())];
    let logged = Logged::serve(&database, environment);
    let address = logged.process.address;
    for (name, bytes) in oddities() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_refused(name, &exchange(&mut stream, &bytes).await);
    }
    let mut sender = Sender::connect(address).await;
    assert_eq!(sender.post(&event("good", "delivered")).await.short(), (200, "ok"));
    let log = logged.terminate().await;
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM quarantine").await, 0);
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("a line that is no event: {line}"));
    }
}

/// One that is slow, half, silent, forged or gone, again and again.
async fn bad(address: SocketAddr, kind: usize) {
    let mut pace = interval(Duration::from_millis(200 + 17 * (kind as u64 % 40)));
    loop {
        pace.tick().await;
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        let first = match kind % 6 {
            0 => "POST /webhooks/nexo HTTP/1.1\r\nx-".to_owned(),
            1 => head(60_000, &sign(b"x")) + &" ".repeat(50_000),
            2 => head(60_000, &sign(b"x")),
            3 => head(1, "sha256=00") + "x",
            4 => "GET /api/v1/deliveries HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2),
            _ => String::new(),
        };
        // A byte at a time from then on, until it is closed.
        let _ = stream.write_all(first.as_bytes()).await;
        for _ in 0..200 {
            pace.tick().await;
            if stream.write_all(b" ").await.is_err() {
                break;
            }
        }
    }
}

/// The slowest hundredth of 500 signed events a second, in milliseconds.
async fn slowest_hundredth(address: SocketAddr) -> f64 {
    let report = evenly(address, 500, Duration::from_secs(10), 8, 0).await;
    assert!(report.is_good(), "{report}");
    let report = serde_json::to_value(&report).unwrap();
    report["latency_ms"]["p99"].as_f64().unwrap_or_else(|| panic!("{report}"))
}

async fn hundreds_of_bad_connections_slow_nobody_down(database: Database) {
    let count = rounds(900);
    let environment = vec![("LIMITS_HEAD_SECONDS", "2".to_owned()), ("LIMITS_BODY_SECONDS", "2".to_owned())];
    let setup = Setup { environment, ..Setup::default() };
    let process = Process::serve_with(&database.environment(), setup);
    // It listens before it has reached its database.
    let mut sender = Sender::connect(process.address).await;
    assert_eq!(sender.post(&event("first", "delivered")).await.short(), (200, "ok"));
    let quiet = slowest_hundredth(process.address).await;
    let before = process.resident();
    let mut clients = JoinSet::new();
    for kind in 0..count {
        clients.spawn(bad(process.address, kind));
    }
    until(async || process.descriptors() > count * 2 / 3).await;
    let troubled = slowest_hundredth(process.address).await;
    let grown = process.resident().saturating_sub(before);
    println!(
        "{count} bad connections: p99 of 500 events a second {quiet:?} before and {troubled:?} meanwhile, {:.1} times; {} MiB \
         more memory",
        troubled / quiet,
        grown >> 20
    );
    assert!(grown < 256 << 20, "{grown} bytes more");
    clients.shutdown().await;
    assert!(process.terminate().success());
}

async fn without_descriptors_it_goes_on(database: Database) {
    const MORE: usize = 40;
    let process = Process::serve(&database);
    let mut sender = Sender::connect(process.address).await;
    // It can't know of this: accepting fails from then on.
    let limit = Some((process.descriptors() + MORE) as u64);
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let mut silent = Vec::new();
    for n in 0..2 * MORE {
        silent.push(TcpStream::connect(process.address).await.unwrap());
        assert_eq!(sender.post(&event(&format!("s{n}"), "delivered")).await.short(), (200, "ok"));
    }
    drop(silent);
    until(async || match Sender::try_connect(process.address).await {
        Ok(mut fresh) => {
            fresh.try_post(&event("after", "delivered")).await.is_ok_and(|reply| reply.status == 200)
        }
        Err(_) => false,
    })
    .await;
    assert!(process.terminate().success());
}
