//! What ill-behaved connections get: slow, oversized, malformed, silent; and that nobody else notices them.

use std::{sync::Arc, time::Duration};

use nexo_receiver::delivery::DeliveryId;
use tokio::{io::AsyncReadExt, task::JoinSet, time::timeout};

use crate::support::{
    database::{Database, on_each_store},
    provider::{event, head, request, sign},
    receiver::Receiver,
    sender::Sender,
    wire::{PATIENCE, Wire},
};

on_each_store! {
    a_slow_head_is_answered_408,
    a_slow_body_is_answered_408,
    a_slow_body_that_trickles_is_answered_408_all_the_same,
    a_silent_connection_is_closed_without_a_word,
    an_idle_connection_is_closed_without_a_word,
    of_both_lengths_the_chunks_count_and_the_connection_is_closed,
    a_connection_whose_body_was_not_read_is_closed,
    a_body_that_was_not_read_never_begins_a_head,
    chunked_webhooks_in_one_packet_are_all_kept,
    a_malformed_head_is_refused,
    an_announced_size_over_the_limit_is_refused_before_its_bytes,
    a_client_that_waits_for_100_continue_is_refused_at_once,
    a_refused_sender_of_a_large_body_reads_its_answer,
    a_sender_that_hangs_up_changes_nothing,
    a_full_queue_is_answered_503_and_a_kept_event_200,
    a_store_that_takes_too_long_is_answered_503,
    memory_in_flight_is_bounded,
    pipelined_webhooks_are_all_answered,
    what_is_in_flight_is_finished_at_the_stop,
    nine_hundred_bad_connections_do_not_keep_a_signed_event_waiting,
}

const SHORT: Duration = Duration::from_millis(200);

async fn impatient(database: &Database) -> Receiver {
    Receiver::start_with(database, |options| {
        options.http.head_timeout = SHORT;
        options.http.body_timeout = SHORT;
        options.http.idle_timeout = SHORT;
    })
    .await
}

