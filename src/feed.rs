//! Every change of a delivery, for those who follow.
//!
//! Lives here: [`Feed`], which reads each change once for all who follow, and [`Follower`], one of them. Does not: HTTP;
//! what changes are kept, and in which order (`store::changes`).
//!
//! A follower first reads the store from its own place on, at its own pace, and then goes on with what all are told. One
//! that is too slow for that is cut off, and may come back to its place.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{
        Mutex as AsyncMutex, Notify,
        broadcast::{self, error::RecvError},
        watch,
    },
    time::timeout,
};

use crate::{
    background::told_within,
    news::{News, UNTOLD},
    store::{
        Store, StoreError,
        changes::{Change, Position},
    },
};

/// Reads that a follower may be behind.
const BEHIND: usize = 256;

/// How often the store is read at most.
const PACE: Duration = Duration::from_millis(10);

/// How often it is read without any news while other replicas are not heard.
const UNHEARD: Duration = Duration::from_millis(100);

/// What was read at one time.
type Changes = Arc<[Change]>;

/// Changes, on their way to all who follow.
pub struct Feed {
    store: Arc<dyn Store>,
    news: Arc<News>,
    /// `None` once all following has ended.
    told: Mutex<Option<broadcast::Sender<Changes>>>,
    /// Up to where all have been told; `None` while nobody follows.
    at: AsyncMutex<Option<Position>>,
    /// Told when somebody begins to follow.
    begun: Notify,
}

/// One who follows.
pub struct Follower {
    feed: Arc<Feed>,
    at: Position,
    ready: VecDeque<Change>,
    /// Once it has caught up.
    told: Option<broadcast::Receiver<Changes>>,
    /// Whether it has read all that was there before it was told of all.
    is_live: bool,
}

/// Why a follower is told no more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It was too slow.
    #[error("it was too slow")]
    TooSlow,
    /// The service stops.
    #[error("the service stops")]
    Stopped,
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Feed {
    /// Nobody follows yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, news: Arc<News>) -> Arc<Self> {
        let told = Mutex::new(Some(broadcast::Sender::new(BEHIND)));
        Arc::new(Self { store, news, told, at: AsyncMutex::new(None), begun: Notify::new() })
    }

    /// Begins to follow after a position, or from now on. `None` for a position of which what came after it is no longer
    /// kept, or which this store never had.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn follow(self: &Arc<Self>, after: Option<Position>) -> Result<Option<Follower>, StoreError> {
        let (at, ready) = match after {
            None => (self.store.latest_change().await?, Vec::new()),
            Some(after) => {
                let changes = self.store.changes(after).await?;
                // Asked afterwards: what was kept then was kept while it was read.
                if !self.store.is_kept(after).await? {
                    return Ok(None);
                }
                (after, changes)
            }
        };
        let feed = Arc::clone(self);
        Ok(Some(Follower { feed, at, ready: ready.into(), told: None, is_live: false }))
    }

    /// From here on told of all changes that the store does not show yet, and of some that it does.
    async fn join(&self) -> Result<broadcast::Receiver<Changes>, Ended> {
        let receiver = self.telling().ok_or(Ended::Stopped)?.subscribe();
        let mut at = self.at.lock().await;
        if at.is_none() {
            *at = Some(self.store.latest_change().await?);
        }
        self.begun.notify_one();
        Ok(receiver)
    }

    fn telling(&self) -> Option<broadcast::Sender<Changes>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends all following, now and from here on.
    pub fn stop(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Reads what there is and tells it; whether anybody follows.
    async fn read(&self) -> Result<bool, StoreError> {
        let mut at = self.at.lock().await;
        let Some(told) = self.telling().filter(|told| told.receiver_count() > 0) else {
            *at = None;
            return Ok(false);
        };
        while let Some(after) = *at {
            let changes = self.store.changes(after).await?;
            let Some(last) = changes.last() else { break };
            *at = Some(last.position);
            // Whoever left meanwhile has no need of it.
            let _ = told.send(changes.into());
        }
        Ok(true)
    }
}

/// Reads each change once for all who follow, until told to stop.
pub async fn run(feed: Arc<Feed>, mut stop: watch::Receiver<()>) {
    let mut news = feed.news.of_any();
    loop {
        news.mark_unchanged();
        match feed.read().await {
            Ok(true) => {}
            Ok(false) => tokio::select! {
                () = feed.begun.notified() => continue,
                _ = stop.changed() => return,
            },
            Err(error) => {
                tracing::debug!(%error, "those who follow are told nothing: the store can't be read")
            }
        }
        // Many commits at once are read at once.
        if told_within(PACE, &mut stop).await {
            return;
        }
        let untold = if feed.news.is_listening() { UNTOLD } else { UNHEARD };
        tokio::select! {
            _ = timeout(untold, news.changed()) => {}
            _ = stop.changed() => return,
        }
    }
}

impl Follower {
    /// The place after all that was told so far, whether or not it was looked at.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at
    }

    /// Waits for the next change. Nothing is lost when the waiting is given up.
    ///
    /// # Errors
    /// [`Ended`]; nothing more will be told.
    pub async fn next(&mut self) -> Result<Change, Ended> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                self.at = change.position;
                return Ok(change);
            }
            match &mut self.told {
                Some(told) if self.is_live => match told.recv().await {
                    Ok(changes) => {
                        self.ready.extend(changes.iter().filter(|change| change.position > self.at).cloned());
                    }
                    Err(RecvError::Lagged(_)) => return Err(Ended::TooSlow),
                    Err(RecvError::Closed) => return Err(Ended::Stopped),
                },
                told => {
                    let joined = told.is_some();
                    self.ready = self.feed.store.changes(self.at).await?.into();
                    if self.ready.is_empty() {
                        if joined {
                            self.is_live = true;
                        } else {
                            self.told = Some(self.feed.join().await?);
                        }
                    }
                }
            }
        }
    }
}
