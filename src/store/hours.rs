//! Hours that are over are summed up once, so that statistics of any range add up hours rather than deliveries.
//!
//! Lives here: which hours, the same for both databases, and why that is exact. Does not: SQL (each database's
//! `hours`), when it is done (`summary`).
//!
//! Whoever changes what is counted of an hour that was over for more than `FRESH` first sets that hour back in
//! the table `hours`, in the same transaction. An hour that was over for `SETTLED` is summed up in three steps:
//!
//! 1. it is claimed by a random value, unless its sums are valid, and that is committed;
//! 2. its deliveries are counted by a statement that begins after that;
//! 3. in one transaction the counts are kept and its sums called valid, if the claim still stands.
//!
//! Setting back and claiming both lock the hour's row until they are committed. A change that was set back before the
//! claim is thus committed before the counting begins, and is counted. One that is set back after the claim takes the
//! claim away, so that step 3 keeps nothing; or, after step 3, makes the sums invalid in the commit that makes the
//! change visible. Of several who sum up one hour only the last to claim it keeps its counts. A change that sets
//! nothing back was of an hour over for less than `FRESH` by the clock of whoever made it: it is committed long
//! before anybody's clock finds the hour over for `SETTLED`, unless clocks differ, or a commit takes, a quarter of an
//! hour. The clock is the database's, so that all replicas have one; where it is another machine's, it is read now and
//! then and kept by what it was ahead of ours.

use std::time::Duration;

use crate::clock::Timestamp;

/// Commits into hours that are over for no longer than this set nothing back: nearly all commits.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// Hours that are over for this long may be summed up. The difference is what clocks may differ, and a commit take.
const SETTLED: Duration = Duration::from_secs(30 * 60);

pub(super) const HOUR_MICROS: i64 = 3_600_000_000;

/// Which hours are to be summed up.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// None before this one.
    pub from: Timestamp,
    /// Nor this one or any after it: they are not over, or not for long enough.
    pub until: Timestamp,
    /// All hours before this one that have deliveries are known to have a row in the table of hours.
    pub noted: Timestamp,
}

impl Due {
    /// All hours that may be summed up at this time, when all before `noted` have been looked at before.
    #[must_use]
    pub fn at(now: Timestamp, noted: Timestamp) -> Self {
        let until = over_for(SETTLED, now);
        Self { from: Timestamp::EARLIEST, until, noted: noted.min(until) }
    }

    /// Those after one that was attended to, whether or not its counts could be kept: each is once in a round.
    #[must_use]
    pub fn after(self, hour: Timestamp) -> Self {
        let next = Timestamp::from_micros(hour.micros() + HOUR_MICROS);
        Self { from: next.unwrap_or(self.until), ..self }
    }
}

/// The hours to set back before deliveries that are listed at these times change now, each once and in order.
pub(super) fn to_set_back(listed: impl Iterator<Item = Timestamp>, now: Timestamp) -> Vec<Timestamp> {
    let fresh = over_for(FRESH, now);
    let mut hours: Vec<_> = listed.filter(|time| *time < fresh).map(hour_of).collect();
    hours.sort_unstable();
    hours.dedup();
    hours
}

/// The first hour that was not over for so long.
fn over_for(time: Duration, now: Timestamp) -> Timestamp {
    let time = i64::try_from(time.as_micros()).expect("less than an hour");
    Timestamp::from_micros(now.micros() - time).map_or(now, hour_of)
}

/// The start of the UTC hour that a time is in.
fn hour_of(time: Timestamp) -> Timestamp {
    let micros = time.micros();
    Timestamp::from_micros(micros - micros.rem_euclid(HOUR_MICROS)).expect("the year 1 begins with an hour")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn an_hour_is_due_half_an_hour_after_its_end() {
        let until = |now| Due::at(at(now), Timestamp::EARLIEST).until;
        assert_eq!(until("2026-05-26T11:29:59.999999Z"), at("2026-05-26T10:00:00Z"));
        assert_eq!(until("2026-05-26T11:30:00Z"), at("2026-05-26T11:00:00Z"));
        assert_eq!(until("0001-01-01T00:00:00Z"), Timestamp::EARLIEST);
    }

    #[test]
    fn hours_are_set_back_once_and_in_order() {
        let times = [
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:00:00Z",
            "0001-01-01T00:59:00Z",
        ];
        let now = Timestamp::now();
        let later = Timestamp::from_micros(now.micros() + HOUR_MICROS).unwrap();
        let times = times.map(at).into_iter().chain([later, now]);
        let hours = ["0001-01-01T00:00:00Z", "1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"].map(at);
        assert_eq!(to_set_back(times, now), hours);
    }
}
