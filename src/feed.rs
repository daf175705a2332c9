//! Every change of a delivery, for those who follow.
//!
//! Reads pages of changes and shares them among all followers. HTTP is not known here; what changes are kept, and in which
//! order, is the store's (`store::changes`).
//!
//! A follower goes from page to page. One that has caught up waits for the pages that [`run`] reads once for all. One that
//! is behind, because it came back to an earlier place or reads slowly, asks for the page that it needs: it takes one that
//! others have read a moment ago, or it is read from the store, one page at a time in the order of asking.
//!
//! Memory is bounded: by [`SHARED_PAGES`] of each of the two kinds, and by one page for each follower.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex as AsyncMutex, Notify, watch},
    task::{JoinSet, yield_now},
    time::timeout,
};

use crate::{
    background::told_within,
    metrics::Metrics,
    news::{News, UNTOLD},
    store::{
        Store, StoreError,
        changes::{Change, ChangePage, Position},
    },
};

/// The most pages that are kept for others who need them: of those read for followers who have caught up, and as many of
/// those read for followers who are behind. A page is bounded by [`crate::store::changes::PAGE_CHANGES`] and
/// [`crate::store::changes::PAGE_BYTES`].
pub const SHARED_PAGES: usize = 32;

/// How often the store is read at most for those who have caught up.
const PACE: Duration = Duration::from_millis(10);

/// How often it is read without any news while other replicas are not heard.
const UNHEARD: Duration = Duration::from_millis(100);

/// A change that waits longer than this for an older transaction is logged.
const LONG_HELD: Duration = Duration::from_secs(10);

/// At most so often.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Changes, on their way to all who follow.
pub struct Feed {
    store: Arc<dyn Store>,
    news: Arc<News>,
    metrics: Arc<Metrics>,
    head: watch::Sender<Head>,
    /// Read for those who have caught up.
    recent: Mutex<Shared>,
    /// Read for those who are behind.
    earlier: Mutex<Shared>,
    /// Held by whoever reads a page for one who is behind; fair, so that all have their turn.
    turn: AsyncMutex<()>,
    /// Told when somebody begins to follow.
    begun: Notify,
}

/// How far changes have been read for those who have caught up.
#[derive(Clone, Copy, Default)]
struct Head {
    /// `None` while nobody follows.
    at: Option<Position>,
    /// How many times the store no longer had what came after that place, because it was replaced by an older one.
    lost: u64,
    /// Whether all following has ended.
    stopped: bool,
}

/// A page, and the place before it.
struct Page {
    start: Position,
    page: ChangePage,
}

/// Pages that were read a moment ago, the latest last.
#[derive(Default)]
struct Shared(VecDeque<Arc<Page>>);

impl Shared {
    fn add(&mut self, page: Arc<Page>) {
        if self.0.len() == SHARED_PAGES {
            self.0.pop_front();
        }
        self.0.push_back(page);
    }

    /// One that has changes after a place. A place of another epoch may be none of this store: the store knows.
    fn after(&self, at: Position) -> Option<Arc<Page>> {
        let has = |Page { start, page }: &Page| {
            at.epoch == page.end.epoch && !start.is_after(&at) && page.end.is_after(&at)
        };
        self.0.iter().rev().find(|page| has(page)).cloned()
    }
}

/// Why a follower is told no more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// What comes after its place is no longer kept, or the store was replaced by an older one.
    #[error("what comes next is no longer kept")]
    NotKept,
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
    pub fn new(store: Arc<dyn Store>, news: Arc<News>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            store,
            news,
            metrics,
            head: watch::Sender::new(Head::default()),
            recent: Mutex::default(),
            earlier: Mutex::default(),
            turn: AsyncMutex::default(),
            begun: Notify::new(),
        })
    }

    /// Begins to follow after a position, or from now on. `None` for a position of which what came after it is no longer
    /// kept, or which this store never gave.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn follow(self: &Arc<Self>, after: Option<Position>) -> Result<Option<Follower>, StoreError> {
        let head = self.head.subscribe();
        let lost = head.borrow().lost;
        let (at, page) = match after {
            None => (self.store.latest_change().await?, None),
            Some(after) => {
                let _turn = self.turn.lock().await;
                // Only the store knows whether it is a place of its own.
                match self.read_from_store(after).await? {
                    Some(page) => (after.in_epoch(page.page.end.epoch), Some(page)),
                    None => return Ok(None),
                }
            }
        };
        let feed = Arc::clone(self);
        Ok(Some(Follower { feed, at, page, next: 0, head, lost, reading: JoinSet::new() }))
    }

    fn shared(&self, at: Position) -> Option<Arc<Page>> {
        lock(&self.recent).after(at).or_else(|| lock(&self.earlier).after(at))
    }

    /// The page after a place, for one who is behind; empty if it is not. `None` when it is not kept.
    async fn read(self: Arc<Self>, at: Position) -> Result<Option<Arc<Page>>, StoreError> {
        let _turn = self.turn.lock().await;
        // Whoever had the turn before may have read the same.
        match self.shared(at) {
            Some(page) => Ok(Some(page)),
            None => self.read_from_store(at).await,
        }
    }

    async fn read_from_store(&self, at: Position) -> Result<Option<Arc<Page>>, StoreError> {
        let Some(page) = self.store.changes(at).await? else { return Ok(None) };
        let page = Arc::new(Page { start: at, page });
        if page.page.end.is_after(&at) {
            lock(&self.earlier).add(Arc::clone(&page));
        }
        Ok(Some(page))
    }

    /// Ends all following, now and from here on.
    pub fn stop(&self) {
        self.head.send_modify(|head| head.stopped = true);
    }

    /// Reads what there is, for all who have caught up; whether anybody follows.
    async fn advance(&self, held: &mut Held) -> Result<bool, StoreError> {
        if self.head.receiver_count() == 0 {
            self.head.send_modify(|head| head.at = None);
            *lock(&self.recent) = Shared::default();
            *lock(&self.earlier) = Shared::default();
            return Ok(false);
        }
        let Some(mut start) = self.head.borrow().at else {
            let at = Some(self.store.latest_change().await?);
            self.head.send_modify(|head| head.at = at);
            return Ok(true);
        };
        loop {
            let Some(page) = self.store.changes(start).await? else {
                tracing::warn!("streams are cut off: the store no longer has the changes that come next");
                *lock(&self.recent) = Shared::default();
                *lock(&self.earlier) = Shared::default();
                self.head.send_modify(|head| (head.at, head.lost) = (None, head.lost + 1));
                return Ok(true);
            };
            held.report(self, page.held_for).await;
            let end = page.end;
            if !end.is_after(&start) {
                return Ok(true);
            }
            lock(&self.recent).add(Arc::new(Page { start, page }));
            self.head.send_modify(|head| head.at = Some(end));
            start = end;
        }
    }
}

