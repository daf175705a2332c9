//! Those who wait for a delivery to be settled: delivered or failed.
//!
//! Lives here: who waits for which, and who wakes them. Does not: HTTP; how long anybody waits. The writer wakes those of
//! its own commits at once; what other replicas commit is asked of the store, when they tell that they have.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    background::told_within,
    delivery::DeliveryId,
    news::{News, UNTOLD},
    store::{Store, StoreError},
};

/// How often other replicas' commits are asked for at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// What each that is waited for adds to the pause: asking for a thousand costs a database some milliseconds.
const PAUSE_EACH: Duration = Duration::from_micros(25);

/// After the store did not answer.
const PAUSE_AWAY: Duration = Duration::from_secs(1);

/// How many are asked for at once.
const ASKED: usize = 1_000;

/// By delivery: one channel for all who wait for it, gone with the last of them.
type WaitedFor = HashMap<DeliveryId, watch::Sender<()>>;

/// Who waits for which delivery.
pub struct Waiters {
    /// `None` once all waiting has ended.
    waited_for: Mutex<Option<WaitedFor>>,
    /// How many deliveries are waited for, for a look without the lock.
    count: AtomicUsize,
    /// Told when there is one to wait for.
    begun: Notify,
}

/// One who waits.
pub struct Waiter {
    waiters: Arc<Waiters>,
    id: DeliveryId,
    told: watch::Receiver<()>,
}

impl Waiters {
    /// Nobody waits yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let waited_for = Mutex::new(Some(WaitedFor::new()));
        Arc::new(Self { waited_for, count: AtomicUsize::new(0), begun: Notify::new() })
    }

    /// Begins to wait for a delivery. Whoever then reads the store misses nothing.
    #[must_use]
    pub fn begin(self: &Arc<Self>, id: DeliveryId) -> Waiter {
        let told = match &mut *self.lock() {
            // Of a channel that is closed.
            None => watch::channel(()).1,
            Some(waited_for) => {
                let told = waited_for.entry(id.clone()).or_insert_with(|| watch::channel(()).0).subscribe();
                self.count.store(waited_for.len(), Ordering::Release);
                told
            }
        };
        self.begun.notify_one();
        Waiter { waiters: Arc::clone(self), id, told }
    }

    /// Wakes those who wait for these; that costs nothing when nobody does.
    pub fn settled<'a>(&self, ids: impl IntoIterator<Item = &'a DeliveryId>) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(waited_for) = &*self.lock() {
            for channel in ids.into_iter().filter_map(|id| waited_for.get(id)) {
                channel.send_replace(());
            }
        }
    }

    /// Ends all waiting, now and from here on.
    pub fn stop(&self) {
        *self.lock() = None;
    }

    fn ids(&self) -> Vec<DeliveryId> {
        self.lock().iter().flat_map(HashMap::keys).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<WaitedFor>> {
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Returns when the delivery may have been settled since the last time; false when waiting has ended.
    pub async fn woken(&mut self) -> bool {
        self.told.changed().await.is_ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(waited_for) = &mut *self.waiters.lock() else { return };
        // This one is still counted.
        if waited_for.get(&self.id).is_some_and(|channel| channel.receiver_count() <= 1) {
            waited_for.remove(&self.id);
        }
        self.waiters.count.store(waited_for.len(), Ordering::Release);
    }
}

/// Asks the store for what other replicas have settled, while anybody waits, until told to stop: when they tell that
/// they have changed something, and else now and then.
pub async fn follow(
    waiters: Arc<Waiters>,
    news: Arc<News>,
    store: Arc<dyn Store>,
    mut stop: watch::Receiver<()>,
) {
    let mut others = news.of_others();
    loop {
        let ids = waiters.ids();
        if ids.is_empty() {
            tokio::select! {
                () = waiters.begun.notified() => continue,
                _ = stop.changed() => return,
            }
        }
        others.mark_unchanged();
        let pause = match ask(&waiters, &*store, &ids).await {
            Ok(()) => SHORTEST_PAUSE.max(PAUSE_EACH * u32::try_from(ids.len()).unwrap_or(u32::MAX)),
            Err(error) => {
                tracing::debug!(%error, "those who wait are not told of other replicas' commits");
                PAUSE_AWAY
            }
        };
        if told_within(pause, &mut stop).await {
            return;
        }
        if news.is_listening() {
            tokio::select! {
                _ = timeout(UNTOLD, others.changed()) => {}
                () = waiters.begun.notified() => {}
                _ = stop.changed() => return,
            }
        }
    }
}

async fn ask(waiters: &Waiters, store: &dyn Store, ids: &[DeliveryId]) -> Result<(), StoreError> {
    for ids in ids.chunks(ASKED) {
        waiters.settled(&store.settled_among(ids).await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeliveryId {
        DeliveryId::parse(text.into()).unwrap()
    }

    #[tokio::test]
    async fn all_who_wait_for_it_are_woken_and_no_others() {
        let waiters = Waiters::new();
        let (mut one, mut other) = (waiters.begin(id("a")), waiters.begin(id("a")));
        let mut elsewhere = waiters.begin(id("b"));
        waiters.settled([&id("a"), &id("c")]);
        assert!(one.woken().await && other.woken().await);
        assert!(timeout(Duration::ZERO, elsewhere.woken()).await.is_err());
        assert!(timeout(Duration::ZERO, one.woken()).await.is_err(), "once for each time");
    }

    #[tokio::test]
    async fn what_was_settled_between_beginning_and_waiting_is_not_missed() {
        let waiters = Waiters::new();
        let mut waiter = waiters.begin(id("a"));
        waiters.settled([&id("a")]);
        assert!(waiter.woken().await);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_who_have_left() {
        let waiters = Waiters::new();
        let (one, other) = (waiters.begin(id("a")), waiters.begin(id("a")));
        drop(one);
        assert_eq!(waiters.ids(), [id("a")]);
        drop(other);
        assert!(waiters.ids().is_empty());
        assert_eq!(waiters.count.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn stopping_ends_all_waiting() {
        let waiters = Waiters::new();
        let mut waiter = waiters.begin(id("a"));
        waiters.stop();
        assert!(!waiter.woken().await);
        assert!(!waiters.begin(id("b")).woken().await, "who comes later does not wait either");
    }
}
