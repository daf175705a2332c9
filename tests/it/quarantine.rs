//! The way back out of quarantine.

use nexo_receiver::{cli::reprocess::reprocess, delivery::DeliveryId, store::query::ListQuarantine};

use crate::support::{
    database::{Database, on_each_store},
    evidence::EveryEvent as _,
    provider::event,
    receiver::Receiver,
};

on_each_store! {
    what_is_understood_now_becomes_a_delivery_and_keeps_its_count,
}

async fn what_is_understood_now_becomes_a_delivery_and_keeps_its_count(database: Database) {
    database.refuse_carrier("viettel").await;
    let receiver = Receiver::start(&database).await;
    let mut sender = receiver.sender().await;
    let body = event("a", "delivered");
    for body in [&body[..], &body, b"ping", &body] {
        assert_eq!(sender.post(body).await.short(), (200, "ok"));
    }
    database.refuse_no_carrier().await;

    let store = database.open().await;
    let before = store.quarantine(&ListQuarantine::default()).await.unwrap().entries;
    let received_at = before.iter().find(|entry| entry.reason == "refused_by_store").unwrap().received_at;
    for _ in 0..2 {
        reprocess(&*store).await.unwrap();
        let id = DeliveryId::parse("a".into()).unwrap();
        let delivery = store.delivery(&id).await.unwrap().expect("it is a delivery now");
        assert_eq!(delivery.received_at, received_at);
        let evidence = store.events(&id).await.unwrap();
        assert_eq!(evidence.iter().map(|kept| kept.times).collect::<Vec<_>>(), [3]);
        assert_eq!(evidence[0].proof.body(), &body);
        let left = store.quarantine(&ListQuarantine::default()).await.unwrap().entries;
        assert_eq!(left.iter().map(|entry| entry.reason.as_str()).collect::<Vec<_>>(), ["not_json"]);
    }
}
