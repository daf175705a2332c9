//! Arrivals that are committed together, folded so that a store meets each key once.
//!
//! Lives here: [`Batch`] and what became of its members. Does not: waiting and answering (`writer`), SQL (`store`).

use std::cmp::Ordering;

use crate::{
    clock::Timestamp,
    delivery::{DeliveryId, Standing},
    event::{Arrival, Event, Meaning, NotUnderstood},
    proof::Proof,
    signature::Verified,
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
    /// The provider's test ping; kept in quarantine.
    TestPing,
}

impl Outcome {
    /// Its word in log lines and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "older",
            Self::Seen => "repeated",
            Self::Quarantined => "quarantined",
            Self::TestPing => "test_ping",
        }
    }
}

/// One event, however many of its copies the batch holds.
#[derive(Clone, Debug)]
pub struct FoldedEvent {
    /// The bytes; of copies signed with two secrets, under the lesser signature, so that order does not matter.
    pub proof: Proof,
    /// What it says, first received when its earliest copy was.
    pub event: Event,
    /// Copies in this batch.
    pub times: u64,
}

/// One quarantined body, however many of its copies the batch holds.
#[derive(Clone, Debug)]
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

/// What is committed together: every key once, in one order on every replica, so that overlapping batches wait for
/// each other rather than deadlock.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Events by delivery; of one delivery the one of the greatest standing first.
    pub events: Vec<FoldedEvent>,
    /// What was not understood, by digest.
    pub quarantine: Vec<FoldedQuarantine>,
}

impl Batch {
    /// Folds arrivals into a batch, and says where each went.
    #[must_use]
    pub fn fold(arrivals: Vec<Arrival>) -> (Self, Places) {
        let mut places = vec![Place::Quarantine(0); arrivals.len()];
        let (mut events, mut quarantine) = (Vec::with_capacity(arrivals.len()), Vec::new());
        for (place, arrival) in places.iter_mut().zip(arrivals) {
            let Arrival { received_at, times, meaning } = arrival;
            match meaning {
                Meaning::Event(event, proof) => events.push((place, FoldedEvent { proof, event, times })),
                Meaning::NotUnderstood(reason, verified) => {
                    quarantine.push((place, FoldedQuarantine { verified, received_at, reason, times }));
                }
            }
        }
        let events = fold_copies(events, |index, first| Place::Event { index, first });
        let quarantine = fold_copies(quarantine, |index, _| Place::Quarantine(index));
        (Self { events, quarantine }, Places(places))
    }

    /// Of each delivery the event of the greatest standing, by id.
    pub fn leaders(&self) -> impl Iterator<Item = &FoldedEvent> {
        self.events.chunk_by(|one, next| one.id() == next.id()).map(|of_one| &of_one[0])
    }

    /// Takes the batch apart: each member as one arrival, in the batch's order, with what belongs to each of its copies,
    /// the first copy first.
    #[must_use]
    pub fn unfold<T>(self, places: &Places, of_arrivals: Vec<T>) -> Vec<(Arrival, Vec<T>)> {
        let events = self.events.len();
        let members = self.events.into_iter().map(FoldedEvent::into_arrival);
        let members = members.chain(self.quarantine.into_iter().map(FoldedQuarantine::into_arrival));
        let mut members: Vec<_> = members.map(|arrival| (arrival, Vec::new())).collect();
        for (place, of_arrival) in places.0.iter().zip(of_arrivals) {
            let member = match *place {
                Place::Event { index, .. } => index,
                Place::Quarantine(index) => events + index,
            };
            members[member].1.push(of_arrival);
        }
        members
    }
}

/// What may come in copies.
pub(crate) trait Copies {
    /// The order in a batch; copies are equal.
    fn order(&self, other: &Self) -> Ordering;

    /// Takes a later copy in.
    fn add(&mut self, copy: Self);
}

impl Copies for FoldedEvent {
    fn order(&self, other: &Self) -> Ordering {
        self.id().cmp(other.id()).then_with(|| other.standing().cmp(self.standing()))
    }

    fn add(&mut self, copy: Self) {
        self.times += copy.times;
        // One that is signed before one that is not.
        if let Some(other) = copy.proof.signature()
            && self.proof.signature().is_none_or(|signature| other < signature)
        {
            self.proof = copy.proof;
        }
        let earliest = &mut self.event.told.received_at;
        *earliest = copy.event.told.received_at.min(*earliest);
    }
}

