//! Supervises background tasks: each goes on until it is told to stop, and starts again when it panics.
//!
//! Only for tasks that leave nothing half-done: whatever one of them keeps in memory is built anew. The writer and the
//! accept loop are none of them; when one of those ends, the process does (`service`).

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

/// How long after a panic a task starts again; twice as long after each further one, up to [`LONGEST_BACKOFF`].
const BACKOFF: Duration = Duration::from_secs(1);

/// The longest wait before a task starts again. One that ran for longer than this begins with [`BACKOFF`] anew.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Restarts of each task in this process, by name.
static RESTARTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Waits; whether it was told to stop meanwhile, or nobody is left to tell.
pub async fn told_within(time: Duration, stop: &mut watch::Receiver<()>) -> bool {
    timeout(time, stop.changed()).await.is_ok()
}

/// How often each task that was ever started in this process started again after a panic.
#[must_use]
pub fn restarts() -> BTreeMap<&'static str, u64> {
    counts().clone()
}

fn counts() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    RESTARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task in the background.
pub struct Background {
    /// Dropped, it tells the task to end.
    going_on: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Background {
    /// Starts a task, which is told to end through what it is given. `name` stands in the log and in the metrics; `task`
    /// makes the task, again after each panic.
    pub fn start<T>(name: &'static str, task: impl FnMut(watch::Receiver<()>) -> T + Send + 'static) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        counts().entry(name).or_default();
        let (going_on, told) = watch::channel(());
        Self { going_on, task: tokio::spawn(supervise(name, task, told)) }
    }

    /// Tells it to end, and waits for that until the deadline. Nothing is lost if it is cut off: it keeps nothing that is
    /// not done another time.
    pub async fn stop(mut self, deadline: Instant) {
        drop(self.going_on);
        if timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

async fn supervise<T>(
    name: &'static str,
    mut task: impl FnMut(watch::Receiver<()>) -> T,
    mut told: watch::Receiver<()>,
) where
    T: Future<Output = ()>,
{
    let mut backoff = BACKOFF;
    loop {
        let started = Instant::now();
        // Making the task may panic too.
        let once = AssertUnwindSafe(async { task(told.clone()).await });
        if once.catch_unwind().await.is_ok() {
            return;
        }
        if started.elapsed() > LONGEST_BACKOFF {
            backoff = BACKOFF;
        }
        let seconds = backoff.as_secs();
        tracing::error!(task = name, seconds, "a background task panicked: it starts again in a while");
        if told_within(backoff, &mut told).await {
            return;
        }
        *counts().entry(name).or_default() += 1;
        backoff = (2 * backoff).min(LONGEST_BACKOFF);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// A task that panics at its first `panics` starts and then waits to be told to stop; how often it was started.
    fn panicking(name: &'static str, panics: usize) -> (Background, Arc<AtomicUsize>) {
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&starts);
        let task = move |mut told: watch::Receiver<()>| {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(nth >= panics, "injected");
                let _ = told.changed().await;
            }
        };
        (Background::start(name, task), starts)
    }

    async fn started(starts: &AtomicUsize, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while starts.load(Ordering::SeqCst) < times {
            assert!(Instant::now() < deadline, "{starts:?}");
            tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await.unwrap_err();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_starts_again_ever_later_and_is_counted() {
        let (task, starts) = panicking("panics four times", 4);
        let began = Instant::now();
        for (times, seconds) in [(1, 0), (2, 1), (3, 3), (4, 7), (5, 15)] {
            started(&starts, times).await;
            let took = began.elapsed().as_secs_f64();
            assert!((f64::from(seconds)..f64::from(seconds) + 0.5).contains(&took), "{times}: {took}");
        }
        assert_eq!(restarts()["panics four times"], 4);
        task.stop(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(starts.load(Ordering::SeqCst), 5, "an orderly end is no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_a_minute_at_most_and_a_stop_cuts_it_short() {
        let (task, starts) = panicking("panics for ever", usize::MAX);
        started(&starts, 8).await;
        let began = Instant::now();
        started(&starts, 9).await;
        let pause = began.elapsed();
        assert!(pause <= LONGEST_BACKOFF + Duration::from_millis(200), "{pause:?}");
        let began = Instant::now();
        task.stop(began + Duration::from_secs(30)).await;
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(starts.load(Ordering::SeqCst), 9);
    }
}
