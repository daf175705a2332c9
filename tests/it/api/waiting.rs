//! `GET /deliveries/{id}?wait=SECONDS`.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::task::JoinHandle;

use crate::support::{
    database::{Database, on_each_store},
    http::Answer,
    provider::event,
    receiver::Receiver,
    wire::PATIENCE,
};

on_each_store! {
    a_webhook_ends_the_wait_for_what_was_not_known,
    a_webhook_ends_the_wait_for_what_was_sent,
    many_wait_for_one,
    what_is_settled_is_answered_at_once,
    when_the_time_is_up_what_is_known_is_answered,
    a_stop_ends_the_wait,
    a_wrong_wait_is_named,
}

/// Asks and waits; returns once the service has it waiting.
async fn waits(receiver: &Receiver, id: &str) -> JoinHandle<Answer> {
    let (client, path) = (receiver.client(), format!("/api/v1/deliveries/{id}?wait=60"));
    let asked = tokio::spawn(async move { client.get(&path).await });
    receiver.until_metric("nexo_waiters ", |waiters| waiters > 0.0).await;
    asked
}

fn status(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()["status"].as_str().unwrap().to_owned()
}

async fn tell(receiver: &Receiver, id: &str) {
    let told = receiver.client().send_with(Method::PUT, &format!("/api/v1/deliveries/{id}"), "").await;
    assert_eq!(told.status, StatusCode::OK);
}

async fn a_webhook_ends_the_wait_for_what_was_not_known(database: Database) {
    let receiver = Receiver::start(&database).await;
    let asked = waits(&receiver, "a").await;
    let mut sender = receiver.sender().await;
    assert_eq!(sender.post(&event("b", "delivered")).await.short(), (200, "ok"));
    assert_eq!(sender.post(&event("a", "sent")).await.short(), (200, "ok"));
    assert_eq!(sender.post(&event("a", "failed")).await.short(), (200, "ok"));
    assert_eq!(status(&asked.await.unwrap()), "failed");
    receiver.until_metric("nexo_waiters ", |waiters| waiters == 0.0).await;
}

async fn a_webhook_ends_the_wait_for_what_was_sent(database: Database) {
    let receiver = Receiver::start(&database).await;
    tell(&receiver, "a").await;
    let asked = waits(&receiver, "a").await;
    assert_eq!(receiver.sender().await.post(&event("a", "delivered")).await.short(), (200, "ok"));
    assert_eq!(status(&asked.await.unwrap()), "delivered");
}

async fn many_wait_for_one(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(waits(&receiver, "a").await);
    }
    receiver.until_metric("nexo_waiters ", |waiters| waiters == 50.0).await;
    assert_eq!(receiver.sender().await.post(&event("a", "delivered")).await.short(), (200, "ok"));
    for asked in asked {
        assert_eq!(status(&asked.await.unwrap()), "delivered");
    }
}

async fn what_is_settled_is_answered_at_once(database: Database) {
    let receiver = Receiver::start(&database).await;
    assert_eq!(receiver.sender().await.post(&event("a", "delivered")).await.short(), (200, "ok"));
    let begun = Instant::now();
    assert_eq!(status(&receiver.client().get("/api/v1/deliveries/a?wait=60").await), "delivered");
    assert!(begun.elapsed() < PATIENCE);
}

async fn when_the_time_is_up_what_is_known_is_answered(database: Database) {
    let receiver = Receiver::start(&database).await;
    tell(&receiver, "a").await;
    let begun = Instant::now();
    let (client, other) = (receiver.client(), receiver.client());
    let (known, unknown) =
        tokio::join!(client.get("/api/v1/deliveries/a?wait=1"), other.get("/api/v1/deliveries/b?wait=1"));
    assert_eq!(status(&known), "sent");
    assert_eq!(unknown.refusal().1, "not_found");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

async fn a_stop_ends_the_wait(database: Database) {
    let receiver = Receiver::start(&database).await;
    tell(&receiver, "a").await;
    let asked = waits(&receiver, "a").await;
    receiver.stop().await;
    assert_eq!(status(&asked.await.unwrap()), "sent");
}

async fn a_wrong_wait_is_named(database: Database) {
    let receiver = Receiver::start(&database).await;
    for wrong in ["0", "61", "-1", "1.5", "%2B1", "soon", "", "18446744073709551616", "1&wait=1"] {
        let answer = receiver.client().get(&format!("/api/v1/deliveries/a?wait={wrong}")).await;
        let (status, error, message) = answer.refusal();
        assert_eq!((status, error.as_str()), (400, "invalid_parameter"), "{wrong}");
        assert!(message.starts_with("`wait` is "), "{wrong}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_to_another_replica_ends_the_wait() {
    let database = Database::on_postgres().await;
    let [here, there] = [Receiver::start(&database).await, Receiver::start(&database).await];
    for id in ["a", "b", "c"] {
        let asked = waits(&here, id).await;
        assert_eq!(there.sender().await.post(&event(id, "delivered")).await.short(), (200, "ok"));
        assert_eq!(status(&asked.await.unwrap()), "delivered");
        here.until_metric("nexo_waiters ", |waiters| waiters == 0.0).await;
    }
    here.stop().await;
    there.stop().await;
}
