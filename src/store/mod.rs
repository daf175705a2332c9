//! Durable custody, and the questions that can be asked of it.
//!
//! Lives here: the [`Store`] trait with its promises, and one module for each database, file by file alike: all SQL
//! of the crate. Does not: HTTP, waiting senders, the merge rule (`delivery`), retry policy (`writer`).

pub mod changes;
mod committed;
pub mod hours;
mod migration;
pub mod open;
pub mod polls;
pub mod postgres;
pub mod query;
mod readiness;
pub mod sends;
pub mod sqlite;
mod tally;
pub mod unreadable;

use async_trait::async_trait;

use crate::{
    batch::{Batch, Outcome},
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, Source, Status},
    event::Arrival,
    proof::Proof,
    signature::Verified,
};
use changes::{ChangePage, Notices, Position};
use hours::Due;
use polls::{Turn, Turned};
use query::{ListDeliveries, ListEvents, ListQuarantine, Page, Stats, StatsQuestion};
use sends::{Begun, Claim, SendKey, SendOutcome, SendRecord};
use unreadable::{Table, UnreadableRow};

/// What a database does for the service. Both implementations pass one suite of tests, `tests/it/store`.
///
/// Every question and commit ends within a bound that the implementation's options state, also when the database
/// does not answer at all.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits a batch durably. Answers what became of each of its members, [`Batch::events`] first and then
    /// [`Batch::quarantine`], in their order: those with a [`Fault`] were not committed, all others were.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is not known what was committed; the same batch again is harmless, but for
    /// the counts of how often each event was received. After any other error nothing was committed, and the fault lies
    /// with one or some of the members: the others can be committed without them.
    async fn commit(&self, batch: &Batch) -> Result<Vec<Kept>, StoreError>;

    /// Which of these deliveries have a row that another transaction has locked at the moment.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn locked_among(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
        // Where there are no locks of rows.
        let _ = ids;
        Ok(Vec::new())
    }

    /// How many commits it pays to have under way at once: one for a file, which has one writer.
    fn lanes(&self) -> usize {
        1
    }

    /// Commits events that have been in quarantine and takes them out of it, in one transaction. Their counts move
    /// along, whatever [`Arrival::times`] says. One that is no longer in quarantine is left alone.
    ///
    /// # Errors
    /// As [`Store::commit`].
    async fn release(&self, understood: Vec<Arrival>) -> Result<(), StoreError>;

    /// The present state of one delivery.
    ///
    /// # Errors
    /// [`StoreError`]; likewise all questions below. [`StoreError::Unreadable`] when its own row cannot be read. Questions
    /// for several rows leave out those that cannot be read, and count and name them; see [`unreadable`].
    async fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError>;

    /// Which of these deliveries, some thousand at most, are delivered or failed.
    async fn settled_among(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError>;

    /// A page of deliveries, newest first by [`Delivery::listed_at`].
    async fn deliveries(&self, question: &ListDeliveries) -> Result<Page<Delivery>, StoreError>;

    /// Deliveries that stand in no list because the time they are listed at is none; the first five hundred.
    async fn unlisted(&self) -> Result<Vec<UnreadableRow>, StoreError> {
        Ok(Vec::new())
    }

    /// A page of the events of one delivery, oldest first; empty for an unknown id.
    async fn list_events(&self, question: &ListEvents) -> Result<Page<Evidence>, StoreError>;

    /// Counts, rates and times over a range of time.
    async fn stats(&self, question: &StatsQuestion) -> Result<Stats, StoreError>;

    /// Sums up the first hour that is due and has not been summed up since it last changed, so that [`Store::stats`]
    /// need not count its deliveries; harmless when several replicas do it at once. Answers which hour; `None` when
    /// there is none. It does not hold up commits.
    async fn sum_up(&self, due: &Due) -> Result<Option<Timestamp>, StoreError>;

    /// A page of what was verified and not understood, newest first.
    async fn quarantine(&self, question: &ListQuarantine) -> Result<Page<Quarantined>, StoreError>;

    /// How many rows of a table were left out of answers so far because they cannot be read; one that is met again
    /// counts again.
    fn unreadable_rows(&self, table: Table) -> u64 {
        let _ = table;
        0
    }

    /// Whether commits note what they change, so that it can be followed.
    fn notes_changes(&self) -> bool {
        true
    }

    /// The place after all changes that are known to be in order by now.
    async fn latest_change(&self) -> Result<Position, StoreError>;

    /// The next changes after a position. `None` when some of what came after it is no longer kept, or the store never
    /// gave it.
    async fn changes(&self, after: Position) -> Result<Option<ChangePage>, StoreError>;

    /// Whose transaction holds up changes that are committed already, as far as that can be told. It names a process or
    /// a prepared transaction of the database, and is for the log.
    async fn holder_of_changes(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// Tells other replicas that something has changed, in the name of `who`.
    async fn announce(&self, who: &str) -> Result<(), StoreError>;

    /// Begins to hear what other replicas announce, all but what `who` does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] also where nobody can listen at all, behind pgbouncer.
    async fn listen(&self, who: &str) -> Result<Box<dyn Notices>, StoreError>;

    /// What time it is by the clock that all replicas share, the database's. Whatever a key or a lease depends on goes by
    /// it: a replica whose own clock is wrong would take another's away.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Puts a send on record, durably, unless its key is known already. [`Begun::Now`] means that its claim has the key.
    ///
    /// Safe to repeat, also on another connection and after an error: a claim recognizes its own record. After an error
    /// the record may be there; it is taken over by the next claim, [`sends::TAKEN_OVER_AFTER`] later.
    async fn begin_send(&self, send: &SendRecord) -> Result<Begun, StoreError>;

    /// Puts on record, durably, that the provider is about to be called; only then may it be. False when another claim
    /// has taken the key over.
    ///
    /// Safe to repeat. After an error it may be on record: either repeat it or take the send off the record.
    async fn call_send(&self, key: &SendKey, claim: Claim) -> Result<bool, StoreError>;

    /// Keeps what came of a send; with `None`, which is for a send that was certainly not made, takes it off the record,
    /// and the next may make it. Changes nothing if the key is another claim's, or the send has an end already: so it is
    /// safe to repeat.
    async fn end_send(
        &self,
        key: &SendKey,
        claim: Claim,
        outcome: Option<&SendOutcome>,
    ) -> Result<(), StoreError>;

    /// Takes a turn of asking the provider, unless nothing is due or another replica has the turn; see [`polls`].
    async fn take_turn(&self, turn: &Turn) -> Result<Turned, StoreError>;

    /// Deletes some of what is kept for a time only, where that time is over by [`Store::now`]; answers how many of it.
    async fn forget(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Whether webhooks can be kept now: the database answers, holds every migration of this version, and takes writes,
    /// as the last commit or a trial has shown. A migration that a newer version has added does no harm: migrations only
    /// add.
    ///
    /// # Errors
    /// [`StoreError`], in words for anybody: it names no host, user, database or path. The log has it in full.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Bytes of the log that a store of files keeps beside them; it grows while a reader needs all of it.
    fn log_bytes(&self) -> u64 {
        0
    }

    /// Waits until the store is [`StoreError::Broken`], also where nobody waited for what met it: then the process must
    /// end. A database that is a process of its own sees to that itself.
    async fn broken(&self) {
        std::future::pending().await
    }

    /// Applies the migrations that are missing; harmless when several replicas do it at once. Answers how many
    /// were missing.
    async fn migrate(&self) -> Result<usize, StoreError>;

    /// Closes all connections, after what is under way.
    async fn close(&self);
}

/// What a commit made of one member of its batch.
pub type Kept = Result<Outcome, Fault>;

/// Why one member of a batch was not committed with the others. No message holds a body, a phone or a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The stored row of its delivery cannot be read, or is another delivery's.
    #[error("{0}")]
    Unreadable(String),
    /// It, or another one with the same fault, is refused by the database.
    #[error("{0}")]
    Refused(String),
    /// It, or another one with the same fault, is locked by another transaction, or lost a race with one.
    #[error("{0}")]
    Contended(String),
}

/// Why a store did not do what it was asked. No message holds a body, a phone or a secret.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, read-only, full, too slow, or lacks its schema: later it may work.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Another transaction holds a lock on something in the batch. The store is well, and so may be the batch's other
    /// members.
    #[error("another transaction is in the way: {0}")]
    Contended(String),
    /// The database refuses the data itself: again and again it would.
    #[error("the store refuses the data: {0}")]
    Refused(String),
    /// The disk failed at a sync: what it then says can't be trusted, and the process must end.
    #[error("the store can't be trusted any more: {0}")]
    Broken(String),
    /// What the database holds is not what was put there.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
    /// The row that was asked for cannot be read. All others can.
    #[error("the store holds a row that cannot be read: {0}")]
    Unreadable(UnreadableRow),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreadable(why) => Self::Corrupt(why),
            Fault::Refused(why) => Self::Refused(why),
            Fault::Contended(why) => Self::Contended(why),
        }
    }
}

/// One event as it is kept.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The exact bytes, and their signature if they have one.
    pub proof: Proof,
    /// The provider's word for what happened; `watch` for what a caller told; empty where it has none.
    pub kind: String,
    /// The status that it told.
    pub status: Status,
    /// How it came.
    pub source: Source,
    /// When it first came.
    pub received_at: Timestamp,
    /// How many times it came.
    pub times: u64,
}

/// One verified body that was not understood.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// The exact bytes and their signature.
    pub verified: Verified,
    /// Why, as [`crate::event::NotUnderstood::code`] has it.
    pub reason: String,
    /// Why, in a sentence.
    pub detail: String,
    /// When it first came.
    pub received_at: Timestamp,
    /// How many times it came.
    pub times: u64,
}
