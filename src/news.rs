//! That something has changed: told by the writer, and from replica to replica.
//!
//! Lives here: [`News`], and the two tasks that carry it. Does not: what has changed, which those who are told look up
//! (`waiting`, `feed`); how replicas reach each other (`store`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{
    background::told_within,
    store::{Store, StoreError},
};

/// How long whoever depends on news waits for some before it looks all the same, in case that some was missed.
pub const UNTOLD: Duration = Duration::from_secs(1);

/// How often other replicas are told at most.
const PACE: Duration = Duration::from_millis(10);

/// After the store could not be reached.
const PAUSE_AWAY: Duration = Duration::from_secs(1);

/// That something has changed.
pub struct News {
    /// Who we are, among the replicas.
    who: String,
    /// Told when a commit of ours changed something.
    ours: Notify,
    /// Likewise, and when another replica's did.
    any: watch::Sender<()>,
    /// When another replica's did.
    others: watch::Sender<()>,
    /// Whether other replicas are heard.
    listening: AtomicBool,
}

impl News {
    /// None yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            who: Uuid::new_v4().simple().to_string(),
            ours: Notify::new(),
            any: watch::Sender::new(()),
            others: watch::Sender::new(()),
            listening: AtomicBool::new(false),
        })
    }

    /// A commit of ours has changed something.
    pub fn committed(&self) {
        self.any.send_replace(());
        self.ours.notify_one();
    }

    /// Told when anything has changed.
    #[must_use]
    pub fn of_any(&self) -> watch::Receiver<()> {
        self.any.subscribe()
    }

    /// Told when another replica has changed something, or may have.
    #[must_use]
    pub fn of_others(&self) -> watch::Receiver<()> {
        self.others.subscribe()
    }

    /// Whether other replicas are heard; if not, the store has to be asked.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Acquire)
    }

    fn heard(&self) {
        self.others.send_replace(());
        self.any.send_replace(());
    }
}

/// Tells other replicas of our commits, of many at once, until told to stop. Nothing depends on it but how soon they know.
pub async fn announce(news: Arc<News>, store: Arc<dyn Store>, mut stop: watch::Receiver<()>) {
    loop {
        tokio::select! {
            () = news.ours.notified() => {}
            _ = stop.changed() => return,
        }
        let pause = match store.announce(&news.who).await {
            Ok(()) => PACE,
            Err(error) => {
                tracing::debug!(%error, "other replicas are not told of commits");
                PAUSE_AWAY
            }
        };
        if told_within(pause, &mut stop).await {
            return;
        }
    }
}

/// Hears what other replicas tell, until told to stop.
pub async fn listen(news: Arc<News>, store: Arc<dyn Store>, mut stop: watch::Receiver<()>) {
    loop {
        // Also when this is a new start after a panic.
        news.listening.store(false, Ordering::Release);
        tokio::select! {
            Err(error) = hear(&news, &*store) => {
                tracing::debug!(%error, "other replicas are not heard: the store is asked instead");
            }
            _ = stop.changed() => return,
        }
        news.listening.store(false, Ordering::Release);
        if told_within(PAUSE_AWAY, &mut stop).await {
            return;
        }
    }
}

async fn hear(news: &News, store: &dyn Store) -> Result<std::convert::Infallible, StoreError> {
    let mut notices = store.listen(&news.who).await?;
    news.listening.store(true, Ordering::Release);
    // Whatever was said while nobody listened.
    news.heard();
    loop {
        notices.next().await?;
        news.heard();
    }
}
