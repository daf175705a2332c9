//! What a database answered to a commit, and what that makes of each event.

use std::collections::{HashMap, HashSet};

use super::StoreError;
use crate::{
    batch::{Batch, FoldedEvent, Outcome},
    delivery::Standing,
    signature::Digest,
};

/// What was written: of events all, of states those that changed.
#[derive(Default)]
pub(super) struct Committed {
    times: HashMap<Digest, u64>,
    present: HashSet<Standing>,
}

impl Committed {
    /// An event was received this many times by now.
    pub(super) fn event(&mut self, digest: Digest, times: u64) {
        self.times.insert(digest, times);
    }

    /// A state was written and now has this standing.
    pub(super) fn state(&mut self, standing: Standing) {
        self.present.insert(standing);
    }

    /// What became of each of the batch's events. An event's digest covers its id, so that neither digest nor
    /// standing can be another delivery's.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the database did not answer for one of them.
    pub(super) fn outcomes(&self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        batch.events.iter().map(|folded| self.outcome(folded)).collect()
    }

    fn outcome(&self, folded: &FoldedEvent) -> Result<Outcome, StoreError> {
        let times = self
            .times
            .get(&folded.verified.digest())
            .ok_or_else(|| StoreError::Corrupt("a commit that left out an event".into()))?;
        Ok(if *times != folded.times {
            Outcome::Seen
        } else if self.present.contains(&folded.event.told.standing) {
            Outcome::New
        } else {
            Outcome::Kept
        })
    }
}
