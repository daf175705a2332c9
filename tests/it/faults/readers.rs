//! Many readers come back to the beginning of a long stream at once: memory stays under a stated figure, each is told each
//! change once, and webhooks are answered meanwhile. Its rounds are thousands of events.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use nexo_receiver::{batch::Batch, clock::Timestamp, event::Arrival, store::Store};
use tokio::{net::TcpStream, task::JoinSet};

use super::rounds;
use crate::support::{
    database::{Database, on_each_store},
    http::API_TOKEN,
    ledger::body,
    process::Process,
    provider::{WEBHOOK_SECRET, verified},
    sender::Sender,
    stream::Stream,
    until::look_again,
};

on_each_store! { many_readers_of_a_long_stream_share_its_pages }

const READERS: usize = 20;
const IN_ONE_COMMIT: usize = 500;

/// What the service may need beyond what it needs at its start.
const MORE_MEMORY: usize = 64 << 20;

/// How long a webhook may take meanwhile, on a machine that others use too.
const LONGEST: Duration = Duration::from_secs(2);

async fn fill(store: &dyn Store, events: usize) {
    for commit in 0..events / IN_ONE_COMMIT {
        let arrival = |n: usize| {
            let id = format!("{:08}-0000-4000-8000-000000000000", commit * IN_ONE_COMMIT + n);
            Arrival::understand(verified(WEBHOOK_SECRET, &body(&id, "delivered")), Timestamp::now())
        };
        store.commit(&Batch::fold((0..IN_ONE_COMMIT).map(arrival).collect()).0).await.unwrap();
    }
}

/// Reads so many changes after a place; each is at a place of its own, in order.
async fn read(address: SocketAddr, place: String, count: usize) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/api/v1/deliveries/stream")
        .header("host", "test")
        .header("authorization", format!("Bearer {API_TOKEN}"))
        .header("last-event-id", place)
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut body, mut rest, mut seen, mut last) = (response.into_body(), String::new(), 0, (0, 0));
    while seen < count {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        rest += std::str::from_utf8(&frame.into_data().unwrap_or_default()).unwrap();
        let complete = rest.rfind("\n\n").map_or(0, |end| end + 2);
        for event in rest[..complete].split_terminator("\n\n").filter(|event| event.contains("data: ")) {
            let id = event.lines().find_map(|line| line.strip_prefix("id: ")).expect("a place");
            let mut parts = id.split('-').skip(1).map(|part| part.parse::<u64>().unwrap());
            let place = (parts.next().unwrap(), parts.next().expect("within a commit"));
            assert!(place > last, "{place:?} after {last:?}");
            (last, seen) = (place, seen + 1);
        }
        rest.drain(..complete);
    }
}

/// Posts events until it is told to end; how many, and the longest time that one took.
async fn post(address: SocketAddr, ended: Arc<AtomicBool>) -> (usize, Duration) {
    let mut sender = Sender::connect(address).await;
    let (mut posted, mut longest) = (0, Duration::ZERO);
    while !ended.load(Ordering::Relaxed) {
        let started = Instant::now();
        let reply = sender.post(&body(&format!("meanwhile-{posted}"), "delivered")).await;
        assert_eq!(reply.short(), (200, "ok"));
        longest = longest.max(started.elapsed());
        posted += 1;
    }
    (posted, longest)
}

async fn many_readers_of_a_long_stream_share_its_pages(database: Database) {
    let events = rounds(10) * 1_000;
    let process = Process::serve(&database);
    let address = process.address;
    let place = Stream::open(address, "", None).await.expect("a stream").next().await.unwrap().id;
    let store = database.open().await;
    fill(&*store, events).await;
    store.close().await;
    let before = process.resident();
    let ended = Arc::<AtomicBool>::default();
    let posting = tokio::spawn(post(address, Arc::clone(&ended)));
    let (started, mut readers, mut most) = (Instant::now(), JoinSet::new(), 0);
    for _ in 0..READERS {
        readers.spawn(read(address, place.clone(), events));
    }
    while !readers.is_empty() {
        most = most.max(process.resident());
        tokio::select! {
            Some(read) = readers.join_next() => read.unwrap(),
            () = look_again() => {}
        }
    }
    let took = started.elapsed();
    ended.store(true, Ordering::Relaxed);
    let (posted, longest) = posting.await.unwrap();
    println!(
        "{READERS} readers of {events} changes in {took:?}: memory {} MiB, then {} MiB at most; {posted} webhooks \
         answered, the slowest in {longest:?}",
        before >> 20,
        most >> 20
    );
    assert!(most < before + MORE_MEMORY, "{before}, then {most}");
    assert!(longest < LONGEST, "{longest:?}");
}
