//! The bounded queue and the group commit.
//!
//! Lives here: who waits, and what is committed together. Does not: SQL, HTTP. No timer gathers arrivals: what waited
//! while a commit ran is the next batch, and a lone arrival is one at once.

mod apart;
mod commits;
mod log;
mod share;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
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
    batch::{Batch, Outcome},
    event::Arrival,
    logs,
    metrics::Metrics,
    news::News,
    store::{Fault, Store},
    waiting::Waiters,
};
use apart::{Apart, Pieces};
use commits::{Commits, Failure};
use share::Share;

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
    /// How long an event waits for a lock that another transaction has on its delivery.
    pub lock_wait: Duration,
}

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;

/// Of the queue's room, so much may be taken by what waits for locks: a whole, divided by this.
const FOR_LOCKED: usize = 8;

/// Why an event was not kept, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// Nothing can be kept at the moment.
    #[error("the store is unavailable")]
    Unavailable,
    /// Another transaction has locked its delivery.
    #[error("its delivery is locked by another transaction")]
    Contended,
    /// The database would refuse it again; what it says, without any value.
    #[error("the store refuses it: {0}")]
    Refused(Arc<str>),
}

impl From<Fault> for NotKept {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreadable(why) | Fault::Refused(why) => Self::Refused(why.into()),
            Fault::Contended(_) => Self::Contended,
        }
    }
}

/// What a waiting sender is told.
pub type Answer = Result<Outcome, NotKept>;

/// Hands arrivals to the writer. When the last handle is dropped the writer commits what is queued and ends.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    enough: Arc<Enough>,
}

/// Told when what waits becomes worth a sync.
#[derive(Default)]
struct Enough {
    notify: Notify,
    /// Whether it was told since the writer last looked.
    told: AtomicBool,
}

impl Enough {
    fn tell(&self) {
        if !self.told.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Wants to be told again.
    fn listen(&self) {
        self.told.swap(false, Ordering::AcqRel);
    }
}

struct Waiting {
    arrival: Arrival,
    answer: oneshot::Sender<Answer>,
    /// Room in the queue, given back once the commit is over.
    room: OwnedSemaphorePermit,
}

impl Writer {
    /// Starts the writer; the task ends when the last [`Writer`] is gone and the queue is empty, or when the store
    /// is [`StoreError::Broken`](crate::store::StoreError::Broken).
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
        let enough = Arc::<Enough>::default();
        let lanes = store.lanes();
        let commits = Arc::new(Commits::new(store, Arc::clone(&metrics), waiters, news, options.log_events));
        let (most, most_bytes) = (options.queue.div_ceil(FOR_LOCKED), options.queue_bytes / FOR_LOCKED);
        let apart = Arc::new(Apart::new(Arc::clone(&commits), options.lock_wait, most, most_bytes));
        let (troubles, pieces) = mpsc::channel(1);
        let group = GroupCommit {
            commits,
            lanes,
            batch: options.batch,
            enough: Arc::clone(&enough),
            metrics: Arc::clone(&metrics),
            apart,
            troubles,
            lock_wait: options.lock_wait,
        };
        (Self { queue, bytes, metrics, enough }, tokio::spawn(Arc::new(group).run(arrivals, pieces)))
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
        if self.queue.max_capacity() - self.queue.capacity() >= WORTH_A_SYNC {
            self.enough.tell();
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
    commits: Arc<Commits>,
    lanes: usize,
    batch: usize,
    enough: Arc<Enough>,
    metrics: Arc<Metrics>,
    apart: Arc<Apart>,
    /// What could not be committed as a whole, to be separated.
    troubles: mpsc::Sender<Pieces>,
    lock_wait: Duration,
}

impl GroupCommit {
    async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<Waiting>, troubles: mpsc::Receiver<Pieces>) {
        let (mut under_way, mut side) = (JoinSet::new(), JoinSet::new());
        side.spawn(Arc::clone(&self.apart).run(troubles));
        loop {
            self.enough.listen();
            let lane = under_way.is_empty() || (under_way.len() < self.lanes && queue.len() >= WORTH_A_SYNC);
            tokio::select! {
                biased;
                Some(done) = under_way.join_next(), if !under_way.is_empty() => {
                    if done.is_err() {
                        return;
                    }
                }
                // Before the end only if it failed.
                _ = side.join_next() => return,
                waiting = self.next(&mut queue), if lane => match waiting {
                    // A task of its own would cost a lone one two more hand-overs between threads. It gets one when others
                    // are to be committed beside it.
                    Some(lone) if lone.len() == 1 && under_way.is_empty() => {
                        let mut commit = Box::pin(Arc::clone(&self).commit_and_answer(lone));
                        tokio::select! {
                            biased;
                            () = &mut commit => {}
                            () = self.enough.notify.notified() => {
                                under_way.spawn(commit);
                            }
                        }
                    }
                    Some(waiting) => {
                        under_way.spawn(Arc::clone(&self).commit_and_answer(waiting));
                    }
                    None => break,
                },
                () = self.enough.notify.notified(), if !lane => {}
            }
            if self.commits.is_broken() {
                // Dropping the queue tells all that wait, and ends the service.
                return;
            }
        }
        under_way.join_all().await;
        let _ = self.troubles.send(None).await;
        side.join_all().await;
        self.commits.log().write();
    }

    /// What is to be committed next; `None` when nobody can hand over any more.
    async fn next(&self, queue: &mut mpsc::Receiver<Waiting>) -> Option<Vec<Waiting>> {
        let mut waiting = Vec::with_capacity(queue.len().clamp(1, self.batch));
        let due = self.commits.log().due;
        if let Some(due) = due
            && timeout_at(due.into(), queue.recv_many(&mut waiting, self.batch)).await.is_err()
        {
            self.commits.log().write();
        }
        if waiting.is_empty() {
            queue.recv_many(&mut waiting, self.batch).await;
        }
        (!waiting.is_empty()).then_some(waiting)
    }

    async fn commit_and_answer(self: Arc<Self>, waiting: Vec<Waiting>) {
        self.metrics.queue_depth.dec_by(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        let waiting = self.apart.take_suspects(waiting);
        if waiting.is_empty() {
            return;
        }
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
        let (batch, places) = Batch::fold(arrivals);
        match self.commits.attempt(&batch, senders.len()).await {
            Ok(kept) if kept.iter().all(Result::is_ok) => {
                let kept: Vec<Answer> = kept.into_iter().map(|kept| kept.map_err(NotKept::from)).collect();
                let (events, quarantine) = kept.split_at(batch.events.len());
                for (sender, answer) in senders.into_iter().zip(places.answers(events, quarantine)) {
                    // The event is committed even if the sender has disconnected.
                    let _ = sender.send(answer);
                }
            }
            Err(Failure::Unavailable) => {
                for sender in senders {
                    let _ = sender.send(Err(NotKept::Unavailable));
                }
            }
            failed => {
                let until = Instant::now() + self.lock_wait;
                let members = batch.unfold(&places, senders).into_iter();
                let shares = members.map(|(arrival, senders)| {
                    let bytes = arrival.body().len() * senders.len();
                    Share::new(arrival, senders, room.as_mut().and_then(|room| room.split(bytes)), until)
                });
                let left = self.apart.sort_out(shares.collect(), failed).await;
                if !left.is_empty() {
                    // Waits while another batch is separated.
                    let _ = self.troubles.send(Some(left)).await;
                }
            }
        }
    }
}
