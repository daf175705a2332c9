//! Statistics, folded from counts that a database has grouped.
//!
//! Lives here: sums and percentiles, the same for both databases. Does not: SQL. Durations come counted by the whole
//! second, with the shortest and the longest of each, so that what is carried over does not grow with the number of
//! deliveries. That settles every percentile if a second's durations are all alike, as they are where the provider's
//! times are whole seconds; the few seconds for which it doesn't are asked for again, duration by duration.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    StoreError,
    query::{Figures, Group, Percentiles, Stats},
};
use crate::{delivery::Status, money::Money};

/// Deliveries that are alike in what they are counted by.
pub(super) struct Counted {
    /// The group they belong to.
    pub(super) key: Option<String>,
    /// Where they stand.
    pub(super) status: Status,
    /// What each of them cost.
    pub(super) cost: Money,
    /// How long they took; `None` for those still under way, or without one of the two times.
    pub(super) took: Option<Second>,
    /// How many they are.
    pub(super) count: u64,
}

/// Durations within one second, in microseconds.
pub(super) struct Second {
    /// Which second.
    pub(super) second: i64,
    /// The shortest duration.
    pub(super) shortest: i64,
    /// The longest duration.
    pub(super) longest: i64,
}

/// Figures in the making: the total, and each group's.
#[derive(Default)]
pub(super) struct Tally {
    total: Part,
    groups: BTreeMap<Option<String>, Part>,
}

#[derive(Default)]
struct Part {
    figures: Figures,
    seconds: BTreeMap<i64, Durations>,
}

#[derive(Default)]
struct Durations {
    count: u64,
    shortest: i64,
    longest: i64,
    /// Each duration with its count; empty while they weren't asked for.
    each: BTreeMap<i64, u64>,
}

impl Tally {
    /// Adds deliveries.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the costs' sum can't be kept exactly.
    pub(super) fn add(&mut self, counted: &Counted) -> Result<(), StoreError> {
        self.total.add(counted)?;
        match self.groups.get_mut(&counted.key) {
            Some(part) => part.add(counted),
            None => self.groups.entry(counted.key.clone()).or_default().add(counted),
        }
    }

    /// The seconds of which a percentile needs each duration.
    pub(super) fn unsettled(&self) -> BTreeSet<i64> {
        self.parts().flat_map(|part| RANKS.iter().filter_map(|percent| part.find(*percent)?.err())).collect()
    }

    /// Adds one duration of an unsettled second.
    pub(super) fn refine(&mut self, key: &Option<String>, second: i64, duration: i64, count: u64) {
        for part in [Some(&mut self.total), self.groups.get_mut(key)].into_iter().flatten() {
            if let Some(durations) = part.seconds.get_mut(&second) {
                *durations.each.entry(duration).or_default() += count;
            }
        }
    }

    /// The figures; those of groups if they are wanted.
    pub(super) fn stats(self, grouped: bool) -> Stats {
        let groups = if grouped { self.groups } else { BTreeMap::new() };
        let group = |(key, part): (_, Part)| Group { key, figures: part.figures() };
        Stats { total: self.total.figures(), groups: groups.into_iter().map(group).collect() }
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.groups.values().chain([&self.total])
    }
}

/// The percentiles asked for.
const RANKS: [u64; 3] = [50, 95, 99];

impl Part {
    fn add(&mut self, counted: &Counted) -> Result<(), StoreError> {
        let figures = &mut self.figures;
        *match counted.status {
            Status::Sent => &mut figures.sent,
            Status::Delivered => &mut figures.delivered,
            Status::Failed => &mut figures.failed,
        } += counted.count;
        figures.cost = figures
            .cost
            .plus_times(counted.cost, counted.count)
            .ok_or_else(|| StoreError::Corrupt("costs whose sum needs more than 28 digits".into()))?;
        if let Some(took) = &counted.took {
            self.seconds.entry(took.second).or_default().add(took, counted.count);
        }
        Ok(())
    }