async fn a_slow_head_is_answered_408(database: Database) {
    let receiver = impatient(&database).await;
    let answer =
        Wire::open(receiver.address()).await.send("POST /webhooks/nexo HTT").await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");

    // Likewise the second head on a connection.
    let mut wire = Wire::open(receiver.address()).await;
    wire.send(request(&event("a", "delivered"))).await.answer().await;
    let answer = wire.send("P").await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

async fn a_slow_body_is_answered_408(database: Database) {
    let receiver = impatient(&database).await;
    let body = event("a", "delivered");
    let mut wire = Wire::open(receiver.address()).await;
    let answer = wire.send(head(body.len(), &sign(&body))).await.send(&body[..40]).await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"), "{answer}");
}

async fn a_slow_body_that_trickles_is_answered_408_all_the_same(database: Database) {
    let receiver = impatient(&database).await;
    let body = vec![b' '; 60_000];
    let mut wire = Wire::open(receiver.address()).await;
    wire.send(head(body.len(), &sign(&body))).await;
    let mut answer = [0; 12];
    let trickle = async {
        loop {
            wire.send(" ").await;
            // A byte each time that no answer has come for a moment.
            if timeout(Duration::from_millis(10), wire.0.read_exact(&mut answer)).await.is_ok() {
                break;
            }
        }
    };
    timeout(PATIENCE, trickle).await.expect("the whole body has one deadline");
    assert_eq!(&answer, b"HTTP/1.1 408");
}

async fn a_silent_connection_is_closed_without_a_word(database: Database) {
    let receiver = impatient(&database).await;
    assert_eq!(Wire::open(receiver.address()).await.until_closed().await, "");
}

async fn an_idle_connection_is_closed_without_a_word(database: Database) {
    let receiver = impatient(&database).await;
    let mut wire = Wire::open(receiver.address()).await;
    let answer = wire.send(request(&event("a", "delivered"))).await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

fn chunked(id: &str, more: &str) -> String {
    let body = event(id, "delivered");
    let signature = sign(&body);
    let body = String::from_utf8(body).unwrap();
    format!(
        "POST /webhooks/nexo HTTP/1.1\r\nhost: test\r\nx-nexo-signature: {signature}\r\n{more}\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len(),
    )
}

async fn of_both_lengths_the_chunks_count_and_the_connection_is_closed(database: Database) {
    let receiver = Receiver::start(&database).await;
    for both in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "Transfer-Encoding: chunked\r\nx-between: 1\r\nCONTENT-LENGTH: 0\r\n",
    ] {
        let mut wire = Wire::open(receiver.address()).await;
        // What follows may be what a proxy took for the body: it is never a request.
        wire.send(chunked("a", both) + "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await;
        let answer = wire.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{both}: {answer}");
        assert!(answer.contains("connection: close") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    }
    let mut wire = Wire::open(receiver.address()).await;
    for id in ["b", "c"] {
        let answer = wire.send(chunked(id, "transfer-encoding: chunked\r\n")).await.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "chunks alone leave the connection open: {answer}");
    }
}

async fn a_connection_whose_body_was_not_read_is_closed(database: Database) {
    let receiver = Receiver::start(&database).await;
    for head in [
        "PUT /unknown HTTP/1.1\r\nhost: test\r\n",
        "PUT /webhooks/nexo HTTP/1.1\r\nhost: test\r\n",
        "GET /healthz HTTP/1.1\r\nhost: test\r\n",
        "PUT /api/v1/deliveries/a HTTP/1.1\r\nhost: test\r\n",
    ] {
        for body in
            ["content-length: 4\r\n\r\nbody", "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
        {
            let mut wire = Wire::open(receiver.address()).await;
            let answer = wire.send(format!("{head}{body}")).await.until_closed().await;
            assert!(answer.contains("connection: close"), "{head}{body}: {answer}");
        }
        let mut wire = Wire::open(receiver.address()).await;
        let answer = wire.send(format!("{head}\r\n")).await.answer().await;
        assert!(!answer.contains("connection: close"), "without a body it stays open: {answer}");
    }
}

async fn a_body_that_was_not_read_never_begins_a_head(database: Database) {
    let receiver = Receiver::start(&database).await;
    let start = "POST /unknown HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\nx: ";
    let head = format!("{start}{}\r\n\r\n", "a".repeat(8_192 - start.len() - 4));
    assert_eq!(head.len(), 8_192);
    let mut wire = Wire::open(receiver.address()).await;
    wire.send(head).await;
    wire.send("\r\n\r\n").await;
    wire.send(chunked("a", "content-length: 5\r\ntransfer-encoding: chunked\r\n")).await;
    let answer = wire.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

async fn chunked_webhooks_in_one_packet_are_all_kept(database: Database) {
    let receiver = Receiver::start(&database).await;
    let requests = ["p0", "p1", "p2"].map(|id| chunked(id, "transfer-encoding: chunked\r\n"));
    let mut wire = Wire::open(receiver.address()).await;
    wire.send(requests.concat()).await;
    let mut answers = String::new();
    while answers.matches("\r\n\r\nok").count() < requests.len() {
        answers += &wire.answer().await;
    }
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), requests.len(), "{answers}");
}

async fn a_malformed_head_is_refused(database: Database) {
    let receiver = Receiver::start(&database).await;
    for malformed in [
        "nonsense\r\n\r\n",
        "POST /webhooks/nexo HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /webhooks/nexo HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        "POST /webhooks/nexo HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST /webhooks/nexo HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST /webhooks/nexo HTTP/1.1\r\ncontent-length : 1\r\n\r\n",
        "POST /webhooks/nexo HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST /webhooks/nexo HTTP/1.1\r\nx: a\0b\r\n\r\n",
        "POST /web\0hooks/nexo HTTP/1.1\r\n\r\n",
    ] {
        let answer = Wire::open(receiver.address()).await.send(malformed).await.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{malformed:?}: {answer}");
    }
    let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    let answer = Wire::open(receiver.address()).await.send(long).await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

async fn an_announced_size_over_the_limit_is_refused_before_its_bytes(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut wire = Wire::open(receiver.address()).await;
    let answer = wire.send(head(10_000_000, &sign(b"x"))).await.send("{}").await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    let absurd = head(0, &sign(b"x")).replace("content-length: 0", "content-length: 18446744073709551614");
    let answer = Wire::open(receiver.address()).await.send(absurd).await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

async fn a_client_that_waits_for_100_continue_is_refused_at_once(database: Database) {
    let receiver = Receiver::start(&database).await;
    let expecting =
        |length| head(length, &sign(b"x")).replace("content-type", "expect: 100-continue\r\ncontent-type");
    let answer = Wire::open(receiver.address()).await.send(expecting(70_000)).await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let answer = Wire::open(receiver.address()).await.send(expecting(7)).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
}

async fn a_refused_sender_of_a_large_body_reads_its_answer(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut wire = Wire::open(receiver.address()).await;
    // What is still coming is drained a little, so that the answer is not overtaken by a reset.
    let answer = wire.send(head(100_000, &sign(b"x"))).await.send([b' '; 60_000]).await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

async fn a_sender_that_hangs_up_changes_nothing(database: Database) {
    let receiver = Receiver::start(&database).await;
    let hold = database.hold_writers().await;
    let mut wire = Wire::open(receiver.address()).await;
    wire.send(request(&event("first", "delivered"))).await;
    receiver.until_metric("nexo_connections", |open| open >= 2.0).await;
    let mut gone = Wire::open(receiver.address()).await;
    gone.send(request(&event("gone", "delivered"))).await;
    receiver.until_metric("nexo_queue_depth", |waiting| waiting >= 1.0).await;
    drop(gone);
    hold.close().await;
    assert!(wire.answer().await.starts_with("HTTP/1.1 200 "));
    receiver.stop().await;
    let gone = database.open().await.delivery(&DeliveryId::parse("gone".into()).unwrap()).await.unwrap();
    assert!(gone.is_some(), "what entered the queue is committed");
}

async fn a_full_queue_is_answered_503_and_a_kept_event_200(database: Database) {
    let receiver = Receiver::start_with(&database, |options| {
        options.writer.queue = 1;
        options.writer.batch = 1;
    })
    .await;
    let hold = database.hold_writers().await;
    let mut posts = JoinSet::new();
    for n in 0..12 {
        let mut sender = receiver.sender().await;
        posts.spawn(async move {
            let reply = sender.post(&event(&format!("e{n}"), "delivered")).await;
            (n, reply.status.as_u16(), reply.header("retry-after").to_owned())
        });
    }
    // One is being committed, one waits; the other ten are refused, and only then are those two let through.
    let mut refused = Vec::new();
    while refused.len() < 10 {
        refused.push(posts.join_next().await.unwrap().unwrap());
    }
    assert!(refused.iter().all(|(_, status, retry)| *status == 503 && retry == "1"), "{refused:?}");
    hold.close().await;
    let kept: Vec<_> = posts.join_all().await;
    assert!(kept.iter().all(|(_, status, _)| *status == 200), "{kept:?}");
    let store = database.open().await;
    for (n, status, _) in refused.into_iter().chain(kept) {
        let id = DeliveryId::parse(format!("e{n}")).unwrap();
        assert_eq!(store.delivery(&id).await.unwrap().is_some(), status == 200, "e{n}");
    }
}

async fn a_store_that_takes_too_long_is_answered_503(database: Database) {
    let receiver = Receiver::start_with(&database, |options| options.http.answer_timeout = SHORT).await;
    let hold = database.hold_writers().await;
    let reply = receiver.sender().await.post(&event("a", "delivered")).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "1"));
    hold.close().await;
    assert_eq!(receiver.sender().await.post(&event("b", "delivered")).await.short(), (200, "ok"));
}

async fn memory_in_flight_is_bounded(database: Database) {
    let receiver = Receiver::start_with(&database, |options| options.http.in_flight_bytes = 100_000).await;
    // Any three have room; which one comes too late is theirs to settle.
    let mut half_sent = JoinSet::new();
    for _ in 0..4 {
        let mut wire = Wire::open(receiver.address()).await;
        wire.send(head(40_000, &sign(b"x"))).await.send([b' '; 30_000]).await;
        half_sent.spawn(async move { wire.until_closed().await });
    }
    let refused = half_sent.join_next().await.unwrap().unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    drop(half_sent);
    assert_eq!(receiver.sender().await.post(&event("a", "delivered")).await.short(), (200, "ok"));
}

async fn pipelined_webhooks_are_all_answered(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut requests = Vec::new();
    for n in 0..5 {
        requests.extend(request(&event(&format!("p{n}"), "delivered")));
    }
    let mut wire = Wire::open(receiver.address()).await;
    wire.send(requests).await;
    let mut answers = String::new();
    while answers.matches("HTTP/1.1 200 OK").count() < 5 {
        answers += &wire.answer().await;
    }
    let store = database.open().await;
    for n in 0..5 {
        assert!(store.delivery(&DeliveryId::parse(format!("p{n}")).unwrap()).await.unwrap().is_some());
    }
}

async fn what_is_in_flight_is_finished_at_the_stop(database: Database) {
    let receiver = Receiver::start(&database).await;
    let address = receiver.address();
    let hold = database.hold_writers().await;
    let mut waiting = Wire::open(address).await;
    waiting.send(request(&event("a", "delivered"))).await;
    let idle = Wire::open(address).await;
    receiver.until_metric("nexo_connections", |open| open >= 3.0).await;
    receiver.until_metric("nexo_in_flight", |waiting| waiting >= 2.0).await;
    let stopping = tokio::spawn(receiver.stop_within(Duration::from_secs(10)));
    // The listener is gone before what is in flight is finished.
    timeout(PATIENCE, async { while Sender::try_connect(address).await.is_ok() {} })
        .await
        .expect("nobody listens");
    hold.close().await;
    let answer = waiting.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert!(stopping.await.unwrap(), "an idle connection holds nothing up");
    drop(idle);
    assert!(database.open().await.delivery(&DeliveryId::parse("a".into()).unwrap()).await.unwrap().is_some());
}

async fn nine_hundred_bad_connections_do_not_keep_a_signed_event_waiting(database: Database) {
    let receiver = Arc::new(
        Receiver::start_with(&database, |options| {
            options.http.head_timeout = Duration::from_secs(5);
            options.http.body_timeout = Duration::from_secs(5);
            options.http.idle_timeout = Duration::from_secs(5);
        })
        .await,
    );
    let mut bad = Vec::new();
    for n in 0..900 {
        let mut wire = Wire::open(receiver.address()).await;
        match n % 4 {
            0 => wire.send("POST /webhooks/nexo HTTP/1.1\r\nx-").await,
            1 => wire.send(head(60_000, &sign(b"x"))).await,
            2 => wire.send(head(60_000, &sign(b"x"))).await.send([b' '; 50_000]).await,
            _ => &mut wire,
        };
        bad.push(wire);
    }
    receiver.until_metric("nexo_connections", |open| open >= 900.0).await;
    let mut sender = receiver.sender().await;
    for n in 0..200 {
        assert_eq!(sender.post(&event(&format!("s{n}"), "delivered")).await.short(), (200, "ok"));
    }
    let answered = bad.into_iter().map(|mut wire| async move { wire.until_closed().await });
    let mut answers = JoinSet::new();
    answered.for_each(|answer| {
        answers.spawn(answer);
    });
    let counts = answers.join_all().await.into_iter().fold([0, 0], |mut counts, answer| {
        counts[usize::from(answer.starts_with("HTTP/1.1 408 "))] += 1;
        counts
    });
    assert_eq!(counts, [225, 675], "the silent are closed, the slow are told");
}
