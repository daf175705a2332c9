//! One delivery's trouble stays its own: others are committed and answered as if it were not there.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use nexo_receiver::{
    delivery::{DeliveryId, Status},
    store::{
        Store,
        query::{ListDeliveries, ListQuarantine},
    },
};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{
    database::{Database, Direct, on_each_store},
    process::Logged,
    provider::event,
    receiver::Receiver,
    sender::{Reply, Sender},
    until::until,
};

on_each_store! {
    an_unreadable_row_is_its_own_events_trouble,
    no_id_can_be_chosen_to_take_anothers_place,
    a_word_that_the_database_refuses_is_told_why,
}

const SENDERS: usize = 8;
const EACH: usize = 40;

/// Posts events of other deliveries over several connections; each is answered 200.
async fn others(addresses: &[SocketAddr], name: &str) {
    let mut senders = JoinSet::new();
    for (n, address) in addresses.iter().cycle().take(SENDERS).enumerate() {
        let (mut sender, name) = (Sender::connect(*address).await, name.to_owned());
        senders.spawn(async move {
            for m in 0..EACH {
                let reply = sender.post(&event(&format!("{name}-{n}-{m}"), "delivered")).await;
                assert_eq!(reply.short(), (200, "ok"));
            }
        });
    }
    senders.join_all().await;
}

async fn status(store: &dyn Store, id: &str) -> Option<Status> {
    let id = DeliveryId::parse(id.into()).unwrap();
    store.delivery(&id).await.unwrap().map(|delivery| delivery.status)
}

async fn quarantined(store: &dyn Store) -> Vec<(String, String)> {
    let page = store.quarantine(&ListQuarantine::default()).await.unwrap();
    page.entries.into_iter().map(|entry| (entry.reason, entry.detail)).collect()
}