impl Copies for FoldedQuarantine {
    fn order(&self, other: &Self) -> Ordering {
        self.verified.digest().cmp(&other.verified.digest())
    }

    fn add(&mut self, copy: Self) {
        self.times += copy.times;
    }
}

impl FoldedQuarantine {
    fn into_arrival(self) -> Arrival {
        let Self { verified, received_at, reason, times } = self;
        Arrival { received_at, times, meaning: Meaning::NotUnderstood(reason, verified) }
    }

    /// What became of it, once it is committed.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.reason {
            NotUnderstood::TestPing => Outcome::TestPing,
            _ => Outcome::Quarantined,
        }
    }
}

impl FoldedEvent {
    fn into_arrival(self) -> Arrival {
        let Self { proof, event, times } = self;
        Arrival { received_at: event.told.received_at, times, meaning: Meaning::Event(event, proof) }
    }

    /// Whose event it is.
    #[must_use]
    pub fn id(&self) -> &DeliveryId {
        &self.event.told.id
    }

    /// Its rank among the events of its delivery.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.event.told.standing
    }
}

/// Brings members in order, makes one of all copies, and tells each member's place where that is: `place` is given
/// the index, and whether the member was the first of its copies.
fn fold_copies<T: Copies>(mut members: Vec<(&mut Place, T)>, place: impl Fn(usize, bool) -> Place) -> Vec<T> {
    // Stable, so that copies stay in the order in which they came.
    members.sort_by(|(_, one), (_, other)| one.order(other));
    let mut folded: Vec<T> = Vec::with_capacity(members.len());
    for (where_to, member) in members {
        let first = match folded.last_mut() {
            Some(last) if last.order(&member).is_eq() => {
                last.add(member);
                false
            }
            _ => {
                folded.push(member);
                true
            }
        };
        *where_to = place(folded.len() - 1, first);
    }
    folded
}

/// Where each arrival went in a batch, in the order in which they were folded.
#[derive(Debug)]
pub struct Places(Vec<Place>);

#[derive(Debug, Clone, Copy)]
enum Place {
    Event { index: usize, first: bool },
    Quarantine(usize),
}

impl Places {
    /// What to tell each arrival's sender, from what became of each of [`Batch::events`] and [`Batch::quarantine`].
    /// Of several copies of one new event the first is new and the others have been seen.
    #[must_use]
    pub fn answers<E: Clone>(
        &self,
        events: &[Result<Outcome, E>],
        quarantine: &[Result<Outcome, E>],
    ) -> Vec<Result<Outcome, E>> {
        let answer = |place: &Place| match *place {
            Place::Quarantine(index) => quarantine[index].clone(),
            Place::Event { index, first: true } => events[index].clone(),
            Place::Event { index, first: false } => events[index].clone().map(|outcome| match outcome {
                Outcome::New | Outcome::Kept | Outcome::Seen => Outcome::Seen,
                quarantined @ (Outcome::Quarantined | Outcome::TestPing) => quarantined,
            }),
        };
        self.0.iter().map(answer).collect()
    }
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
    fn a_batch_that_is_taken_apart_and_folded_again_is_the_same() {
        let bodies =
            [event("b", "sent"), event("a", "sent"), "ping".into(), event("b", "sent"), "ping".into()];
        let arrivals = bodies.iter().zip(0..).map(|(body, second)| arrival(body, second)).collect();
        let (batch, places) = Batch::fold(arrivals);
        let members = batch.unfold(&places, (0..5).collect());
        let copies: Vec<_> = members.iter().map(|(_, copies)| copies.clone()).collect();
        assert_eq!(copies, [vec![1], vec![0, 3], vec![2, 4]]);
        let (again, _) = Batch::fold(members.into_iter().map(|(arrival, _)| arrival).collect());
        assert_eq!(again.events.iter().map(|event| event.times).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(again.quarantine[0].times, 2);
        assert_eq!(again.events[1].event.told.received_at.micros(), 0);
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
        let told =
            |event: &FoldedEvent| (event.id().as_str().to_owned(), event.event.told.status, event.times);
        let (a, b, older) = (("a", Status::Sent, 1), ("b", Status::Delivered, 2), ("b", Status::Sent, 1));
        let expected = [a, b, older].map(|(id, status, times)| (id.to_owned(), status, times));
        assert_eq!(batch.events.iter().map(told).collect::<Vec<_>>(), expected);
        assert_eq!(batch.leaders().map(told).collect::<Vec<_>>(), expected[..2]);
        assert_eq!(batch.events[1].event.told.received_at.micros(), 0);
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
