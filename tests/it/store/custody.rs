//! What was committed is there, byte for byte.

use nexo_receiver::{
    batch::Outcome::{Kept, New, Quarantined, Seen},
    delivery::{Source, Status},
    event::{Arrival, Meaning},
    signature::Keyring,
};

use super::{
    DELIVERED, FAILED, SECRET, SENT, Told, after, arrival, arrival_under, at, delivery, id, keep, secret,
};
use crate::support::{
    database::{Database, on_each_store},
    evidence::EveryEvent as _,
};

on_each_store! {
    every_field_of_a_delivery_comes_back,
    evidence_verifies_again,
    nothing_is_known_of_an_unknown_id,
    each_receipt_counts,
    the_same_event_twice_in_one_batch_is_one,
    a_terminal_state_stays,
    the_later_completion_wins_whichever_comes_first,
    what_is_committed_is_there_after_a_restart,
    a_batch_may_be_large,
    an_empty_batch_is_nothing,
    an_event_under_two_secrets_keeps_the_lesser_signature,
}

async fn every_field_of_a_delivery_comes_back(database: Database) {
    let store = database.open().await;
    let told = Told {
        id: "mật-\"khẩu\"-🔐-'; --",
        carrier: "Việt Nam Mobile\n\u{1}",
        cost: "-1234567890.123456789012345678",
        error_code: "không trả lời \\ %s",
        created_at: "0001-01-01T00:00:00.000001Z",
        completed_at: "9999-12-31T23:59:59.999999Z",
        ..FAILED
    };
    let mut received = told.received(0);
    let Meaning::Event(event, _) = &mut received.meaning else { panic!("an event") };
    event.told.received_at = at("2026-05-26T10:00:26.123457Z");
    let expected = event.told.clone();
    assert_eq!(keep(&*store, vec![received]).await, [New]);
    assert_eq!(delivery(&*store, told.id).await, expected);

    let nulls = Told { id: "nulls", cost: "1e-28", created_at: "", ..SENT };
    let expected = nulls.received(1).event().unwrap().told.clone();
    keep(&*store, vec![nulls.received(1)]).await;
    assert_eq!(delivery(&*store, "nulls").await, expected);
    assert_eq!(expected.cost.unwrap().to_string(), "0.0000000000000000000000000001");
    assert_eq!(expected.source, Source::Webhook);

    for (n, cost) in ["9999999999999999999999999999", "0.0220", "79228162514264337593543950335", "1e27", "0"]
        .iter()
        .enumerate()
    {
        let told = Told { id: &format!("cost{n}"), cost, ..DELIVERED };
        keep(&*store, vec![told.received(0)]).await;
        assert_eq!(delivery(&*store, told.id).await.cost, told.received(0).event().unwrap().told.cost);
    }
}

async fn evidence_verifies_again(database: Database) {
    let store = database.open().await;
    let bodies = [DELIVERED.body().into_bytes(), format!("\t{}\r\n ", FAILED.body()).into_bytes()];
    keep(&*store, vec![arrival(&bodies[1], 2), arrival(&bodies[0], 1)]).await;
    let events = store.events(&id("a")).await.unwrap();
    assert_eq!(events.len(), 2);
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.proof.body(), &bodies[n], "oldest first");
        assert_eq!(event.received_at, after(n as i64 + 1));
        let again = Keyring::new(&secret(SECRET), None)
            .verify(event.proof.body().clone(), event.proof.signature().unwrap())
            .unwrap();
        assert_eq!(again.digest(), event.proof.digest());
    }
    assert_eq!((events[0].kind.as_str(), events[0].status), ("otp.delivered", Status::Delivered));
    assert_eq!((events[1].kind.as_str(), events[1].source), ("otp.failed", Source::Webhook));

    let noise: Vec<u8> = (0..=255).chain([0, 0xff]).collect();
    assert_eq!(keep(&*store, vec![arrival(&noise, 5)]).await, [Quarantined]);
    let page = store.quarantine(&Default::default()).await.unwrap();
    assert_eq!(page.entries[0].verified.body(), &noise);
}

async fn nothing_is_known_of_an_unknown_id(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![DELIVERED.received(0)]).await;
    for unknown in ["b", "A", "a ", "%", "á"] {
        assert!(store.delivery(&id(unknown)).await.unwrap().is_none());
        assert!(store.events(&id(unknown)).await.unwrap().is_empty());
    }
}

