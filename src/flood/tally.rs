//! What is counted while requests are sent and answered.
//!
//! Lives here: numbers and the histogram. Does not: how they are shown (`report`).

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// What became of the requests so far.
#[derive(Debug)]
pub(super) struct Tally {
    /// Answers by status.
    pub(super) answers: BTreeMap<u16, u64>,
    /// Nanoseconds from when a request was due until its answer was there.
    pub(super) latency: Histogram<u64>,
    /// Requests that were the one before again.
    pub(super) repeats: u64,
    /// Connections that broke or could not be made.
    pub(super) broken: u64,
    /// What was wrong with the first of them.
    pub(super) first_error: Option<String>,
    /// The events that were answered 200.
    pub(super) acknowledged: Acknowledged,
    /// When the last answer came.
    pub(super) last_answer: Instant,
}

impl Tally {
    pub(super) fn new(start: Instant) -> Self {
        let hour = 3_600 * 1_000_000_000;
        Self {
            answers: BTreeMap::new(),
            // Three digits from a microsecond on.
            latency: Histogram::new_with_bounds(1_000, hour, 3).expect("bounds that fit"),
            repeats: 0,
            broken: 0,
            first_error: None,
            acknowledged: Acknowledged::default(),
            last_answer: start,
        }
    }

    /// A request that was due then has waited so long, whether or not its answer has come.
    pub(super) fn waited(&mut self, wait: Duration) {
        self.latency.saturating_record(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, event: u64, status: u16, now: Instant) {
        *self.answers.entry(status).or_default() += 1;
        self.last_answer = now;
        if status == 200 {
            self.acknowledged.insert(event);
        }
    }

    /// A connection broke, or could not be made.
    pub(super) fn broke(&mut self, error: &io::Error) {
        self.broken += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    /// All answers.
    pub(super) fn answered_in_all(&self) -> u64 {
        self.answers.values().sum()
    }
}

/// A set of events, a bit each.
#[derive(Debug, Default, Clone)]
pub struct Acknowledged(Vec<u64>);

impl Acknowledged {
    fn insert(&mut self, event: u64) {
        let word = usize::try_from(event / 64).expect("memory ends before");
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (event % 64);
    }

    /// The first of them from this one on.
    pub(super) fn first_from(&self, event: u64) -> Option<u64> {
        let start = usize::try_from(event / 64).ok()?;
        let first = self.0.get(start)? & (u64::MAX << (event % 64));
        let words = std::iter::once(first).chain(self.0[start + 1..].iter().copied());
        let (word, bits) = (event / 64..).zip(words).find(|(_, bits)| *bits != 0)?;
        Some(word * 64 + u64::from(bits.trailing_zeros()))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_set, prelude::*};

    proptest! {
        #[test]
        fn all_that_were_acknowledged_are_found_in_order(events in btree_set(0..1_000_u64, 0..60)) {
            let mut acknowledged = Acknowledged::default();
            for event in events.iter().rev() {
                acknowledged.insert(*event);
                acknowledged.insert(*event);
            }
            prop_assert_eq!(acknowledged.len(), events.len() as u64);
            let mut found = Vec::new();
            let mut from = 0;
            while let Some(event) = acknowledged.first_from(from) {
                found.push(event);
                from = event + 1;
            }
            prop_assert!(found.into_iter().eq(events));
        }
    }
}
