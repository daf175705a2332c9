//! Log lines about what callers may do as often as they like: one a minute.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_secs(60);

/// Counts what happens, and says when to log it.
#[derive(Default)]
pub(super) struct Seldom(Mutex<(u64, Option<Instant>)>);

impl Seldom {
    /// Counts once more; now and then answers how often it has happened since the last line.
    pub(super) fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let is_due = state.1.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        is_due.then(|| {
            state.1 = Some(now);
            std::mem::take(&mut state.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_at_once_and_then_one_a_minute_with_the_count() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds| seldom.due_at(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59), at(60), at(61)], [Some(1), None, None, Some(3), None]);
    }
}
