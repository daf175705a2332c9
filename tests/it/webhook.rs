//! `POST /webhooks/nexo`: every row of the contract's table, on both stores.

use http::Method;
use nexo_receiver::{
    delivery::{DeliveryId, Status},
    secret::Secret,
    signature::{Keyring, SigningKey},
    store::{Store, query::ListQuarantine},
};
use serde_json::{Value, json};

use crate::support::{
    database::{Database, on_each_store},
    evidence::EveryEvent as _,
    provider::{WEBHOOK_SECRET, event, sign, sign_with},
    receiver::Receiver,
    sender::Sender,
    vectors::{Vector, vectors},
    wire::Wire,
};

on_each_store! {
    a_verified_event_is_kept_and_answered_ok,
    the_same_event_again_is_answered_alike,
    every_vector_is_let_in_and_kept,
    what_is_not_signed_is_refused,
    spaces_around_a_signature_are_no_part_of_it,
    what_is_not_understood_is_kept_byte_for_byte,
    what_is_not_modelled_is_kept_too,
    the_answer_does_not_depend_on_the_content_type,
    both_secrets_are_accepted_while_one_is_rotated,
    a_body_may_have_the_limit_and_no_byte_more,
    a_chunked_body_is_taken_within_the_limit,
    another_method_is_told_which_is_allowed,
    a_poisonous_event_never_fails_its_neighbours,
}

fn id(text: &str) -> DeliveryId {
    DeliveryId::parse(text.to_owned()).unwrap()
}

async fn quarantined(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let page = store.quarantine(&ListQuarantine::default()).await.unwrap();
    assert!(page.next.is_none());
    page.entries.into_iter().map(|entry| (entry.reason, entry.verified.body().to_vec())).collect()
}

async fn a_verified_event_is_kept_and_answered_ok(database: Database) {
    let receiver = Receiver::start(&database).await;
    let body = event("a", "delivered");
    let reply = receiver.sender().await.post(&body).await;
    assert_eq!(reply.short(), (200, "ok"));
    assert!(reply.header("content-type").starts_with("text/plain"));

    let store = database.open().await;
    let delivery = store.delivery(&id("a")).await.unwrap().expect("a 200 means custody");
    assert_eq!(delivery.status, Status::Delivered);
    let evidence = store.events(&id("a")).await.unwrap();
    assert_eq!(evidence.len(), 1);
    let keyring = Keyring::new(&Secret::new(WEBHOOK_SECRET.into()), None);
    let kept = &evidence[0].proof;
    assert_eq!(kept.body(), &body);
    assert!(
        keyring.verify(kept.body().clone(), kept.signature().unwrap()).is_ok(),
        "evidence verifies again"
    );
}

async fn the_same_event_again_is_answered_alike(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut sender = receiver.sender().await;
    for _ in 0..3 {
        assert_eq!(sender.post(&event("a", "delivered")).await.short(), (200, "ok"));
    }
    let evidence = database.open().await.events(&id("a")).await.unwrap();
    assert_eq!(evidence.iter().map(|kept| kept.times).collect::<Vec<_>>(), [3]);
}

async fn every_vector_is_let_in_and_kept(database: Database) {
    for Vector { name, secret, body, signature } in vectors() {
        let receiver =
            Receiver::start_with(&database, |options| options.webhook_secret = Secret::new(secret.clone()))
                .await;
        let mut sender = receiver.sender().await;
        let headers = [("x-nexo-signature", signature.as_str())];
        let reply = sender.send(Method::POST, &headers, &body).await.unwrap();
        assert_eq!(reply.short(), (200, "ok"), "{name}");
        let mut other = body.clone();
        other.push(b' ');
        let reply = sender.send(Method::POST, &headers, &other).await.unwrap();
        assert_eq!(reply.short(), (401, "bad signature"), "{name}, one byte more");
        receiver.stop().await;
    }
    let store = database.open().await;
    let delivered = store.delivery(&id("8f2e1c4d-6a1b-4a0e-9c55-0d6f4b1a2c3e")).await.unwrap().unwrap();
    assert_eq!(delivered.status, Status::Delivered);
    // Compact, pretty and with unknown fields are three bodies; the unicode secret's is the compact one again.
    assert_eq!(store.events(&delivered.id).await.unwrap().len(), 3);
    let failed = store.delivery(&id("0b8c0c52-2d1e-4f9b-8d43-5a0f7c7f8e11")).await.unwrap().unwrap();
    assert_eq!((failed.status, failed.error_code.as_deref()), (Status::Failed, Some("no_answer")));
    let mut reasons: Vec<_> = quarantined(&*store).await.into_iter().map(|(reason, _)| reason).collect();
    reasons.sort();
    assert_eq!(reasons, ["not_json", "not_json", "not_json", "test_ping"]);
}

