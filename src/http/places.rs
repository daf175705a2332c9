//! Which connection makes way when a new one comes and all places are taken.
//!
//! Lives here: the connections that are open, and which has waited longest for its peer. Does not: what a connection waits
//! for (`connection`), accepting (`serve`).
//!
//! A connection makes way only while its peer has to send or to read something: while it idles, or a head, a body or the
//! reading of an answer is incomplete. A request that is whole is answered first. The one that has waited longest is
//! closed, whatever for, so that a peer that sends at once is the last to go: with a thousand places and a thousand new
//! connections a second it has one second for that.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::{
    task::{Id, JoinError},
    time::Instant,
};

use super::{connection::Progress, seldom::Seldom};
use crate::metrics::Metrics;

/// One look at all connections finds who makes way next for one in so many of them.
const PART_AT_ONCE: usize = 64;

/// The places that connections have.
pub(super) struct Places {
    most: usize,
    taken: HashMap<Id, Arc<Progress>>,
    /// Who makes way next, in this order: all others began to wait later.
    next: VecDeque<(Instant, Arc<Progress>)>,
    log: Seldom,
    metrics: Arc<Metrics>,
}

impl Places {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { most, taken: HashMap::new(), next: VecDeque::new(), log: Seldom::default(), metrics }
    }

    pub(super) fn are_taken(&self) -> bool {
        self.taken.len() >= self.most
    }

    pub(super) fn take(&mut self, task: Id, progress: Arc<Progress>) {
        self.taken.insert(task, progress);
    }

    pub(super) fn leave(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = ended.map_or_else(|error| error.id(), |(task, ())| task);
        self.taken.remove(&task);
    }

    /// Ends the connection that has waited longest for its peer, if any does.
    pub(super) fn make_way(&mut self) {
        if !self.next_makes_way() {
            let waiting = self.taken.values();
            let mut waiting: Vec<_> = waiting
                .filter_map(|progress| Some((progress.waiting_since()?, Arc::clone(progress))))
                .collect();
            waiting.sort_unstable_by_key(|(since, _)| *since);
            waiting.truncate(self.most / PART_AT_ONCE + 1);
            self.next = waiting.into();
            if !self.next_makes_way() {
                return;
            }
        }
        self.metrics.connections_made_way.inc();
        if let Some(made_way) = self.log.due() {
            tracing::warn!(
                made_way,
                connections = self.most,
                "all connections are taken: those that wait longest for their peer are closed"
            );
        }
    }

    fn next_makes_way(&mut self) -> bool {
        std::iter::from_fn(|| self.next.pop_front()).any(|(since, progress)| progress.make_way(since))
    }
}
