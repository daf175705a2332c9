//! When each request is due: at a steady rate, whatever becomes of the requests before it.
//!
//! Lives here: the schedule, and a thread that keeps it. Does not: sending.

use std::{
    io,
    num::{NonZeroU32, NonZeroU64},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::set_current_timer_slack;

const SECOND: u128 = 1_000_000_000;

/// Requests at a steady rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    pub(super) rate: NonZeroU32,
    pub(super) total: u64,
}

impl Schedule {
    /// When the request with this number is due; the first has the number 0.
    pub(super) fn due(&self, number: u64) -> Instant {
        let nanos = (u128::from(number) * SECOND).div_ceil(u128::from(self.rate.get()));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX >> 1))
    }

    /// How many are due by then.
    pub(super) fn due_by(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.start).as_nanos();
        let due = nanos * u128::from(self.rate.get()) / SECOND + 1;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.total)
    }
}

/// Tells, from a thread of its own, how many are due, whenever another one is; until `tell` says no or all are.
///
/// A thread's sleep ends within some ten microseconds of its time, tokio's within a millisecond.
pub(super) fn keep(schedule: Schedule, mut tell: impl FnMut(u64) -> bool + Send + 'static) -> io::Result<()> {
    let keep = move || {
        // The kernel may be late by this many nanoseconds, to save power; where it takes no wish, by its usual 50,000.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        loop {
            let due = schedule.due_by(Instant::now());
            if !tell(due) || due == schedule.total {
                break;
            }
            thread::sleep(schedule.due(due).saturating_duration_since(Instant::now()));
        }
    };
    thread::Builder::new().name("pace".to_owned()).spawn(keep)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_is_due_when_its_time_has_come_and_not_before(
            rate in 1..=1_000_000_u32, total in 1..=u64::MAX, number in 0..10_000_000_000_u64,
        ) {
            let schedule = Schedule { start: Instant::now(), rate: NonZeroU32::new(rate).unwrap(), total };
            let due = schedule.due(number);
            prop_assert_eq!(schedule.due_by(due), (number + 1).min(total));
            if number > 0 {
                prop_assert_eq!(schedule.due_by(due - Duration::from_nanos(1)), number.min(total));
            }
        }
    }

    #[test]
    fn each_is_told_when_it_is_due() {
        let (tell, told) = mpsc::channel();
        let schedule = Schedule { start: Instant::now(), rate: NonZeroU32::new(5_000).unwrap(), total: 200 };
        keep(schedule, move |due| tell.send((due, Instant::now())).is_ok()).unwrap();
        let told: Vec<_> = told.iter().collect();
        assert!(told.is_sorted_by_key(|(due, _)| *due));
        assert!(told.iter().all(|(due, at)| schedule.due(due - 1) <= *at));
        assert_eq!(told.last().unwrap().0, 200);
    }
}
