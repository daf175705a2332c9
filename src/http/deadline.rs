//! One timer for all deadlines of a connection.
//!
//! Lives here: when a connection's task is woken because something may have taken too long. Does not: what that is,
//! and what then happens.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    task::coop::unconstrained,
    time::{Instant, sleep_until},
};

/// The deadlines of one connection.
///
/// A timer for each of them would be set and cleared several times a request, under a lock that all connections share,
/// and often with a system call. The one timer here is set only after it has rung, to the nearest deadline or, if that
/// is nearer, as far ahead as the shortest limit: whatever limit begins meanwhile can't end before.
pub(crate) struct Deadlines {
    shortest: Duration,
    start: Instant,
    /// The nearest that has been waited for since the timer rang, in nanoseconds from the start. Only the connection's
    /// own task asks and tells.
    nearest: AtomicU64,
}

impl Deadlines {
    /// For limits of which this is the shortest.
    pub(super) fn new(shortest: Duration) -> Self {
        Self { shortest, start: Instant::now(), nearest: AtomicU64::new(u64::MAX) }
    }

    /// Polls a future whenever it is woken, and whenever one of these deadlines may have passed.
    pub(super) async fn watch<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut timer = pin!(sleep_until(self.start + self.shortest));
        let mut is_set = false;
        poll_fn(|context| {
            let rings = is_set && timer.is_elapsed();
            if rings {
                self.nearest.store(u64::MAX, Ordering::Relaxed);
            }
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            if rings {
                let nearest = Duration::from_nanos(self.nearest.load(Ordering::Relaxed));
                timer.as_mut().reset((self.start + nearest).min(Instant::now() + self.shortest));
                is_set = false;
            }
            if !is_set {
                is_set = true;
                // A task's waker stays the same: once told whom to wake, the timer need not be asked at each turn.
                if Pin::new(&mut unconstrained(timer.as_mut())).poll(context).is_ready() {
                    context.waker().wake_by_ref();
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for a future, but not longer than this. To be awaited in what [`Deadlines::watch`] polls.
    pub(super) async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut deadline = Deadline::default();
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => deadline.poll(self, Instant::now(), (), limit).map(|()| None),
        })
        .await
    }

    /// A point in time as nanoseconds from the connection's start.
    pub(super) fn at(&self, time: Instant) -> u64 {
        u64::try_from((time - self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The point in time that is so many nanoseconds from the connection's start.
    pub(super) fn instant(&self, at: u64) -> Instant {
        self.start + Duration::from_nanos(at)
    }

    fn wait_for(&self, deadline: Instant) {
        let at = self.at(deadline);
        if at < self.nearest.load(Ordering::Relaxed) {
            self.nearest.store(at, Ordering::Relaxed);
        }
    }
}

/// A deadline that begins when it is first asked about, and anew with each new reason.
pub(super) struct Deadline<R>(Option<(R, Instant)>);

impl<R> Default for Deadline<R> {
    fn default() -> Self {
        Self(None)
    }
}

impl<R: PartialEq> Deadline<R> {
    /// Whether the time is up; if not, the task is polled again when it is.
    pub(super) fn poll(&mut self, all: &Deadlines, now: Instant, reason: R, limit: Duration) -> Poll<()> {
        let deadline = match &self.0 {
            Some((before, deadline)) if *before == reason => *deadline,
            _ => now + limit,
        };
        self.0 = Some((reason, deadline));
        if now >= deadline {
            return Poll::Ready(());
        }
        all.wait_for(deadline);
        Poll::Pending
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_limit_ends_in_its_time_whatever_the_timer_was_set_to() {
        let [short, long] = [5, 40].map(Duration::from_millis);
        let deadlines = Deadlines::new(short);
        let wait = async {
            for limit in [long, short, short, long] {
                let start = Instant::now();
                assert_eq!(deadlines.within(limit, pending::<()>()).await, None);
                assert!(start.elapsed() >= limit);
            }
            deadlines.within(long, async { "ready" }).await
        };
        let waited = timeout(Duration::from_secs(10), deadlines.watch(wait)).await;
        assert_eq!(waited.expect("the timer rings"), Some("ready"));
    }
}
