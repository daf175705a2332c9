//! What the database refuses, and what is in the way.

use std::sync::Arc;

use nexo_receiver::{
    batch::{Batch, Outcome},
    event::Arrival,
    store::{Fault, Store, StoreError},
};

use super::{DELIVERED, FAILED, Told, arrival, folded, id, keep, refused_by_store};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    a_poisoned_batch_is_refused_and_leaves_nothing,
    a_refused_release_leaves_everything,
    replicas_with_overlapping_batches_end,
    a_missing_table_is_unavailable_and_comes_back,
}

const POISON: Told<'static> = Told { id: "m", carrier: "poison", phone: "+84900000001", ..DELIVERED };

/// Makes the database refuse the event above, and only it.
async fn poison(database: &Database) {
    let postgres = "ALTER TABLE deliveries ADD CONSTRAINT poison CHECK (carrier <> 'poison')";
    let sqlite = "CREATE TRIGGER poison BEFORE INSERT ON deliveries WHEN new.carrier = 'poison'
        BEGIN SELECT RAISE(ABORT, '+84900000001 is the poison'); END";
    database.execute(if database.is_postgres() { postgres } else { sqlite }).await;
}

async fn count(database: &Database) -> [i64; 3] {
    let mut counts = [0; 3];
    for (n, table) in ["deliveries", "older_events", "quarantine"].into_iter().enumerate() {
        counts[n] = database.number(&format!("SELECT COUNT(*) FROM {table}")).await;
    }
    counts
}

async fn a_poisoned_batch_is_refused_and_leaves_nothing(database: Database) {
    let store = database.open().await;
    poison(&database).await;
    let batch = || {
        let good = ["a", "z"].map(|id| Told { id, ..DELIVERED }.received(0));
        good.into_iter().chain([POISON.received(0), arrival(b"ping", 0)]).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        match store.commit(&folded(batch())).await {
            Err(error @ StoreError::Refused(_)) => assert!(!error.to_string().contains("849"), "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(count(&database).await, [0, 0, 0]);
    }
    for (n, one) in batch().into_iter().enumerate() {
        let committed = store.commit(&folded(vec![one])).await;
        assert_eq!(committed.is_err(), n == 2, "{committed:?}");
    }
    assert_eq!(count(&database).await, [2, 0, 1]);
}

async fn a_refused_release_leaves_everything(database: Database) {
    let store = database.open().await;
    poison(&database).await;
    let both = [DELIVERED, POISON];
    keep(&*store, both.map(|told| refused_by_store(told.received(0))).to_vec()).await;
    let refused = store.release(both.map(|told| told.received(0)).to_vec()).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(count(&database).await, [0, 0, 2]);
    assert_eq!(keep(&*store, vec![FAILED.received(0)]).await, [Outcome::New]);
    store.release(vec![DELIVERED.received(0)]).await.unwrap();
    assert_eq!(count(&database).await, [1, 1, 1]);
}

/// Commits arrivals; what another transaction is in the way of, again.
async fn keep_at_last(store: &dyn Store, mut arrivals: Vec<Arrival>) {
    while !arrivals.is_empty() {
        let (batch, places) = Batch::fold(arrivals.clone());
        let kept = match store.commit(&batch).await {
            Err(StoreError::Contended(_)) => continue,
            kept => kept.unwrap(),
        };
        let (events, quarantine) = kept.split_at(batch.events.len());
        let mut kept = places.answers(events, quarantine).into_iter();
        arrivals.retain(|_| match kept.next().unwrap() {
            Ok(_) => false,
            Err(fault) => matches!(fault, Fault::Contended(_)) || panic!("{fault}"),
        });
    }
}

async fn replicas_with_overlapping_batches_end(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let rounds = 20;
    let work = replicas.map(|store| {
        tokio::spawn(async move {
            for round in 0..rounds {
                let names: Vec<String> = (0..40).map(|n| format!("{n}")).collect();
                let mut batch: Vec<_> =
                    names.iter().map(|id| Told { id, ..DELIVERED }.received(round)).collect();
                batch.push(arrival(b"ping", round));
                batch.reverse();
                keep_at_last(&*store, batch).await;
                // And singly, in the opposite order.
                for id in names.iter().rev().take(5) {
                    keep_at_last(&*store, vec![Told { id, ..FAILED }.received(round)]).await;
                }
            }
        })
    });
    for one in work {
        one.await.unwrap();
    }
    let times = "SELECT CAST(SUM(times) AS BIGINT) FROM (SELECT times FROM deliveries UNION ALL SELECT times FROM older_events) AS all_events";
    assert_eq!(database.number(times).await, 2 * rounds * 45);
}

async fn a_missing_table_is_unavailable_and_comes_back(database: Database) {
    let store: Arc<dyn Store> = database.open().await;
    keep(&*store, vec![DELIVERED.received(0)]).await;
    database.execute("ALTER TABLE deliveries RENAME TO elsewhere").await;
    let batch = folded(vec![DELIVERED.received(1)]);
    let refused = store.commit(&batch).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let refused = store.delivery(&id("a")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    database.execute("ALTER TABLE elsewhere RENAME TO deliveries").await;
    assert_eq!(keep(&*store, vec![DELIVERED.received(1)]).await, [Outcome::Seen]);
    assert!(store.delivery(&id("a")).await.unwrap().is_some());
}