async fn what_is_not_signed_is_refused(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut sender = receiver.sender().await;
    let body = event("a", "delivered");
    let good = sign(&body);
    let raw_key = SigningKey::from_key(WEBHOOK_SECRET.as_bytes()).sign(&body).to_string();
    let upper = format!("sha256={}", good["sha256=".len()..].to_uppercase());
    let refused: &[&[&str]] = &[
        &[],
        &[&good, &good],
        &[""],
        &["sha256="],
        &[&good["sha256=".len()..]],
        &[&upper],
        &[&good.replace("sha256", "SHA256")],
        &[&good[..good.len() - 1]],
        &[&format!("{good}0")],
        &[&format!("{good}, {good}")],
        &[&sign(b"other bytes")],
        &[&sign_with("another secret", &body)],
        &[&raw_key],
    ];
    for values in refused {
        let headers: Vec<_> = values.iter().map(|value| ("x-nexo-signature", *value)).collect();
        let reply = sender.send(Method::POST, &headers, &body).await.unwrap();
        assert_eq!(reply.short(), (401, "bad signature"), "{values:?}");
    }
    let store = database.open().await;
    assert!(store.delivery(&id("a")).await.unwrap().is_none());
    assert!(quarantined(&*store).await.is_empty(), "nothing unsigned is stored");
}

async fn spaces_around_a_signature_are_no_part_of_it(database: Database) {
    let receiver = Receiver::start(&database).await;
    let body = event("a", "delivered");
    let request = String::from_utf8(crate::support::provider::request(&body)).unwrap();
    let padded = request
        .replace("x-nexo-signature: ", "x-nexo-signature: \t  ")
        .replace("\r\ncontent-length", " \t\r\ncontent-length");
    let answer = Wire::open(receiver.address()).await.send(padded).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

async fn what_is_not_understood_is_kept_byte_for_byte(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut sender = receiver.sender().await;
    let guide: Value = serde_json::from_slice(&event("a", "delivered")).unwrap();
    let with = |field: &str, value: Value| {
        let mut event = guide.clone();
        event[field] = value;
        event.to_string().into_bytes()
    };
    let bodies = [
        ("not_json", b"hello".to_vec()),
        ("not_json", Vec::new()),
        ("not_json", b"\xff\xfe{}".to_vec()),
        ("not_json", b"[1]".to_vec()),
        ("missing_field", b"{\"type\":\"ping\"}".to_vec()),
        ("missing_field", with("status", Value::Null)),
        ("ill_typed_field", with("cost", json!("0.022"))),
        ("ill_typed_field", with("carrier", json!("a\u{0}b"))),
        ("ill_typed_field", with("id", json!("x".repeat(256)))),
        ("ill_typed_field", with("id", json!(""))),
        ("unknown_status", with("status", json!("expired"))),
        ("test_ping", with("id", json!("test"))),
    ];
    for (reason, body) in &bodies {
        assert_eq!(sender.post(body).await.short(), (200, "ok"), "{reason}");
    }
    let mut expected: Vec<_> = bodies.map(|(reason, body)| (reason.to_owned(), body)).to_vec();
    let mut kept = quarantined(&*database.open().await).await;
    expected.sort();
    kept.sort();
    assert_eq!(kept, expected);
}

async fn what_is_not_modelled_is_kept_too(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut event: Value = serde_json::from_slice(&event("a", "delivered")).unwrap();
    event["type"] = json!("otp.answered");
    event["carrier"] = json!("itel");
    event["attempt"] = json!({"n": 2, "text": "\u{0}"});
    let body = event.to_string().into_bytes();
    assert_eq!(receiver.sender().await.post(&body).await.short(), (200, "ok"));
    let store = database.open().await;
    assert_eq!(store.delivery(&id("a")).await.unwrap().unwrap().carrier.as_deref(), Some("itel"));
    let evidence = store.events(&id("a")).await.unwrap();
    assert_eq!(
        (evidence[0].kind.as_str(), evidence[0].proof.body().as_ref()),
        ("otp.answered", body.as_slice())
    );
}

async fn the_answer_does_not_depend_on_the_content_type(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut sender = receiver.sender().await;
    let body = event("a", "delivered");
    let signature = sign(&body);
    for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let headers = [("x-nexo-signature", signature.as_str()), ("content-type", kind)];
        assert_eq!(sender.send(Method::POST, &headers, &body).await.unwrap().short(), (200, "ok"), "{kind}");
    }
}