    fn figures(self) -> Figures {
        let percentile = |percent| self.find(percent).map(|found| found.unwrap_or_default());
        let seconds = (percentile(RANKS[0]), percentile(RANKS[1]), percentile(RANKS[2]));
        let seconds = match seconds {
            (Some(p50), Some(p95), Some(p99)) => {
                Some(Percentiles { p50: in_seconds(p50), p95: in_seconds(p95), p99: in_seconds(p99) })
            }
            _ => None,
        };
        Figures { seconds, ..self.figures }
    }

    /// The duration that `percent` in 100 do not exceed, by the nearest rank; the second it is in, if that is all
    /// that can be said so far; `None` if nothing took any time.
    fn find(&self, percent: u64) -> Option<Result<i64, i64>> {
        let all: u64 = self.seconds.values().map(|durations| durations.count).sum();
        let mut rank = (u128::from(all) * u128::from(percent)).div_ceil(100);
        for (second, durations) in &self.seconds {
            if rank <= u128::from(durations.count) {
                return Some(durations.find(rank).ok_or(*second));
            }
            rank -= u128::from(durations.count);
        }
        None
    }
}

impl Durations {
    fn add(&mut self, took: &Second, count: u64) {
        let first = self.count == 0;
        self.shortest = if first { took.shortest } else { self.shortest.min(took.shortest) };
        self.longest = if first { took.longest } else { self.longest.max(took.longest) };
        self.count += count;
    }

    /// The duration of this rank, counted from 1; `None` if it takes each duration to know.
    fn find(&self, mut rank: u128) -> Option<i64> {
        if rank == 1 || self.shortest == self.longest {
            return Some(self.shortest);
        }
        if rank == u128::from(self.count) {
            return Some(self.longest);
        }
        for (duration, count) in &self.each {
            if rank <= u128::from(*count) {
                return Some(*duration);
            }
            rank -= u128::from(*count);
        }
        // Deliveries moved between the two questions: the longest is near enough, and did occur.
        (!self.each.is_empty()).then_some(self.longest)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a double holds 285 years of microseconds exactly")]
fn in_seconds(micros: i64) -> f64 {
    micros as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What `percentile_disc` gives.
    fn nearest_rank(sorted: &[i64], percent: usize) -> i64 {
        sorted[(sorted.len() * percent).div_ceil(100) - 1]
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_durations(
            durations in vec((0u8..3, -3_000_000i64..6_000_000, prop::bool::ANY), 1..60),
        ) {
            let durations: Vec<(String, i64)> = durations
                .into_iter()
                .map(|(key, micros, whole)| (key.to_string(), if whole { micros / 1_000_000 * 1_000_000 } else { micros }))
                .collect();
            let mut tally = Tally::default();
            for (key, micros) in &durations {
                let took = Second { second: micros / 1_000_000, shortest: *micros, longest: *micros };
                let counted =
                    Counted { key: Some(key.clone()), status: Status::Failed, cost: Money::ZERO, took: Some(took), count: 1 };
                tally.add(&counted).unwrap();
            }
            let unsettled = tally.unsettled();
            for (key, micros) in durations.iter().filter(|(_, micros)| unsettled.contains(&(micros / 1_000_000))) {
                tally.refine(&Some(key.clone()), micros / 1_000_000, *micros, 1);
            }
            let stats = tally.stats(true);
            let expect = |wanted: Option<&String>| {
                let mut sorted: Vec<i64> =
                    durations.iter().filter(|(key, _)| wanted.is_none_or(|wanted| wanted == key)).map(|(_, m)| *m).collect();
                sorted.sort_unstable();
                let percentile = |percent| in_seconds(nearest_rank(&sorted, percent));
                Some(Percentiles { p50: percentile(50), p95: percentile(95), p99: percentile(99) })
            };
            prop_assert_eq!(stats.total.seconds, expect(None));
            for group in &stats.groups {
                prop_assert_eq!(group.figures.seconds, expect(group.key.as_ref()));
            }
        }
    }
}