async fn an_unreadable_row_is_its_own_events_trouble(database: Database) {
    let replicas = if database.is_postgres() { 2 } else { 1 };
    let replicas: Vec<_> = (0..replicas).map(|_| Logged::serve(&database, Vec::new())).collect();
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.process.address).collect();
    let mut sender = Sender::connect(addresses[0]).await;
    // It listens before it has reached its database.
    until(async || sender.post(&event("bad", "sent")).await.status == 200).await;
    database.execute("UPDATE deliveries SET phone = '0981234567'").await;
    let mut senders = JoinSet::new();
    for address in addresses.clone() {
        senders.spawn(async move {
            let mut sender = Sender::connect(address).await;
            for _ in 0..EACH {
                assert_eq!(sender.post(&event("bad", "delivered")).await.short(), (200, "ok"));
            }
        });
    }
    others(&addresses, "other").await;
    senders.join_all().await;
    let store = database.open().await;
    let kept = quarantined(&*store).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].0, "unreadable_row");
    assert!(kept[0].1.contains("`bad`") && kept[0].1.contains("phone"), "{kept:?}");
    assert!(!kept[0].1.contains("098"), "{kept:?}");
    let times = "SELECT CAST(SUM(times) AS BIGINT) FROM quarantine";
    assert_eq!(database.number(times).await, (replicas.len() * EACH) as i64);
    assert_eq!(database.number("SELECT COUNT(*) FROM deliveries").await, (SENDERS * EACH + 1) as i64);
    database.execute("UPDATE deliveries SET phone = '+84981234567'").await;
    assert_eq!(sender.post(&event("bad", "failed")).await.short(), (200, "ok"));
    assert_eq!(status(&*store, "bad").await, Some(Status::Failed));
    for replica in replicas {
        let log = replica.terminate().await;
        assert!(log.contains(r#""delivery":"bad""#) && !log.contains("0981234567"));
    }
}

async fn no_id_can_be_chosen_to_take_anothers_place(database: Database) {
    let receiver = Receiver::start(&database).await;
    let (client, mut sender) = (receiver.client(), receiver.sender().await);
    let derived = DeliveryId::parse("a".into()).unwrap().key().uuid().to_string();
    let ids = ["a", &derived];
    for id in ids {
        let told = client.send_with(Method::PUT, &format!("/api/v1/deliveries/{id}"), "{}").await;
        assert_eq!((told.status.as_u16(), &told.json()["id"]), (200, &id.into()), "{}", told.text());
    }
    // Together, so that they come in one batch.
    let mut posts = JoinSet::new();
    for (id, status) in [("a", "delivered"), (&derived, "failed")] {
        let (mut sender, body) = (receiver.sender().await, event(id, status));
        posts.spawn(async move { sender.post(&body).await.status.as_u16() });
    }
    assert_eq!(posts.join_all().await, [200; 2]);
    assert_eq!(sender.post(&event("b", "delivered")).await.short(), (200, "ok"));
    let store = database.open().await;
    for (id, expected) in ids.into_iter().zip([Status::Delivered, Status::Failed]) {
        assert_eq!(status(&*store, id).await, Some(expected), "{id}");
    }
    assert_eq!(store.deliveries(&ListDeliveries::default()).await.unwrap().entries.len(), 3);
    assert_eq!(quarantined(&*store).await, []);
    receiver.stop().await;
}

async fn a_word_that_the_database_refuses_is_told_why(database: Database) {
    let receiver = Receiver::start(&database).await;
    let client = receiver.client();
    database.refuse_carrier("viettel").await;
    let tell = async |id: &str, body: &str| {
        client.send_with(Method::PUT, &format!("/api/v1/deliveries/{id}"), body).await
    };
    for _ in 0..2 {
        let (status, code, message) = tell("a", r#"{"carrier":"viettel"}"#).await.refusal();
        assert_eq!((status, code.as_str()), (422, "refused_by_store"));
        let why = if database.is_postgres() { "SQLSTATE 23514, constraint refused" } else { "SQLite 1811" };
        assert!(message.contains(why), "{message}");
        assert_eq!(tell("b", r#"{"carrier":"itel"}"#).await.status, 200);
    }
    database.refuse_no_carrier().await;
    assert_eq!(tell("a", r#"{"carrier":"viettel"}"#).await.status, 200);
    // A row that can't be read is not the caller's to put right, and is named.
    database.execute("UPDATE deliveries SET phone = '0981234567'").await;
    let (status, _, message) = tell("a", r#"{"phone":"+84981234567"}"#).await.refusal();
    assert_eq!(status, 422);
    assert!(message.contains("phone") && !message.contains("098"), "{message}");
    receiver.stop().await;
}

/// Two replicas; an event waits this long for a lock.
async fn replicas(database: &Database, lock_wait: Duration) -> [Receiver; 2] {
    let start = async || Receiver::start_with(database, |options| options.writer.lock_wait = lock_wait).await;
    [start().await, start().await]
}

/// Posts an event to each replica, to be answered later.
async fn post_to_each(replicas: &[Receiver; 2], body: Vec<u8>) -> Vec<JoinHandle<Reply>> {
    let mut posts = Vec::new();
    for replica in replicas {
        let (mut sender, body) = (replica.sender().await, body.clone());
        posts.push(tokio::spawn(async move { sender.post(&body).await }));
    }
    posts
}

const LONG: Duration = Duration::from_secs(60);

/// Locks on the delivery `held`: its row, and a row that is not committed yet.
async fn hold(database: &Database, is_new: bool) -> Direct {
    let mut hold = database.direct().await;
    let key = DeliveryId::parse("held".into()).unwrap().key().uuid();
    let others =
        "phone, carrier, status, cost, error_code, created_at, completed_at, received_at, listed_at, source,
        standing, kind, body, signature, times";
    let sql = if is_new {
        format!(
            "BEGIN; INSERT INTO deliveries (id, text_id, {others})
            SELECT '{key}', 'held', {others} FROM deliveries WHERE text_id = 'model'"
        )
    } else {
        format!("BEGIN; SELECT FROM deliveries WHERE id = '{key}' FOR UPDATE")
    };
    hold.execute(&sql).await;
    hold
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_delivery_waits_alone_until_it_is_free() {
    for is_new in [false, true] {
        let database = Database::on_postgres().await;
        let replicas = replicas(&database, LONG).await;
        let addresses = replicas.each_ref().map(Receiver::address);
        let first = if is_new { "model" } else { "held" };
        assert_eq!(replicas[0].sender().await.post(&event(first, "sent")).await.short(), (200, "ok"));
        let hold = hold(&database, is_new).await;
        let held = post_to_each(&replicas, event("held", "delivered")).await;
        others(&addresses, "first").await;
        let again = post_to_each(&replicas, event("held", "failed")).await;
        others(&addresses, "second").await;
        assert!(held.iter().chain(&again).all(|post| !post.is_finished()));
        hold.close().await;
        for post in held.into_iter().chain(again) {
            assert_eq!(post.await.unwrap().short(), (200, "ok"));
        }
        let store = database.open().await;
        assert_eq!(status(&*store, "held").await, Some(Status::Delivered));
        assert_eq!(quarantined(&*store).await, []);
        for replica in replicas {
            replica.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_stays_locked_is_refused_alone_within_the_limit() {
    const LIMIT: Duration = Duration::from_secs(1);
    let database = Database::on_postgres().await;
    let replicas = replicas(&database, LIMIT).await;
    let addresses = replicas.each_ref().map(Receiver::address);
    let mut sender = replicas[0].sender().await;
    assert_eq!(sender.post(&event("held", "sent")).await.short(), (200, "ok"));
    let hold = hold(&database, false).await;
    let begun = Instant::now();
    let mut held = post_to_each(&replicas, event("held", "delivered")).await;
    for post in held.drain(..) {
        let reply = post.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "1"), "{}", reply.text);
    }
    assert!((LIMIT..10 * LIMIT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    others(&addresses, "other").await;
    let client = replicas[0].client();
    let told = client.send_with(Method::PUT, "/api/v1/deliveries/held", "{}").await;
    assert_eq!((told.refusal().0, told.refusal().1.as_str()), (503, "delivery_locked"));
    assert_eq!(told.header("retry-after"), "1");
    let metrics = client.get("/metrics").await;
    assert!(metrics.text().contains("nexo_events_total{outcome=\"contended\"} 1\n"), "{}", metrics.text());
    hold.close().await;
    assert_eq!(sender.post(&event("held", "delivered")).await.short(), (200, "ok"));
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_holds_another_delivery_is_its_own_events_trouble() {
    let database = Database::on_postgres().await;
    let receiver = Receiver::start(&database).await;
    let mut sender = receiver.sender().await;
    assert_eq!(sender.post(&event("mine", "sent")).await.short(), (200, "ok"));
    database.execute("UPDATE deliveries SET text_id = 'theirs'").await;
    assert_eq!(sender.post(&event("mine", "delivered")).await.short(), (200, "ok"));
    let store: Arc<dyn Store> = database.open().await;
    let kept = quarantined(&*store).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].0 == "unreadable_row" && kept[0].1.contains("`mine`"), "{kept:?}");
    receiver.stop().await;
}

/// An error whose meaning nobody has foreseen is not taken for the whole store's.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_refuses_one_event_is_its_own_trouble() {
    for code in ["P0001", "XX000", "XX001", "ZZ999", "55000"] {
        let database = Database::on_postgres().await;
        let receiver = Receiver::start(&database).await;
        database
            .execute(&format!(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF NEW.text_id = 'bad' THEN RAISE 'no' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$;
                 CREATE TRIGGER fail BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION fail();"
            ))
            .await;
        let bad = tokio::spawn({
            let mut sender = receiver.sender().await;
            async move { sender.post(&event("bad", "delivered")).await }
        });
        others(&[receiver.address()], "other").await;
        assert_eq!(bad.await.unwrap().short(), (200, "ok"), "{code}");
        let kept = quarantined(&*database.open().await).await;
        assert_eq!(kept.len(), 1, "{code}: {kept:?}");
        assert!(kept[0].0 == "refused_by_store" && kept[0].1.contains("`bad`"), "{kept:?}");
        receiver.stop().await;
    }
}
