//! The side lane: separates a batch whose commit failed, so that the trouble of one member is its own.
//!
//! A batch that failed is committed in halves, and those that fail in halves again. What is left of it is single events:
//! one that the database refuses goes to quarantine; one whose delivery another transaction has locked waits here,
//! alone and within a limit. Further events of a locked delivery come here at once and cost the others nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::timeout,
};

use super::{
    NotKept, Waiting,
    commits::{Commits, Failure, lock},
    share::{Key, Share},
};
use crate::{
    batch::Batch,
    delivery::DeliveryId,
    event::NotUnderstood,
    store::{Fault, Kept},
};

/// A locked delivery is tried again after this, and after twice as long each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// No longer than this.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long events of a delivery come here at once after one of them has waited in vain.
const SUSPICION: Duration = Duration::from_secs(60);

/// After so many waits for locks in one go the rest of what met them is left for the next time.
const MOST_WAITS: usize = 16;

/// What is to be committed apart, and why it failed as a whole, if it was tried.
pub(super) type Piece = (Vec<Share>, Option<Fault>);

/// What the lanes send here; `None` at the end.
pub(super) type Pieces = Option<Vec<Piece>>;

pub(super) struct Apart {
    commits: Arc<Commits>,
    /// How long an event waits for a lock.
    patience: Duration,
    /// The most deliveries that are suspected.
    most: usize,
    /// Room for arrivals that wait for a lock.
    arrivals: Arc<Semaphore>,
    /// Room for their bytes.
    bytes: Arc<Semaphore>,
    blocked: Mutex<Blocked>,
    /// Whether any delivery is suspected.
    suspicious: AtomicBool,
    /// Notified when another delivery is found locked.
    woken: Notify,
}

#[derive(Default)]
struct Blocked {
    shares: Vec<Share>,
    /// Deliveries that are locked, or were a moment ago, and until when they are suspected of it.
    suspects: HashMap<Key, Instant>,
}

impl Apart {
    /// `most` arrivals of `most_bytes` may wait for locks.
    pub(super) fn new(commits: Arc<Commits>, patience: Duration, most: usize, most_bytes: usize) -> Self {
        Self {
            commits,
            patience,
            most,
            arrivals: Arc::new(Semaphore::new(most)),
            bytes: Arc::new(Semaphore::new(most_bytes)),
            blocked: Mutex::default(),
            suspicious: AtomicBool::new(false),
            woken: Notify::new(),
        }
    }

