//! The bounded queue and the group commit.
//!
//! Lives here: who waits, what is committed together, and the one policy for a store that refuses or is away. Does
//! not: SQL, HTTP. No timer gathers arrivals: what waited while a commit ran is the next batch, and a lone arrival
//! is one at once.

mod log;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::timeout_at,
};

use crate::{
    batch::{Batch, FoldedQuarantine, Outcome},
    event::Arrival,
    logs,
    metrics::Metrics,
    news::News,
    store::{Store, StoreError},
    waiting::Waiters,
};
use log::Log;

/// After the store was found unavailable, for this long nothing is tried and all is refused at once: a database
/// that comes back is not met by a storm of connections, and a sender does not wait for what is known.
const PAUSE: Duration = Duration::from_millis(100);

/// With so many that wait a commit begins beside another one. Where the database is near and its disk is fast, two at a
/// time share what one does cheaper; where they are slow, more than these wait soon.
const WORTH_A_SYNC: usize = 256;

/// How much may wait and how much is committed together.
#[derive(Debug, Clone)]
pub struct Options {
    /// Arrivals that may wait at most.
    pub queue: usize,
    /// Bytes of bodies that may wait at most.
    pub queue_bytes: usize,
    /// Arrivals in one commit at most.
    pub batch: usize,
    /// Which events get a log line of their own.
    pub log_events: logs::Events,
}

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;

/// The store has not kept it, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has not kept it")]
pub struct NotKept;

/// What a waiting sender is told.
pub type Answer = Result<Outcome, NotKept>;

/// Hands arrivals to the writer. When the last handle is dropped the writer commits what is queued and ends.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    enough: Arc<Notify>,
}

struct Waiting {
    arrival: Arrival,
    answer: oneshot::Sender<Answer>,
    /// Room in the queue, given back once the commit is over.
    room: OwnedSemaphorePermit,
}

impl Writer {
    /// Starts the writer; the task ends when the last [`Writer`] is gone and the queue is empty, or when the store
    /// is [`StoreError::Broken`].
    #[must_use]
    pub fn start(
        options: &Options,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        waiters: Arc<Waiters>,
        news: Arc<News>,
    ) -> (Self, JoinHandle<()>) {
        let (queue, arrivals) = mpsc::channel(options.queue);
        let bytes = Arc::new(Semaphore::new(options.queue_bytes));
        let enough = Arc::new(Notify::new());
        let commits = GroupCommit {
            store,
            metrics: Arc::clone(&metrics),
            waiters,
            news,
            batch: options.batch,
            enough: Arc::clone(&enough),
            away: Mutex::default(),
            broken: AtomicBool::new(false),
            log: Mutex::new(Log::new(options.log_events)),
        };
        (Self { queue, bytes, metrics, enough }, tokio::spawn(Arc::new(commits).run(arrivals)))
    }

    /// Queues an arrival. From here on it is committed whether or not anybody waits for the answer.
    ///
    /// # Errors
    /// [`QueueFull`] when too many arrivals or bytes wait already, or the writer is gone.
    pub fn submit(&self, arrival: Arrival) -> Result<oneshot::Receiver<Answer>, QueueFull> {
        let bytes = u32::try_from(arrival.body().len()).map_err(|_| QueueFull)?;
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).map_err(|_| QueueFull)?;
        let (answer, receiver) = oneshot::channel();
        self.metrics.queue_depth.inc();
        if self.queue.try_send(Waiting { arrival, answer, room }).is_err() {
            self.metrics.queue_depth.dec();
            return Err(QueueFull);
        }
        if self.queue.max_capacity() - self.queue.capacity() == WORTH_A_SYNC {
            self.enough.notify_one();
        }
        Ok(receiver)
    }

    /// Whether the writer still takes arrivals.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Waits until the writer takes no more arrivals.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }
}

struct GroupCommit {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    waiters: Arc<Waiters>,
    news: Arc<News>,
    batch: usize,
    /// Told when what waits becomes worth a sync.
    enough: Arc<Notify>,
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
enum Failure {
    /// Something in it is at fault.
    Refused(String),
    /// The store is.
    NotKept,
}

impl GroupCommit {
    async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<Waiting>) {
        let mut under_way = JoinSet::new();
        loop {
            let lane =
                under_way.is_empty() || (under_way.len() < self.store.lanes() && queue.len() >= WORTH_A_SYNC);
            tokio::select! {
                biased;
                Some(done) = under_way.join_next(), if !under_way.is_empty() => {
                    if done.is_err() {
                        return;
                    }
                }
                waiting = self.next(&mut queue), if lane => match waiting {
                    // A task of its own would cost a lone one two more hand-overs between threads. It gets one when others
                    // are to be committed beside it.
                    Some(lone) if lone.len() == 1 && under_way.is_empty() => {
                        let mut commit = Box::pin(Arc::clone(&self).commit_and_answer(lone));
                        tokio::select! {
                            biased;
                            () = &mut commit => {}
                            () = self.enough.notified() => {
                                under_way.spawn(commit);
                            }
                        }
                    }
                    Some(waiting) => {
                        under_way.spawn(Arc::clone(&self).commit_and_answer(waiting));
                    }
                    None => break,
                },
                () = self.enough.notified(), if !lane => {}
            }
            if self.broken.load(Ordering::Acquire) {
                // Dropping the queue tells all that wait, and ends the service.
                return;
            }
        }
        under_way.join_all().await;
        lock(&self.log).write();
    }

