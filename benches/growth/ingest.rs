//! Commits to a filled store and to an empty one, in turn.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use bytes::Bytes;
use nexo_receiver::{
    batch::Batch,
    clock::Timestamp,
    event::Arrival,
    flood::sample::{Outcome, Sample},
    money::Money,
    secret::Secret,
    signature::{Keyring, SigningKey},
    store::Store,
};

use crate::{filled::Filled, place::Place};

const ROUNDS: usize = 5;
const EVENTS: usize = 400_000;
/// What is committed together at about 256 connections.
const BATCH: usize = 128;
/// Measured from here on, so that both have their pages in memory as they would have them in service.
const WARM: usize = EVENTS / 4;

/// Prints both rates of each round, and the medians.
pub(crate) async fn compare(filled: &Place, what: &Filled) {
    println!("\nevents a second, batches of {BATCH}, {} at a time:", filled.store().lanes());
    let (mut to_empty, mut to_filled) = (Vec::new(), Vec::new());
    let empty = filled.empty_one().await;
    for round in 1..=ROUNDS {
        empty.empty().await;
        to_empty.push(ingest(&empty, what, "empty").await);
        to_filled.push(ingest(filled, what, "filled").await);
        println!("  round {round}: {:.2}", to_filled[round - 1] / to_empty[round - 1]);
    }
    empty.remove(filled).await;
    let (to_empty, to_filled) = (median(to_empty), median(to_filled));
    println!("  medians: {to_empty:.0} empty, {to_filled:.0} filled: {:.2}", to_filled / to_empty);
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Commits new events as the writer does, in as many lanes as the store has; how many a second.
#[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
async fn ingest(place: &Place, filled: &Filled, name: &str) -> f64 {
    let secret = Secret::new("growth".into());
    let (key, keyring) = (SigningKey::from_secret(&secret), Keyring::new(&secret, None));
    let arrivals: Vec<_> = (0..EVENTS).map(|n| arrival(n, filled, &key, &keyring)).collect();
    let (warm, measured) = arrivals.split_at(WARM);
    commit_all(place.store(), warm).await;
    let (begun, log) = (Instant::now(), place.log_bytes().await);
    commit_all(place.store(), measured).await;
    let (took, events) = (begun.elapsed(), measured.len() as f64);
    let rate = events / took.as_secs_f64();
    let log = place.log_bytes().await.zip(log).map(|(after, before)| (after - before) / events);
    let log = log.map_or_else(String::new, |bytes| format!(", {bytes:.0} bytes of write-ahead log an event"));
    println!("    {name}: {rate:.0}{log}");
    rate
}

async fn commit_all(store: &dyn Store, arrivals: &[Arrival]) {
    let next = AtomicUsize::new(0);
    let lane = async || {
        while let Some(batch) = arrivals.chunks(BATCH).nth(next.fetch_add(1, Ordering::Relaxed)) {
            store.commit(&Batch::fold(batch.to_vec()).0).await.unwrap();
        }
    };
    match store.lanes() {
        1 => lane().await,
        2 => drop(tokio::join!(lane(), lane())),
        more => unimplemented!("{more} lanes"),
    }
}

fn arrival(n: usize, filled: &Filled, key: &SigningKey, keyring: &Keyring) -> Arrival {
    let (id, now) = (uuid::Uuid::new_v4().to_string(), Timestamp::now());
    let carrier = ["viettel", "vinaphone", "mobifone", "vietnamobile"][n % 4].into();
    let outcome = match n.is_multiple_of(10) {
        true => Outcome::Failed("busy".into()),
        false => Outcome::Delivered(Money::parse("0.022").unwrap()),
    };
    let phone = filled.some_phone();
    let sample = Sample { id, phone, carrier, outcome, created_at: now, completed_at: now };
    let body = Bytes::from(sample.body());
    let signature = key.sign(&body);
    Arrival::understand(keyring.verify(body, signature).unwrap(), now)
}
