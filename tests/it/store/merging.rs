//! Any order, any split into batches, any number of replicas: one result, and it is `Delivery::merge`'s.

use std::{collections::BTreeMap, sync::Arc};

use nexo_receiver::{
    delivery::{Delivery, DeliveryId},
    event::Arrival,
    store::Store,
    watch,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use tokio::{runtime::Handle, sync::Mutex};

use super::{DELIVERED, Told, after, id, keep};
use crate::support::{
    database::{Database, on_each_store},
    evidence::EveryEvent as _,
    rounds,
};

on_each_store! { any_sequence_in_any_batches_gives_what_merge_gives }

const IDS: [&str; 3] = ["a", "B", "é"];

prop_compose! {
    /// Few distinct values, so that ties and repeats are common.
    fn told()(
        id in select(IDS.to_vec()),
        carrier in select(vec!["viettel", "itel"]),
        status in select(vec!["sent", "delivered", "failed"]),
        created_at in select(vec!["", "2026-05-26T10:00:00Z", "2026-05-26T09:00:00.000001Z"]),
        completed_at in select(vec!["", "2026-05-26T10:00:25Z", "1969-12-31T23:59:59.999999Z"]),
        error_code in select(vec!["", "busy"]),
        received in 0i64..4,
    ) -> Arrival {
        Told { id, carrier, status, created_at, completed_at, error_code, ..DELIVERED }.received(received)
    }
}

prop_compose! {
    /// What a caller tells of the same few.
    fn watched()(
        id in select(IDS.to_vec()),
        body in select(vec![
            "", r#"{"phone":"+84981234567"}"#, r#"{"carrier":"itel","cost":0.022}"#,
            r#"{"carrier":"viettel","created_at":"2026-05-26T08:00:00Z"}"#, r#"{"cost":0.03}"#,
        ]),
        received in 0i64..4,
    ) -> Arrival {
        watch::watched(super::id(id), body.into(), after(received)).unwrap()
    }
}

/// Batches, each for one of two replicas.
fn batches() -> impl Strategy<Value = Vec<(bool, Vec<Arrival>)>> {
    vec((any::<bool>(), vec(prop_oneof![3 => told(), 1 => watched()], 1..6)), 1..6)
}

async fn any_sequence_in_any_batches_gives_what_merge_gives(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let cleaner = Mutex::new(database.direct().await);
    // proptest is no async code: it has a thread of its own.
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let config = Config {
            cases: u32::try_from(rounds(48)).unwrap(),
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new(config)
            .run(&batches(), |batches| {
                handle.block_on(async {
                    cleaner.lock().await.execute("DELETE FROM older_events; DELETE FROM deliveries").await;
                    compare(&replicas, batches).await;
                });
                Ok(())
            })
            .unwrap();
    })
    .await
    .unwrap();
}

async fn compare(replicas: &[Arc<dyn Store>; 2], batches: Vec<(bool, Vec<Arrival>)>) {
    let mut states: BTreeMap<DeliveryId, Delivery> = BTreeMap::new();
    let mut times: BTreeMap<_, u64> = BTreeMap::new();
    for (replica, batch) in batches {
        for arrival in &batch {
            let told = arrival.event().unwrap().told.clone();
            *times.entry((told.id.clone(), arrival.digest())).or_default() += 1;
            let state = match states.remove(&told.id) {
                Some(state) => state.merge(told),
                None => told,
            };
            states.insert(state.id.clone(), state);
        }
        keep(&*replicas[usize::from(replica)], batch).await;
    }
    for name in IDS.map(id) {
        assert_eq!(replicas[0].delivery(&name).await.unwrap(), states.get(&name).cloned());
        let events = replicas[1].events(&name).await.unwrap();
        let found: BTreeMap<_, _> =
            events.iter().map(|event| ((name.clone(), event.proof.digest()), event.times)).collect();
        let expected: BTreeMap<_, _> = times
            .iter()
            .filter(|((of, _), _)| *of == name)
            .map(|(key, times)| (key.clone(), *times))
            .collect();
        assert_eq!(found, expected);
    }
}
