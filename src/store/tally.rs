//! Statistics, folded from counts that a database has grouped.
//!
//! Lives here: sums and percentiles, the same for both databases. Does not: SQL. Durations come counted by the whole
//! second, with the longest of each, so that what is carried over does not grow with the number of deliveries. The
//! longest duration of the second that holds a percentile's rank is taken for it.

use std::collections::BTreeMap;

use super::query::{Figures, Group, Percentiles, Stats};
use crate::{
    delivery::Status,
    money::{Money, Sum},
};

/// Deliveries that are alike in what they are counted by.
pub(super) struct Counted {
    /// The group they belong to.
    pub(super) key: Option<String>,
    /// Where they stand.
    pub(super) status: Status,
    /// Whether they are still `sent`, and given up.
    pub(super) stale: bool,
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
    /// Of each second how many took so long, and the longest of them.
    seconds: BTreeMap<i64, (u64, i64)>,
}

impl Tally {
    /// Adds deliveries; leaves them out, and answers false, when their costs are more than a sum can hold.
    #[must_use]
    pub(super) fn add(&mut self, counted: &Counted) -> bool {
        let Counted { cost, count, .. } = *counted;
        let group = self.groups.get(&counted.key).map_or_else(Sum::default, |group| group.figures.cost);
        let plus = |sum: Sum| sum.plus_times(cost, count);
        let (Some(total), Some(group)) = (plus(self.total.figures.cost), plus(group)) else { return false };
        self.total.add(counted, total);
        match self.groups.get_mut(&counted.key) {
            Some(part) => part.add(counted, group),
            None => self.groups.entry(counted.key.clone()).or_default().add(counted, group),
        }
        true
    }

    /// The figures; those of groups if they are wanted.
    pub(super) fn stats(self, grouped: bool) -> Stats {
        let groups = if grouped { self.groups } else { BTreeMap::new() };
        let group = |(key, part): (_, Part)| Group { key, figures: part.figures() };
        Stats { total: self.total.figures(), groups: groups.into_iter().map(group).collect() }
    }
}

impl Part {
    fn add(&mut self, counted: &Counted, cost: Sum) {
        let figures = &mut self.figures;
        *match counted.status {
            Status::Sent => &mut figures.sent,
            Status::Delivered => &mut figures.delivered,
            Status::Failed => &mut figures.failed,
        } += counted.count;
        if counted.stale {
            figures.stale += counted.count;
        }
        figures.cost = cost;
        if let Some(Second { second, longest }) = counted.took {
            let known = self.seconds.entry(second).or_insert((0, longest));
            *known = (known.0 + counted.count, known.1.max(longest));
        }
    }

    fn figures(self) -> Figures {
        let percentile = |percent| self.percentile(percent).map(in_seconds);
        let seconds = match (percentile(50), percentile(95), percentile(99)) {
            (Some(p50), Some(p95), Some(p99)) => Some(Percentiles { p50, p95, p99 }),
            _ => None,
        };
        Figures { seconds, ..self.figures }
    }

    /// What `percent` in 100 do not exceed, by the nearest rank; `None` if nothing took any time.
    fn percentile(&self, percent: u64) -> Option<i64> {
        let all: u64 = self.seconds.values().map(|(count, _)| count).sum();
        let mut rank = (u128::from(all) * u128::from(percent)).div_ceil(100);
        for (count, longest) in self.seconds.values() {
            if rank <= u128::from(*count) {
                return Some(*longest);
            }
            rank -= u128::from(*count);
        }
        None
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

    /// What `percentile_disc` gives, and after it the longest of the same second.
    fn nearest_rank(sorted: &[i64], percent: usize) -> f64 {
        let exact = sorted[(sorted.len() * percent).div_ceil(100) - 1];
        let second = |micros: i64| micros.div_euclid(1_000_000);
        in_seconds(*sorted.iter().rfind(|micros| second(**micros) == second(exact)).unwrap())
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_durations(
            durations in vec((0u8..3, -3_000_000i64..6_000_000), 1..60),
        ) {
            let mut tally = Tally::default();
            for (key, longest) in &durations {
                let took = Some(Second { second: longest.div_euclid(1_000_000), longest: *longest });
                let key = Some(key.to_string());
                let stale = false;
                assert!(tally.add(&Counted { key, status: Status::Failed, stale, cost: Money::ZERO, took, count: 1 }));
            }
            let stats = tally.stats(true);
            let expect = |wanted: Option<&String>| {
                let of = durations.iter().filter(|(key, _)| wanted.is_none_or(|wanted| *wanted == key.to_string()));
                let mut sorted: Vec<i64> = of.map(|(_, micros)| *micros).collect();
                sorted.sort_unstable();
                let percentile = |percent| nearest_rank(&sorted, percent);
                Some(Percentiles { p50: percentile(50), p95: percentile(95), p99: percentile(99) })
            };
            prop_assert_eq!(stats.total.seconds, expect(None));
            for group in &stats.groups {
                prop_assert_eq!(group.figures.seconds, expect(group.key.as_ref()));
            }
        }
    }
}
