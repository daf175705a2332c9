//! What a commit found to be known already, and what that makes of each event.
//!
//! Lives here: what both databases do alike, as pure functions. Does not: SQL; the merge rule, which is
//! [`Delivery::merge`](crate::delivery::Delivery::merge)'s.
//!
//! A delivery's row holds its state and the event that won: one that comes with none before it, or once more, takes
//! one statement. Only an event that meets another one of its delivery takes a second step, in which the row is
//! locked and what lost goes among the older events.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
};

use super::{Fault, Kept};
use crate::{
    batch::{Batch, Copies as _, FoldedEvent, Outcome},
    delivery::DeliveryId,
    signature::Digest,
};

/// What became of each of a batch's events, as far as that is known.
#[derive(Clone)]
pub(super) struct Committed(Vec<Option<Kept>>);

impl Committed {
    /// Nothing is known of a batch's events.
    pub(super) fn nothing_of(batch: &Batch) -> Self {
        Self(vec![None; batch.events.len()])
    }

    /// A leader stands in its delivery's row, and has been received this many times by now.
    pub(super) fn stands(&mut self, batch: &Batch, id: &DeliveryId, times: u64) {
        let leader = batch.events.partition_point(|event| event.id() < id);
        if let Some(event) = batch.events.get(leader).filter(|event| event.id() == id) {
            self.0[leader] = Some(Ok(if event.times == times { Outcome::New } else { Outcome::Seen }));
        }
    }

    /// Every leader stands in a new row.
    pub(super) fn all_are_new(&mut self, batch: &Batch) {
        let mut leader = 0;
        for of_one in batch.events.chunk_by(|one, next| one.id() == next.id()) {
            self.0[leader] = Some(Ok(Outcome::New));
            leader += of_one.len();
        }
    }

    /// Whether nothing of the batch is left to be done.
    pub(super) fn is_all_of(&self, batch: &Batch) -> bool {
        batch.quarantine.is_empty() && self.0.iter().all(Option::is_some)
    }

    /// The deliveries with an event that met another one, in order.
    pub(super) fn unsettled<'a>(&self, batch: &'a Batch) -> Vec<&'a DeliveryId> {
        let events = batch.events.iter().zip(&self.0);
        let mut ids: Vec<_> =
            events.filter(|(_, outcome)| outcome.is_none()).map(|(event, _)| event.id()).collect();
        ids.dedup();
        ids
    }

    /// What became of each member of the batch, once all is committed.
    pub(super) fn kept(self, batch: &Batch) -> Vec<Kept> {
        // Its row was there in the first step.
        let gone = || Err(Fault::Contended("its row was deleted meanwhile".into()));
        let events = self.0.into_iter().map(|kept| kept.unwrap_or_else(gone));
        events.chain(batch.quarantine.iter().map(|body| Ok(body.outcome()))).collect()
    }

    /// What became of each member of the batch, if the first step is all that was committed.
    pub(super) fn kept_but_for(self, batch: &Batch, fault: &Fault) -> Vec<Kept> {
        let fault = || Err(fault.clone());
        let events = self.0.into_iter().map(|kept| kept.unwrap_or_else(fault));
        events.chain(batch.quarantine.iter().map(|_| fault())).collect()
    }

    /// Requires that each event was kept.
    ///
    /// # Errors
    /// What is wrong with one that was not.
    pub(super) fn require_all(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|kept| match kept {
            Some(Ok(_)) => Ok(()),
            Some(Err(fault)) => Err(fault.to_string()),
            None => Err("its row was deleted meanwhile".into()),
        })
    }
}

/// The second step in the making: what is to be written.
pub(super) struct Settling<'a> {
    batch: &'a Batch,
    committed: Committed,
    /// The rows that change.
    pub(super) changed: Vec<FoldedEvent>,
    /// Those of them that are shown otherwise then.
    pub(super) shown: Vec<DeliveryId>,
    /// The events that lost, by delivery and digest; and which of the batch's each is, if its outcome depends on
    /// whether it was among the older ones before.
    older: BTreeMap<(DeliveryId, Digest), (FoldedEvent, Option<usize>)>,
}

impl<'a> Settling<'a> {
    /// Begins with what the first step has settled.
    pub(super) fn after(batch: &'a Batch, committed: &Committed) -> Self {
        Self {
            batch,
            committed: committed.clone(),
            changed: Vec::new(),
            shown: Vec::new(),
            older: BTreeMap::new(),
        }
    }

    /// Merges the batch's events of one delivery into its row, which is locked.
    pub(super) fn settle(&mut self, row: FoldedEvent) {
        let before = row.event.told.clone();
        let (mut present, mut changed) = (row, false);
        for index in self.of(present.id()) {
            if self.committed.0[index].is_some() {
                continue;
            }
            let event = &self.batch.events[index];
            let known = present.event.told.clone();
            match event.standing().cmp(present.standing()) {
                Ordering::Equal => {
                    self.committed.0[index] = Some(Ok(Outcome::Seen));
                    present.add(event.clone());
                    changed = true;
                }
                Ordering::Greater => {
                    self.committed.0[index] = Some(Ok(Outcome::New));
                    let displaced = std::mem::replace(&mut present, event.clone());
                    self.add_older(displaced, None);
                }
                Ordering::Less => self.add_older(event.clone(), Some(index)),
            }
            present.event.told = known.clone().merge(event.event.told.clone());
            changed |= present.event.told != known;
        }
        if present.event.told != before {
            self.shown.push(before.id);
        }
        if changed {
            self.changed.push(present);
        }
    }

    /// The batch's events of one delivery cannot be merged into its row.
    pub(super) fn unreadable(&mut self, id: &DeliveryId, why: &str) {
        for index in self.of(id) {
            self.committed.0[index].get_or_insert_with(|| Err(Fault::Unreadable(why.to_owned())));
        }
    }

    /// The batch's events of one delivery.
    fn of(&self, id: &DeliveryId) -> Range<usize> {
        let events = &self.batch.events;
        let first = events.partition_point(|event| event.id() < id);
        first..first + events[first..].partition_point(|event| event.id() == id)
    }

    fn add_older(&mut self, event: FoldedEvent, index: Option<usize>) {
        match self.older.entry((event.id().clone(), event.proof.digest())) {
            Entry::Vacant(place) => {
                place.insert((event, index));
            }
            // It stood in the row a moment ago.
            Entry::Occupied(mut same) => {
                if let Some(index) = index {
                    self.committed.0[index] = Some(Ok(Outcome::Seen));
                }
                same.get_mut().0.add(event);
            }
        }
    }

    /// The events that lost, each once, in one order on every replica.
    pub(super) fn older(&self) -> Vec<&FoldedEvent> {
        self.older.values().map(|(event, _)| event).collect()
    }

    /// An event is among the older ones now, and has been received this many times.
    pub(super) fn kept(&mut self, id: &DeliveryId, digest: Digest, times: u64) {
        if let Some((event, Some(index))) = self.older.get(&(id.clone(), digest)) {
            let outcome = if event.times == times { Outcome::Kept } else { Outcome::Seen };
            self.committed.0[*index] = Some(Ok(outcome));
        }
    }

    /// What became of the events.
    pub(super) fn committed(self) -> Committed {
        self.committed
    }
}