    /// Works until the lanes are done and nothing waits any more.
    pub(super) async fn run(self: Arc<Self>, mut troubles: mpsc::Receiver<Pieces>) {
        let (mut pause, mut ended) = (SHORTEST_PAUSE, false);
        while !self.commits.is_broken() {
            let blocked = !lock(&self.blocked).shares.is_empty();
            if ended && !blocked {
                return;
            }
            let next = async {
                tokio::select! {
                    pieces = troubles.recv(), if !ended => Some(pieces.flatten()),
                    () = self.woken.notified() => None,
                }
            };
            match if blocked { timeout(pause, next).await.ok() } else { Some(next.await) } {
                Some(Some(Some(pieces))) => self.separate(pieces).await,
                Some(Some(None)) => ended = true,
                Some(None) if blocked => {}
                Some(None) => pause = SHORTEST_PAUSE,
                None => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    self.retry().await;
                }
            }
        }
    }

    /// Takes out what belongs to deliveries that are known to be locked, so that the others' commit does not meet them.
    pub(super) fn take_suspects(&self, waiting: Vec<Waiting>) -> Vec<Waiting> {
        if !self.suspicious.load(Ordering::Relaxed) {
            return waiting;
        }
        let now = Instant::now();
        let (suspected, others): (Vec<_>, Vec<_>) = {
            let suspects = &lock(&self.blocked).suspects;
            let is_suspect =
                |one: &Waiting| suspects.get(&Key::of(&one.arrival)).is_some_and(|until| now < *until);
            waiting.into_iter().partition(is_suspect)
        };
        for one in suspected {
            self.block(Share::of(one, now + self.patience));
        }
        others
    }

    /// After a commit in a lane: answers what was committed, commits at once what is not locked, and leaves the rest to
    /// be separated.
    pub(super) async fn sort_out(
        &self,
        shares: Vec<Share>,
        result: Result<Vec<Kept>, Failure>,
    ) -> Vec<Piece> {
        let mut left = Vec::new();
        for (piece, fault) in self.answer(shares, result) {
            if !matches!(fault, Some(Fault::Contended(_))) {
                left.push((piece, fault));
                continue;
            }
            let count = piece.len();
            let free = self.block_locked(piece).await;
            match free.len() {
                0 => {}
                // Nobody knows which it is.
                all if all == count => left.push((free, fault)),
                _ => left.extend(self.attempt(free).await),
            }
        }
        left
    }

    /// Commits all of these, each in as large a piece as can be.
    async fn separate(&self, mut pieces: Vec<Piece>) {
        let mut waits = 0;
        while let Some((mut piece, fault)) = pieces.pop() {
            if self.commits.is_broken() {
                return;
            }
            match fault {
                None => pieces.extend(self.attempt(piece).await),
                // Each wait for a lock keeps whatever comes next from being separated.
                Some(Fault::Contended(_)) if waits >= MOST_WAITS => {
                    piece.into_iter().for_each(|share| self.block(share));
                }
                Some(_) if piece.len() > 1 => {
                    waits += usize::from(matches!(fault, Some(Fault::Contended(_))));
                    let half = piece.split_off(piece.len() / 2);
                    pieces.extend([(half, None), (piece, None)]);
                }
                Some(fault) => {
                    let quarantined = piece.into_iter().filter_map(|share| self.judge(share, fault.clone()));
                    // Together, unless the database refuses that too.
                    let quarantined: Vec<_> = quarantined.collect();
                    match pieces.first_mut() {
                        _ if quarantined.is_empty() => {}
                        Some((last, None)) if last.iter().all(Share::is_for_quarantine) => {
                            last.extend(quarantined);
                        }
                        _ => pieces.insert(0, (quarantined, None)),
                    }
                }
            }
        }
    }

    /// Commits these together; answers those that were committed, and returns the others.
    async fn attempt(&self, mut piece: Vec<Share>) -> Vec<Piece> {
        let now = Instant::now();
        piece
            .extract_if(.., |share| share.until <= now)
            .for_each(|late| late.answer(&Err(NotKept::Contended)));
        if piece.is_empty() {
            return Vec::new();
        }
        let (batch, places) = Batch::fold(piece.iter().map(|share| share.arrival.clone()).collect());
        let result = self.commits.attempt(&batch, piece.iter().map(Share::count).sum()).await;
        let result = result.map(|kept| {
            let (events, quarantine) = kept.split_at(batch.events.len());
            places.answers(events, quarantine)
        });
        self.answer(piece, result)
    }

    /// Answers what was committed, and returns what was not.
    fn answer(&self, shares: Vec<Share>, result: Result<Vec<Kept>, Failure>) -> Vec<Piece> {
        let kept = match result {
            Ok(kept) => kept,
            Err(Failure::OfSome(fault)) => return vec![(shares, Some(fault))],
            Err(Failure::Unavailable) => {
                shares.into_iter().for_each(|share| share.answer(&Err(NotKept::Unavailable)));
                return Vec::new();
            }
        };
        let (mut refused, mut contended, mut quarantined) =
            ((Vec::new(), None), (Vec::new(), None), Vec::new());
        for (share, kept) in shares.into_iter().zip(kept) {
            match kept {
                Ok(outcome) => {
                    self.clear(&share);
                    share.answer(&Ok(outcome));
                }
                Err(fault @ Fault::Unreadable(_)) => quarantined.extend(self.judge(share, fault)),
                Err(fault @ Fault::Refused(_)) => {
                    refused.0.push(share);
                    refused.1 = Some(fault);
                }
                Err(fault @ Fault::Contended(_)) => {
                    contended.0.push(share);
                    contended.1 = Some(fault);
                }
            }
        }
        let pieces = [refused, contended, (quarantined, None)];
        pieces.into_iter().filter(|(shares, _)| !shares.is_empty()).collect()
    }

    /// Decides what becomes of a single event that is at fault; returns it if it is to be kept in quarantine.
    fn judge(&self, mut share: Share, fault: Fault) -> Option<Share> {
        let delivery = share.delivery().map(|id| id.as_str().to_owned());
        let (reason, why) = match (fault, delivery) {
            (Fault::Contended(_), _) => {
                self.block(share);
                return None;
            }
            (Fault::Unreadable(why) | Fault::Refused(why), None) => {
                tracing::error!(why, "the store refuses to keep a body even in quarantine");
                share.answer(&Err(NotKept::Refused(why.into())));
                return None;
            }
            (Fault::Unreadable(why), Some(delivery)) => {
                tracing::error!(delivery, why, "the stored row of a delivery cannot be read");
                (NotUnderstood::UnreadableRow { delivery, why: why.clone() }, why)
            }
            (Fault::Refused(why), Some(delivery)) => {
                tracing::error!(delivery, why, "the store refuses to keep an event");
                (NotUnderstood::RefusedByStore { delivery, why: why.clone() }, why)
            }
        };
        if share.quarantine(reason) {
            return Some(share);
        }
        share.answer(&Err(NotKept::Refused(why.into())));
        None
    }

    /// Lets those whose delivery is locked wait, and returns the others.
    async fn block_locked(&self, shares: Vec<Share>) -> Vec<Share> {
        let locked = self.locked_among(&shares).await;
        let is_locked = |share: &Share| share.delivery().is_some_and(|id| locked.contains(id));
        let (locked, free): (Vec<_>, Vec<_>) = shares.into_iter().partition(is_locked);
        locked.into_iter().for_each(|share| self.block(share));
        free
    }

    async fn locked_among(&self, shares: &[Share]) -> Vec<DeliveryId> {
        let mut ids: Vec<_> = shares.iter().filter_map(Share::delivery).cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        let locked = self.commits.store.locked_among(&ids).await;
        locked.unwrap_or_else(|error| {
            tracing::warn!(%error, "locked deliveries could not be told from others");
            Vec::new()
        })
    }

    /// Lets one wait for a lock, if there is room for it.
    fn block(&self, mut share: Share) {
        let mut blocked = lock(&self.blocked);
        let (until, suspected) = (share.until + SUSPICION, blocked.suspects.len());
        if let Some(suspected_until) = blocked.suspects.get_mut(&share.key) {
            *suspected_until = until.max(*suspected_until);
        } else if suspected < self.most {
            tracing::warn!(
                delivery = share.delivery().map(DeliveryId::as_str),
                "locked by another transaction"
            );
            blocked.suspects.insert(share.key.clone(), until);
            self.suspicious.store(true, Ordering::Relaxed);
        }
        if share.take_room(&self.arrivals, &self.bytes) {
            // The others are looked at again anyway.
            if blocked.shares.is_empty() {
                self.woken.notify_one();
            }
            blocked.shares.push(share);
        } else {
            share.answer(&Err(NotKept::Contended));
        }
    }

    /// Tries again to commit what waits for locks; what has waited for too long is refused.
    async fn retry(&self) {
        let now = Instant::now();
        let shares = {
            let mut blocked = lock(&self.blocked);
            blocked.suspects.retain(|_, until| now < *until);
            self.suspicious.store(!blocked.suspects.is_empty(), Ordering::Relaxed);
            std::mem::take(&mut blocked.shares)
        };
        let (late, waiting): (Vec<_>, Vec<_>) = shares.into_iter().partition(|share| share.until <= now);
        late.into_iter().for_each(|share| share.answer(&Err(NotKept::Contended)));
        let mut free = self.block_locked(waiting).await;
        // So that not the same ones are left for the next time.
        fastrand::shuffle(&mut free);
        if !free.is_empty() {
            self.separate(vec![(free, None)]).await;
        }
    }

    /// A delivery is not locked any more.
    fn clear(&self, share: &Share) {
        if self.suspicious.load(Ordering::Relaxed) {
            let mut blocked = lock(&self.blocked);
            blocked.suspects.remove(&share.key);
            self.suspicious.store(!blocked.suspects.is_empty(), Ordering::Relaxed);
        }
    }
}
