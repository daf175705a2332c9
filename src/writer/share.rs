//! One event apart from its batch: its bytes, who waits for it, and the room that it takes.

use std::{sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Answer, Waiting};
use crate::{
    batch::Outcome,
    delivery::DeliveryId,
    event::{Arrival, Meaning, NotUnderstood},
    signature::Digest,
};

/// What may be locked: a delivery's row, or a quarantined body's.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Key {
    Delivery(DeliveryId),
    Body(Digest),
}

impl Key {
    pub(super) fn of(arrival: &Arrival) -> Self {
        match arrival.event() {
            Some(event) => Self::Delivery(event.told.id.clone()),
            None => Self::Body(arrival.digest()),
        }
    }
}

/// One event or body of a batch, and who waits for it.
pub(super) struct Share {
    pub(super) key: Key,
    pub(super) arrival: Arrival,
    /// Of each copy, the first copy's first.
    senders: Vec<oneshot::Sender<Answer>>,
    /// How long it may wait for a lock.
    pub(super) until: Instant,
    /// Room in the queue.
    _room: Option<OwnedSemaphorePermit>,
    /// Room among those that wait for locks, arrivals and bytes.
    apart: Option<[OwnedSemaphorePermit; 2]>,
}

impl Share {
    pub(super) fn new(
        arrival: Arrival,
        senders: Vec<oneshot::Sender<Answer>>,
        room: Option<OwnedSemaphorePermit>,
        until: Instant,
    ) -> Self {
        Self { key: Key::of(&arrival), arrival, senders, until, _room: room, apart: None }
    }

    /// A single arrival.
    pub(super) fn of(waiting: Waiting, until: Instant) -> Self {
        Self::new(waiting.arrival, vec![waiting.answer], Some(waiting.room), until)
    }

    /// Its delivery, if it is an event.
    pub(super) fn delivery(&self) -> Option<&DeliveryId> {
        self.arrival.event().map(|event| &event.told.id)
    }

    /// How many arrivals it is.
    pub(super) fn count(&self) -> usize {
        self.senders.len()
    }

    pub(super) fn is_for_quarantine(&self) -> bool {
        matches!(self.arrival.meaning, Meaning::NotUnderstood(..))
    }

    /// Makes it one for quarantine; answers `false` and leaves it as it is if nobody signed it.
    pub(super) fn quarantine(&mut self, reason: NotUnderstood) -> bool {
        let Some(arrival) = self.arrival.clone().for_quarantine(reason) else { return false };
        (self.key, self.arrival) = (Key::of(&arrival), arrival);
        true
    }

    /// Takes room among those that wait for locks, unless it has some; `false` if there is not enough.
    pub(super) fn take_room(&mut self, arrivals: &Arc<Semaphore>, bytes: &Arc<Semaphore>) -> bool {
        let take = |room: &Arc<Semaphore>, count: usize| {
            Arc::clone(room).try_acquire_many_owned(u32::try_from(count).ok()?).ok()
        };
        if self.apart.is_none() {
            let count = self.count();
            self.apart = take(arrivals, count)
                .and_then(|arrivals| Some([arrivals, take(bytes, count * self.arrival.body().len())?]));
        }
        self.apart.is_some()
    }

    /// Answers all who wait for it. Of several copies of a new event the first is new, and the others have been seen.
    pub(super) fn answer(self, answer: &Answer) {
        let mut answer = answer.clone();
        for sender in self.senders {
            // The event is committed even if the sender has disconnected.
            let _ = sender.send(answer.clone());
            if let Ok(Outcome::New | Outcome::Kept) = answer {
                answer = Ok(Outcome::Seen);
            }
        }
    }
}
