//! Arrivals that are committed together, folded so that a store meets each key once.
//!
//! Lives here: [`Batch`] and what became of its members. Does not: waiting and answering (`writer`), SQL (`store`).

use std::collections::BTreeMap;

use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId},
    event::{Arrival, Event, NotUnderstood},
    signature::{Digest, Verified},
};

/// What became of one arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// A new event, and now the delivery's present state.
    New,
    /// A new event, but older news than what is known; kept as evidence.
    Kept,
    /// An event that was received before.
    Seen,
    /// Not understood; kept in quarantine.
    Quarantined,
}

/// One event, however many of its copies the batch holds.
#[derive(Debug)]
pub struct FoldedEvent {
    /// The bytes and their signature: of copies under two secrets, the lesser, so that order does not matter.
    pub verified: Verified,
    /// What it says, first received when its earliest copy was.
    pub event: Event,
    /// Copies in this batch.
    pub times: u64,
}

/// One quarantined body, however many of its copies the batch holds.
#[derive(Debug)]
pub struct FoldedQuarantine {
    /// The bytes and their signature, of the first copy.
    pub verified: Verified,
    /// When the first copy came.
    pub received_at: Timestamp,
    /// Why it is here.
    pub reason: NotUnderstood,
    /// Copies in this batch.
    pub times: u64,
}

/// What is committed in one transaction: every key once, in one order on every replica, so that overlapping batches
/// wait for each other rather than deadlock.
#[derive(Debug, Default)]
pub struct Batch {
    /// Evidence, by delivery and digest.
    pub events: Vec<FoldedEvent>,
    /// The states these events alone tell, by id.
    pub deliveries: Vec<Delivery>,
    /// What was not understood, by digest.
    pub quarantine: Vec<FoldedQuarantine>,
}

impl Batch {
    /// Folds arrivals into a batch, and says where each went.
    #[must_use]
    pub fn fold(arrivals: Vec<Arrival>) -> (Self, Places) {
        let mut events: BTreeMap<(DeliveryId, Digest), FoldedEvent> = BTreeMap::new();
        let mut quarantine: BTreeMap<Digest, FoldedQuarantine> = BTreeMap::new();
        let keys: Vec<_> =
            arrivals.into_iter().map(|arrival| fold_one(arrival, &mut events, &mut quarantine)).collect();
        let places = Places::of(keys, events.keys(), quarantine.keys());
        let events: Vec<_> = events.into_values().collect();
        let deliveries = fold_deliveries(&events);
        (Self { events, deliveries, quarantine: quarantine.into_values().collect() }, places)
    }

    /// A batch of one event.
    #[must_use]
    pub fn of_event(event: FoldedEvent) -> Self {
        Self { deliveries: vec![event.event.told.clone()], events: vec![event], quarantine: Vec::new() }
    }

    /// A batch of one quarantined body.
    #[must_use]
    pub fn of_quarantine(body: FoldedQuarantine) -> Self {
        Self { quarantine: vec![body], ..Self::default() }
    }

    /// The same bytes for quarantine, since the store refused the events that they are.
    #[must_use]
    pub fn refused_by_store(self) -> Self {
        let refused = |event: FoldedEvent| FoldedQuarantine {
            verified: event.verified,
            received_at: event.event.told.received_at,
            reason: NotUnderstood::RefusedByStore,
            times: event.times,
        };
        let mut quarantine: Vec<_> = self.events.into_iter().map(refused).chain(self.quarantine).collect();
        quarantine.sort_by_key(|body| body.verified.digest());
        Self { quarantine, ..Self::default() }
    }
}

/// Where each arrival went in a batch, in the order in which they were folded.
#[derive(Debug)]
pub struct Places(Vec<Place>);

#[derive(Debug, Clone, Copy)]
enum Place {
    Event { index: usize, first: bool },
    Quarantine { index: usize },
}

impl Places {
    fn of<'a>(
        keys: Vec<Key>,
        events: impl Iterator<Item = &'a (DeliveryId, Digest)>,
        quarantine: impl Iterator<Item = &'a Digest>,
    ) -> Self {
        let events: BTreeMap<_, _> = events.zip(0_usize..).collect();
        let quarantine: BTreeMap<_, _> = quarantine.zip(0_usize..).collect();
        let mut seen = vec![false; events.len()];
        let place = |key| match key {
            Key::Quarantine(digest) => Place::Quarantine { index: quarantine[&digest] },
            Key::Event(key) => {
                let index = events[&key];
                Place::Event { index, first: !std::mem::replace(&mut seen[index], true) }
            }
        };
        Self(keys.into_iter().map(place).collect())
    }

    /// The same answer for each arrival's sender.
    #[must_use]
    pub fn all<E: Copy>(&self, answer: Result<Outcome, E>) -> Vec<Result<Outcome, E>> {
        vec![answer; self.0.len()]
    }

    /// What to tell each arrival's sender, from what became of each of [`Batch::events`] and [`Batch::quarantine`].
    /// Of several copies of one new event the first is new and the others have been seen.
    #[must_use]
    pub fn answers<E: Copy>(
        &self,
        events: &[Result<Outcome, E>],
        quarantine: &[Result<Outcome, E>],
    ) -> Vec<Result<Outcome, E>> {
        let answer = |place: &Place| match *place {
            Place::Quarantine { index } => quarantine[index],
            Place::Event { index, first: true } => events[index],
            Place::Event { index, first: false } => events[index].map(|outcome| match outcome {
                Outcome::New | Outcome::Kept | Outcome::Seen => Outcome::Seen,
                Outcome::Quarantined => Outcome::Quarantined,
            }),
        };
        self.0.iter().map(answer).collect()
    }
}