/// Reads changes once for all followers who have caught up, until told to stop.
pub async fn run(feed: Arc<Feed>, mut stop: watch::Receiver<()>) {
    let mut news = feed.news.of_any();
    let mut held = Held::default();
    loop {
        news.mark_unchanged();
        match feed.advance(&mut held).await {
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

/// When it was last logged that an older transaction holds up the stream.
#[derive(Default)]
struct Held(Option<Instant>);

impl Held {
    async fn report(&mut self, feed: &Feed, held_for: Duration) {
        feed.metrics.stream_held_seconds.set(i64::try_from(held_for.as_secs()).unwrap_or(i64::MAX));
        if held_for < LONG_HELD || self.0.is_some_and(|logged| logged.elapsed() < LOG_PAUSE) {
            return;
        }
        self.0 = Some(Instant::now());
        let holder = feed.store.holder_of_changes().await.ok().flatten();
        let holder = holder.as_deref().unwrap_or("unknown");
        let seconds = held_for.as_secs();
        tracing::warn!(seconds, holder, "an open transaction of the database holds up the stream of changes");
    }
}

/// One who follows.
pub struct Follower {
    feed: Arc<Feed>,
    /// The place after all that was told so far.
    at: Position,
    page: Option<Arc<Page>>,
    /// The next change of the page.
    next: usize,
    head: watch::Receiver<Head>,
    /// How many times the store had lost its place when this began.
    lost: u64,
    /// The read of its next page. A task, so that it keeps its turn when the waiting is given up, and gives it on when
    /// nobody waits.
    reading: JoinSet<Result<Option<Arc<Page>>, StoreError>>,
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
    pub async fn next(&mut self) -> Result<&Change, Ended> {
        while !self.advance_in_page() {
            self.turn_page().await?;
            // A page that is there already is no reason to let others wait.
            yield_now().await;
        }
        if self.head.borrow().stopped {
            return Err(Ended::Stopped);
        }
        let page = self.page.as_ref().expect("a change was found in it");
        let change = &page.page.changes[self.next - 1];
        self.at = change.position;
        Ok(change)
    }

    /// Moves on to the next change of the page; at its end, past it.
    fn advance_in_page(&mut self) -> bool {
        let Some(page) = &self.page else { return false };
        let changes = &page.page.changes;
        let seen =
            changes[self.next..].iter().take_while(|change| !change.position.is_after(&self.at)).count();
        self.next += seen;
        if self.next < changes.len() {
            self.next += 1;
            return true;
        }
        self.at = page.page.end;
        self.page = None;
        false
    }

    /// Waits for a page with something after its place.
    async fn turn_page(&mut self) -> Result<(), Ended> {
        // How far all others were when nothing came after its place.
        let mut nothing_before = None;
        loop {
            let head = *self.head.borrow_and_update();
            if head.stopped {
                return Err(Ended::Stopped);
            }
            if head.lost != self.lost {
                return Err(Ended::NotKept);
            }
            let has_caught_up =
                nothing_before == Some(head.at) || head.at.is_some_and(|head| !head.is_after(&self.at));
            let page = match self.feed.shared(self.at) {
                Some(page) => page,
                None if has_caught_up => {
                    self.feed.begun.notify_one();
                    self.head.changed().await.map_err(|_| Ended::Stopped)?;
                    continue;
                }
                None => self.read().await?,
            };
            if page.page.end.is_after(&self.at) {
                (self.page, self.next) = (Some(page), 0);
                return Ok(());
            }
            nothing_before = Some(head.at);
            self.at = page.page.end;
        }
    }

    async fn read(&mut self) -> Result<Arc<Page>, Ended> {
        if self.reading.is_empty() {
            self.reading.spawn(Arc::clone(&self.feed).read(self.at));
        }
        tokio::select! {
            biased;
            _ = self.head.wait_for(|head| head.stopped) => Err(Ended::Stopped),
            read = self.reading.join_next() => match read {
                Some(Ok(page)) => page?.ok_or(Ended::NotKept),
                // Only a runtime that ends takes it away.
                _ => Err(Ended::Stopped),
            },
        }
    }
}

fn lock<T>(state: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