async fn both_secrets_are_accepted_while_one_is_rotated(database: Database) {
    let receiver = Receiver::start_with(&database, |options| {
        options.webhook_secret_previous = Some(Secret::new("the old one".into()));
    })
    .await;
    let mut sender = receiver.sender().await;
    let body = event("a", "delivered");
    for (secret, status) in [(WEBHOOK_SECRET, 200), ("the old one", 200), ("an older one", 401)] {
        let signature = sign_with(secret, &body);
        let reply = sender.send(Method::POST, &[("x-nexo-signature", &signature)], &body).await.unwrap();
        assert_eq!(reply.status, status, "{secret}");
    }
    let evidence = database.open().await.events(&id("a")).await.unwrap();
    assert_eq!(
        evidence.iter().map(|kept| kept.times).collect::<Vec<_>>(),
        [2],
        "one event, whoever signed it"
    );
}

async fn a_body_may_have_the_limit_and_no_byte_more(database: Database) {
    let receiver = Receiver::start(&database).await;
    let padded = |bytes: usize| {
        let mut body = event("a", "delivered");
        body.resize(bytes, b' ');
        body
    };
    assert_eq!(receiver.sender().await.post(&padded(64 * 1024)).await.short(), (200, "ok"));
    let reply = receiver.sender().await.post(&padded(64 * 1024 + 1)).await;
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (413, "close"));
}

async fn a_chunked_body_is_taken_within_the_limit(database: Database) {
    let receiver = Receiver::start(&database).await;
    let body = event("a", "delivered");
    let head = format!(
        "POST /webhooks/nexo HTTP/1.1\r\nhost: test\r\nx-nexo-signature: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        sign(&body)
    );
    let mut wire = Wire::open(receiver.address()).await;
    wire.send(&head).await;
    for chunk in body.chunks(50) {
        wire.send(format!("{:x}\r\n", chunk.len())).await.send(chunk).await.send("\r\n").await;
    }
    let answer = wire.send("0\r\n\r\n").await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let mut wire = Wire::open(receiver.address()).await;
    wire.send(&head).await;
    for _ in 0..5 {
        wire.send("4000\r\n").await.send([b' '; 0x4000]).await.send("\r\n").await;
    }
    let answer = wire.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
}

async fn another_method_is_told_which_is_allowed(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut sender = receiver.sender().await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let reply = sender.send(method.clone(), &[], b"").await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "POST"), "{method}");
    }
}

async fn a_poisonous_event_never_fails_its_neighbours(database: Database) {
    database.refuse_carrier("poison").await;
    let receiver = Receiver::start(&database).await;
    let poison =
        String::from_utf8(event("p", "delivered")).unwrap().replace("viettel", "poison").into_bytes();
    // One is held up in its commit, so that the others become one batch.
    let hold = database.hold_writers().await;
    let mut posts = tokio::task::JoinSet::new();
    let mut first = receiver.sender().await;
    posts.spawn(async move { first.post(&event("first", "delivered")).await.status.as_u16() });
    receiver.until_metric("nexo_in_flight", |requests| requests >= 2.0).await;
    receiver.until_metric("nexo_queue_depth", |waiting| waiting == 0.0).await;
    for body in
        [event("a", "delivered"), event("b", "failed"), poison.clone(), event("c", "sent"), b"ping".to_vec()]
    {
        let mut sender = Sender::connect(receiver.address()).await;
        posts.spawn(async move { sender.post(&body).await.status.as_u16() });
    }
    receiver.until_metric("nexo_queue_depth", |waiting| waiting >= 5.0).await;
    hold.close().await;
    assert_eq!(posts.join_all().await, [200; 6]);
    let store = database.open().await;
    for neighbour in ["a", "b", "c"] {
        assert!(store.delivery(&id(neighbour)).await.unwrap().is_some(), "{neighbour}");
    }
    assert!(store.delivery(&id("p")).await.unwrap().is_none());
    let mut kept = quarantined(&*store).await;
    kept.sort();
    assert_eq!(kept, [("not_json".to_owned(), b"ping".to_vec()), ("refused_by_store".to_owned(), poison)]);
}