enum Key {
    Event((DeliveryId, Digest)),
    Quarantine(Digest),
}

/// Folds one arrival in, and says under which key.
fn fold_one(
    arrival: Arrival,
    events: &mut BTreeMap<(DeliveryId, Digest), FoldedEvent>,
    quarantine: &mut BTreeMap<Digest, FoldedQuarantine>,
) -> Key {
    let Arrival { verified, received_at, times, meaning } = arrival;
    let digest = verified.digest();
    match meaning {
        Err(reason) => {
            let new = || FoldedQuarantine { verified, received_at, reason, times: 0 };
            quarantine.entry(digest).or_insert_with(new).times += times;
            Key::Quarantine(digest)
        }
        Ok(event) => {
            let key = (event.told.id.clone(), digest);
            match events.get_mut(&key) {
                None => {
                    events.insert(key.clone(), FoldedEvent { verified, event, times });
                }
                Some(folded) => folded.add(&verified, received_at, times),
            }
            Key::Event(key)
        }
    }
}

impl FoldedEvent {
    fn add(&mut self, copy: &Verified, received_at: Timestamp, times: u64) {
        self.times += times;
        if copy.signature() < self.verified.signature() {
            self.verified = copy.clone();
        }
        let earliest = &mut self.event.told.received_at;
        *earliest = received_at.min(*earliest);
    }
}

/// The state that each delivery's events tell together; `events` are sorted by id.
fn fold_deliveries(events: &[FoldedEvent]) -> Vec<Delivery> {
    let mut deliveries: Vec<Delivery> = Vec::with_capacity(events.len());
    for told in events.iter().map(|folded| folded.event.told.clone()) {
        match deliveries.pop() {
            Some(last) if last.id == told.id => deliveries.push(last.merge(told)),
            last => deliveries.extend(last.into_iter().chain([told])),
        }
    }
    deliveries
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        clock::Timestamp,
        delivery::Status,
        secret::Secret,
        signature::{Keyring, SigningKey},
    };

    fn arrival(body: &str, second: i64) -> Arrival {
        let secret = Secret::new("s".into());
        let body = Bytes::copy_from_slice(body.as_bytes());
        let signature = SigningKey::from_secret(&secret).sign(&body);
        let verified = Keyring::new(&secret, None).verify(body, signature).unwrap();
        Arrival::understand(verified, Timestamp::from_micros(second * 1_000_000).unwrap())
    }

    fn event(id: &str, status: &str) -> String {
        format!(
            r#"{{"type":"otp","id":"{id}","phone":"+84981234567","carrier":"viettel","status":"{status}","cost":0}}"#
        )
    }

    #[test]
    fn each_key_stands_once_and_in_order() {
        let (batch, _) = Batch::fold(vec![
            arrival(&event("b", "delivered"), 1),
            arrival(&event("a", "sent"), 2),
            arrival("ping", 3),
            arrival(&event("b", "sent"), 4),
            arrival(&event("b", "delivered"), 0),
            arrival("ping", 5),
        ]);
        assert!(batch.events.is_sorted_by_key(|e| (e.event.told.id.clone(), e.verified.digest())));
        assert_eq!(batch.events.iter().map(|e| e.times).sum::<u64>(), 4);
        let ids: Vec<_> = batch.deliveries.iter().map(|d| (d.id.as_str(), d.status)).collect();
        assert_eq!(ids, [("a", Status::Sent), ("b", Status::Delivered)]);
        assert_eq!(batch.deliveries[1].received_at.micros(), 0);
        assert_eq!(batch.quarantine.len(), 1);
        assert_eq!(batch.quarantine[0].times, 2);
    }

    #[test]
    fn each_arrival_gets_its_own_outcome() {
        let (_, places) = Batch::fold(vec![
            arrival(&event("b", "delivered"), 1),
            arrival("ping", 3),
            arrival(&event("a", "delivered"), 1),
            arrival(&event("b", "delivered"), 2),
        ]);
        let answers =
            places.answers::<()>(&[Ok(Outcome::New), Ok(Outcome::Kept)], &[Ok(Outcome::Quarantined)]);
        assert_eq!(
            answers,
            [Ok(Outcome::Kept), Ok(Outcome::Quarantined), Ok(Outcome::New), Ok(Outcome::Seen)]
        );
    }
}
