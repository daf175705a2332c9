//! The circuit breaker: whether the provider may be called now.

use std::time::Duration;

use tokio::time::Instant;

/// So many calls in a row without an answer, and it is left alone.
const PATIENCE: u32 = 3;

/// For how long, the first time; each further time twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer came, or none that says what was done.
    NoAnswer,
    /// The provider does not want to be called: too often, with this key or from here; for so long, if it says so,
    /// which [`crate::provider`] caps.
    ToldOff(Option<Duration>),
}

/// Closed while calls work; open for a while after they do not; then one call at a time shows whether they do again.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures in a row.
    failures: u32,
    /// How many times it has opened in a row.
    opened: u32,
    /// Until when nothing is called.
    until: Option<Instant>,
}

impl Breaker {
    /// How many calls may be made now, `most` at most; `None` for none.
    pub(super) fn allows(&self, now: Instant, most: u32) -> Option<u32> {
        match self.until {
            None => Some(most),
            Some(until) if until <= now => Some(1),
            Some(_) => None,
        }
    }

    /// Whether it has opened, and no call has worked since.
    pub(super) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// A call was answered.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// A call failed. `jitter`, from 0 to 1, keeps replicas from trying again at one time.
    pub(super) fn failed(&mut self, fault: Fault, now: Instant, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        // Of a call that was made before it opened.
        let is_old = self.until.is_some_and(|until| now < until);
        let asked_for = match fault {
            Fault::ToldOff(time) => time,
            Fault::NoAnswer if is_old || (self.failures < PATIENCE && self.opened == 0) => return,
            Fault::NoAnswer => None,
        };
        if is_old && asked_for.is_none() {
            return;
        }
        let doubled = FIRST_PAUSE * 2_u32.pow(self.opened.min(16));
        let pause = doubled.min(LONGEST_PAUSE).mul_f64(0.75 + jitter / 2.0);
        // What the provider asks for is the least.
        let pause = asked_for.map_or(pause, |time| time.max(pause));
        self.opened = self.opened.saturating_add(1);
        self.until = self.until.max(Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_failures_in_a_row_open_it_and_one_that_works_closes_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..2 {
            breaker.failed(Fault::NoAnswer, now, 0.5);
        }
        breaker.worked();
        for _ in 0..2 {
            breaker.failed(Fault::NoAnswer, now, 0.5);
            assert_eq!(breaker.allows(now, 10), Some(10));
        }
        breaker.failed(Fault::NoAnswer, now, 0.5);
        assert_eq!(breaker.allows(now, 10), None);
        assert_eq!(breaker.allows(now + SECOND, 10), Some(1), "one shows whether it works");
        breaker.worked();
        assert_eq!(breaker.allows(now, 10), Some(10));
    }

    #[test]
    fn it_stays_open_twice_as_long_each_time_up_to_minutes() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            while breaker.allows(now, 10).is_some() {
                breaker.failed(Fault::NoAnswer, now, 0.5);
            }
            // Calls that were under way when it opened change nothing.
            breaker.failed(Fault::NoAnswer, now, 0.5);
            pauses.push(breaker.until.unwrap() - now);
            now = breaker.until.unwrap();
        }
        assert_eq!(pauses[..4], [SECOND, SECOND * 2, SECOND * 4, SECOND * 8]);
        assert_eq!(pauses[11], LONGEST_PAUSE);
    }

    #[test]
    fn it_opens_at_once_for_as_long_as_the_provider_asks() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(Fault::ToldOff(Some(SECOND * 60)), now, 0.5);
        assert_eq!(breaker.allows(now + SECOND * 59, 10), None);
        assert_eq!(breaker.allows(now + SECOND * 60, 10), Some(1));
        // Never for less than without its word: a zero is no invitation.
        let mut breaker = Breaker::default();
        breaker.failed(Fault::ToldOff(Some(Duration::ZERO)), now, 0.5);
        assert_eq!(breaker.allows(now, 10), None);
    }
}