async fn each_receipt_counts(database: Database) {
    let store = database.open().await;
    assert_eq!(keep(&*store, vec![DELIVERED.received(5)]).await, [New]);
    assert_eq!(keep(&*store, vec![DELIVERED.received(9), DELIVERED.received(3)]).await, [Seen, Seen]);
    assert_eq!(keep(&*database.open().await, vec![DELIVERED.received(7)]).await, [Seen]);
    let events = store.events(&id("a")).await.unwrap();
    assert_eq!((events.len(), events[0].times, events[0].received_at), (1, 4, after(3)));
    assert_eq!(delivery(&*store, "a").await.received_at, after(3));
}

async fn the_same_event_twice_in_one_batch_is_one(database: Database) {
    let store = database.open().await;
    let batch = vec![DELIVERED.received(1), arrival(b"ping", 1), DELIVERED.received(2), arrival(b"ping", 2)];
    assert_eq!(keep(&*store, batch).await, [New, Quarantined, Seen, Quarantined]);
    assert_eq!(store.events(&id("a")).await.unwrap()[0].times, 2);
    let quarantine = store.quarantine(&Default::default()).await.unwrap();
    assert_eq!((quarantine.entries[0].times, quarantine.entries[0].received_at), (2, after(1)));
}

async fn a_terminal_state_stays(database: Database) {
    let store = database.open().await;
    assert_eq!(keep(&*store, vec![FAILED.received(1)]).await, [New]);
    assert_eq!(keep(&*store, vec![SENT.received(2)]).await, [Kept]);
    assert_eq!(delivery(&*store, "a").await.status, Status::Failed);
    assert_eq!(keep(&*store, vec![Told { id: "b", ..SENT }.received(1)]).await, [New]);
    assert_eq!(keep(&*store, vec![Told { id: "b", ..FAILED }.received(2)]).await, [New]);
    let both = vec![Told { id: "c", ..SENT }.received(1), Told { id: "c", ..DELIVERED }.received(1)];
    assert_eq!(keep(&*store, both).await, [Kept, New]);
    assert_eq!(store.events(&id("a")).await.unwrap().len(), 2);
}

async fn the_later_completion_wins_whichever_comes_first(database: Database) {
    let store = database.open().await;
    let later = Told { completed_at: "2026-05-26T10:00:59Z", created_at: "2026-05-26T10:00:01Z", ..FAILED };
    for (name, order) in [("x", [DELIVERED, later]), ("y", [later, DELIVERED])] {
        for told in order {
            keep(&*store, vec![Told { id: name, ..told }.received(1)]).await;
        }
        let state = delivery(&*store, name).await;
        assert_eq!(state.status, Status::Failed);
        assert_eq!(state.error_code.as_deref(), Some("no_answer"));
        assert_eq!(state.created_at, Some(at(DELIVERED.created_at)), "the earliest that any event names");
    }
}

async fn what_is_committed_is_there_after_a_restart(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![DELIVERED.received(1), arrival(b"ping", 1)]).await;
    store.close().await;
    let store = database.open().await;
    assert_eq!(delivery(&*store, "a").await.status, Status::Delivered);
    assert_eq!(store.quarantine(&Default::default()).await.unwrap().entries.len(), 1);
}

async fn a_batch_may_be_large(database: Database) {
    let store = database.open().await;
    let padding = " ".repeat(60_000);
    let batch: Vec<_> = (0..300)
        .map(|n| {
            let body = Told { id: &format!("id{n}"), ..DELIVERED }.body();
            arrival(if n < 20 { body + &padding } else { body }.as_bytes(), n)
        })
        .collect();
    assert_eq!(keep(&*store, batch.clone()).await, vec![New; 300]);
    assert_eq!(keep(&*store, batch).await, vec![Seen; 300]);
    assert_eq!(database.number("SELECT COUNT(*) FROM deliveries WHERE times = 2").await, 300);
    assert_eq!(
        store.events(&id("id7")).await.unwrap()[0].proof.body().len(),
        60_000 + Told { id: "id7", ..DELIVERED }.body().len()
    );
}

async fn an_empty_batch_is_nothing(database: Database) {
    assert!(keep(&*database.open().await, vec![]).await.is_empty());
}

async fn an_event_under_two_secrets_keeps_the_lesser_signature(database: Database) {
    let store = database.open().await;
    let body = DELIVERED.body();
    let copies = [arrival_under("one", body.as_bytes(), 1), arrival_under("two", body.as_bytes(), 1)];
    let signature = |copy: &Arrival| match &copy.meaning {
        Meaning::Event(_, proof) => proof.signature(),
        Meaning::NotUnderstood(..) => None,
    };
    let lesser = copies.iter().map(signature).min().unwrap();
    for copy in copies {
        keep(&*store, vec![copy]).await;
    }
    let events = store.events(&id("a")).await.unwrap();
    assert_eq!((events.len(), events[0].times), (1, 2));
    assert_eq!(events[0].proof.signature(), lesser);
}