    /// What is to be committed next; `None` when nobody can hand over any more.
    async fn next(&self, queue: &mut mpsc::Receiver<Waiting>) -> Option<Vec<Waiting>> {
        let mut waiting = Vec::with_capacity(queue.len().clamp(1, self.batch));
        let due = lock(&self.log).due;
        if let Some(due) = due
            && timeout_at(due.into(), queue.recv_many(&mut waiting, self.batch)).await.is_err()
        {
            lock(&self.log).write();
        }
        if waiting.is_empty() {
            queue.recv_many(&mut waiting, self.batch).await;
        }
        (!waiting.is_empty()).then_some(waiting)
    }

    async fn commit_and_answer(self: Arc<Self>, waiting: Vec<Waiting>) {
        let (mut arrivals, mut senders) =
            (Vec::with_capacity(waiting.len()), Vec::with_capacity(waiting.len()));
        let mut room: Option<OwnedSemaphorePermit> = None;
        for one in waiting {
            arrivals.push(one.arrival);
            senders.push(one.answer);
            match &mut room {
                Some(room) => room.merge(one.room),
                None => room = Some(one.room),
            }
        }
        self.metrics.queue_depth.dec_by(i64::try_from(senders.len()).unwrap_or(i64::MAX));
        let answers = self.commit(arrivals).await;
        for (sender, answer) in senders.into_iter().zip(answers) {
            // A sender that hung up is no reason not to have committed.
            let _ = sender.send(answer);
        }
    }

    async fn commit(&self, arrivals: Vec<Arrival>) -> Vec<Answer> {
        let started = Instant::now();
        let (batch, places) = Batch::fold(arrivals);
        let quarantined: Vec<Answer> = batch.quarantine.iter().map(|body| Ok(body.outcome())).collect();
        let answers = match self.attempt(&batch).await {
            Ok(outcomes) => {
                lock(&self.log).report(&batch, &outcomes);
                let events: Vec<Answer> = outcomes.into_iter().map(Ok).collect();
                places.answers(&events, &quarantined)
            }
            Err(Failure::NotKept) => places.all(Err(NotKept)),
            Err(Failure::Refused(reason)) => {
                tracing::warn!(reason, "the store refused a batch: committing its members one by one");
                let (events, quarantine) = self.one_by_one(batch).await;
                places.answers(&events, &quarantine)
            }
        };
        let took = started.elapsed();
        self.metrics.committed(answers.len(), took);
        tracing::debug!(arrivals = answers.len(), seconds = took.as_secs_f64(), "commit");
        answers
    }

    /// One commit, unless the store was found away a moment ago.
    async fn attempt(&self, batch: &Batch) -> Result<Vec<Outcome>, Failure> {
        let now = Instant::now();
        if lock(&self.away).as_ref().is_some_and(|away| now < away.try_again) {
            return Err(Failure::NotKept);
        }
        match self.store.commit(batch).await {
            Ok(outcomes) => {
                let events = batch.events.iter().map(|event| &event.event.told);
                self.waiters.settled(events.filter(|told| told.status.is_terminal()).map(|told| &told.id));
                // An older event may have completed what is shown.
                if outcomes.iter().any(|outcome| matches!(outcome, Outcome::New | Outcome::Kept)) {
                    self.news.committed();
                }
                if let Some(away) = lock(&self.away).take() {
                    tracing::info!(seconds = away.since.elapsed().as_secs_f64(), "the store is back");
                }
                Ok(outcomes)
            }
            Err(StoreError::Refused(reason)) => Err(Failure::Refused(reason)),
            Err(StoreError::Broken(reason)) => {
                tracing::error!(reason, "the store can't be trusted any more: nothing more is acknowledged");
                self.broken.store(true, Ordering::Release);
                Err(Failure::NotKept)
            }
            Err(error) => {
                let mut state = lock(&self.away);
                let since = state.take().map_or(now, |away| away.since);
                if since == now {
                    tracing::error!(%error, "a commit failed: webhooks are answered 503 until the store is back");
                }
                *state = Some(Away { since, try_again: Instant::now() + PAUSE });
                Err(Failure::NotKept)
            }
        }
    }

    /// What the store refuses as an event is kept in quarantine, so that nothing verified is ever lost.
    async fn one_by_one(&self, batch: Batch) -> (Vec<Answer>, Vec<Answer>) {
        let (mut events, mut quarantine) = (Vec::new(), Vec::new());
        for event in batch.events {
            let batch = Batch::of_event(event.clone());
            events.push(match (self.attempt(&batch).await, event.refused_by_store()) {
                (Ok(outcomes), _) => {
                    lock(&self.log).report(&batch, &outcomes);
                    Ok(outcomes[0])
                }
                (Err(Failure::NotKept), _) => Err(NotKept),
                (Err(Failure::Refused(_)), Some(body)) => self.quarantine(Batch::of_quarantine(body)).await,
                (Err(Failure::Refused(reason)), None) => {
                    tracing::error!(reason, "the store refuses to keep what was told of a delivery");
                    Err(NotKept)
                }
            });
        }
        for body in batch.quarantine {
            quarantine.push(self.quarantine(Batch::of_quarantine(body)).await);
        }
        (events, quarantine)
    }

    async fn quarantine(&self, batch: Batch) -> Answer {
        match self.attempt(&batch).await {
            Ok(outcomes) => {
                lock(&self.log).report(&batch, &outcomes);
                Ok(batch.quarantine.first().map_or(Outcome::Quarantined, FoldedQuarantine::outcome))
            }
            Err(Failure::NotKept) => Err(NotKept),
            Err(Failure::Refused(reason)) => {
                tracing::error!(reason, "the store refuses to keep a body even in quarantine");
                Err(NotKept)
            }
        }
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
