//! One commit, and what its result means for the commits after it: whether the store is away, or broken.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::log::Log;
use crate::{
    batch::{Batch, Outcome},
    logs,
    metrics::Metrics,
    news::News,
    store::{Fault, Kept, Store, StoreError},
    waiting::Waiters,
};

/// After the store was found unavailable, for this long nothing is tried and all is refused at once: a database
/// that comes back is not met by a storm of connections, and a sender does not wait for what is known.
const PAUSE: Duration = Duration::from_millis(100);

/// The store, as all commits of this process see it.
pub(super) struct Commits {
    pub(super) store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    waiters: Arc<Waiters>,
    news: Arc<News>,
    away: Mutex<Option<Away>>,
    broken: AtomicBool,
    log: Mutex<Log>,
}

/// The store is unavailable.
struct Away {
    since: Instant,
    try_again: Instant,
}

/// Why a batch was not committed.
pub(super) enum Failure {
    /// The store is unavailable, which is everybody's trouble.
    Unavailable,
    /// Some of the batch's members are at fault.
    OfSome(Fault),
}

impl Commits {
    pub(super) fn new(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        waiters: Arc<Waiters>,
        news: Arc<News>,
        events: logs::Events,
    ) -> Self {
        let (away, broken) = (Mutex::default(), AtomicBool::new(false));
        Self { store, metrics, waiters, news, away, broken, log: Mutex::new(Log::new(events)) }
    }

    /// Whether the store can't be trusted any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// Commits a batch of so many arrivals, unless the store was found away a moment ago.
    pub(super) async fn attempt(&self, batch: &Batch, arrivals: usize) -> Result<Vec<Kept>, Failure> {
        let started = Instant::now();
        if lock(&self.away).as_ref().is_some_and(|away| started < away.try_again) {
            return Err(Failure::Unavailable);
        }
        let committed = self.store.commit(batch).await;
        let took = started.elapsed();
        self.metrics.committed(arrivals, took);
        tracing::debug!(arrivals, seconds = took.as_secs_f64(), "commit");
        match committed {
            Ok(kept) => {
                self.tell(batch, &kept);
                Ok(kept)
            }
            Err(StoreError::Unreadable(row)) => Err(Failure::OfSome(Fault::Refused(row.to_string()))),
            Err(StoreError::Refused(why) | StoreError::Corrupt(why)) => {
                Err(Failure::OfSome(Fault::Refused(why)))
            }
            Err(StoreError::Contended(why)) => Err(Failure::OfSome(Fault::Contended(why))),
            Err(StoreError::Broken(reason)) => {
                tracing::error!(reason, "the store can't be trusted any more: nothing more is acknowledged");
                self.broken.store(true, Ordering::Release);
                Err(Failure::Unavailable)
            }
            Err(error @ StoreError::Unavailable(_)) => {
                let mut state = lock(&self.away);
                let since = state.take().map_or(started, |away| away.since);
                if since == started {
                    tracing::error!(%error, "a commit failed: webhooks are answered 503 until the store is back");
                }
                *state = Some(Away { since, try_again: Instant::now() + PAUSE });
                Err(Failure::Unavailable)
            }
        }
    }

    /// Tells of a commit: those who wait for a delivery, those who follow all of them, and the log.
    fn tell(&self, batch: &Batch, kept: &[Kept]) {
        let events = batch.events.iter().zip(kept).filter(|(_, kept)| kept.is_ok());
        let settled = events.map(|(event, _)| &event.event.told).filter(|told| told.status.is_terminal());
        self.waiters.settled(settled.map(|told| &told.id));
        // An older event may have completed what is shown.
        if kept.iter().any(|kept| matches!(kept, Ok(Outcome::New | Outcome::Kept))) {
            self.news.committed();
        }
        if let Some(away) = lock(&self.away).take() {
            tracing::info!(seconds = away.since.elapsed().as_secs_f64(), "the store is back");
        }
        lock(&self.log).report(batch, kept);
    }
}

pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
