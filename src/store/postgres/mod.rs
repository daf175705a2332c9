//! The store on Postgres, and on what speaks its protocol and SQL.
//!
//! Lives here: the store itself, and what its errors mean. Two connections write, and no pool hands them to others;
//! questions have a pool of their own.

mod advice;
mod changes;
mod commit;
mod connect;
mod doubt;
mod epoch;
mod exact;
mod explain;
mod forget;
mod hours;
mod migrate;
mod polls;
mod read;
mod ready;
mod rows;
mod sends;
mod statements;
mod stats;
mod write;

pub use connect::place;
pub use migrate::schema;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use sqlx::{PgPool, error::DatabaseError, postgres::PgConnectOptions};

use super::{
    Evidence, Kept, Quarantined, Store, StoreError,
    changes::{ChangePage, Notices, Position},
    hours::Due,
    polls::{Turn, Turned},
    query::{ListDeliveries, ListEvents, ListQuarantine, Page, Stats, StatsQuestion},
    readiness::LastCommit,
    sends::{Begun, Claim, SendKey, SendOutcome, SendRecord},
    unreadable::{LeftOut, Table, UnreadableRow},
};
use crate::{
    batch::Batch,
    clock::Timestamp,
    delivery::{Delivery, DeliveryId},
    event::Arrival,
    secret::Secret,
};
use doubt::Doubt;
use write::Slots;

/// How to reach a Postgres.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://user:password@host/database`, with libpq's `sslmode` and `sslrootcert`.
    pub url: Secret,
    /// Behind pgbouncer in transaction mode: no startup parameters, no named statements.
    pub pgbouncer: bool,
    /// Whether migrations take an advisory lock; Postgres-compatible engines may lack them.
    pub migration_lock: bool,
    /// Whether commits note what they change, for those who follow; that takes a function which some
    /// Postgres-compatible engines lack.
    pub changes: bool,
    /// The most connections for questions; commits have three more, what is written beside them four, and summing up one while
    /// it lasts.
    pub read_connections: u32,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long a commit may take.
    pub commit_timeout: Duration,
    /// How long a question may take, waiting for a connection included.
    pub read_timeout: Duration,
}

/// Commits at one time, so that the database works on one batch while it syncs another, where it is slow.
const LANES: u32 = 2;

/// Beside the lanes, commits have a connection for what is in trouble.
const WRITERS: u32 = LANES + 1;

/// How long a commit waits for a lock before it goes on without the deliveries that are locked. Longer than other
/// commits hold their locks, and so short that the slowest hundredth of all events is not those that waited for it.
const LOCK_PATIENCE: Duration = Duration::from_millis(10);

/// Transactions at one time of what is written beside commits.
const ASIDE: u32 = 4;

/// The store on Postgres.
pub struct Postgres {
    options: Options,
    to: PgConnectOptions,
    /// For commits.
    writers: Slots,
    /// For what is written beside them, so that no commit waits for it.
    aside: Slots,
    readers: PgPool,
    /// Which idle connections may have ended.
    doubt: Arc<Doubt>,
    /// Whether it was said already that the server does not sync its disk.
    warned: AtomicBool,
    /// The rows that could not be read.
    left_out: LeftOut,
    /// How far the database's clock is ahead of ours, in microseconds, as of when it was last read.
    ahead: AtomicI64,
    last_commit: LastCommit,
}

impl Postgres {
    /// Connects to the database.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it can't be reached or written, or would lose what it has committed.
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        let to = connect::parse(options)?;
        let doubt = Arc::default();
        let store = Self {
            options: options.clone(),
            readers: connect::readers(options, &to, &doubt),
            doubt,
            to,
            writers: Slots::new(WRITERS, LOCK_PATIENCE),
            aside: Slots::new(ASIDE, options.commit_timeout.mul_f64(connect::IMPATIENCE)),
            warned: AtomicBool::new(false),
            left_out: LeftOut::default(),
            ahead: AtomicI64::new(0),
            last_commit: LastCommit::default(),
        };
        store.writers.put_back(store.connect_writer(LOCK_PATIENCE).await?);
        // The others are there before they are needed: opening one takes as long as many commits. None is required.
        let others = (1..WRITERS).map(|_| store.connect_writer(LOCK_PATIENCE));
        for other in join_all(others).await.into_iter().flatten() {
            store.writers.put_back(other);
        }
        Ok(store)
    }

    /// Connects to a database that has the schema of this version.
    ///
    /// # Errors
    /// As [`Postgres::open`], and when it lacks a migration.
    pub async fn open_existing(options: &Options) -> Result<Self, StoreError> {
        let store = Self::open(options).await?;
        store.require_migrations().await.map_err(|error| store.named(error))?;
        Ok(store)
    }

    /// Whether statements are prepared under a name and kept; behind pgbouncer the name may be another client's.
    fn named_statements(&self) -> bool {
        !self.options.pgbouncer
    }
}

#[async_trait]
impl Store for Postgres {
    async fn commit(&self, batch: &Batch) -> Result<Vec<Kept>, StoreError> {
        let ended = self.commit_batch(batch).await;
        self.last_commit.note(&ended);
        ended
    }

    async fn locked_among(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
        self.find_locked(ids).await
    }

    fn lanes(&self) -> usize {
        LANES as usize
    }

    async fn release(&self, understood: Vec<Arrival>) -> Result<(), StoreError> {
        self.commit_release(understood).await
    }

    async fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read_delivery(id).await
    }

    async fn settled_among(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
        self.read_settled(ids).await
    }

    async fn deliveries(&self, question: &ListDeliveries) -> Result<Page<Delivery>, StoreError> {
        self.list_deliveries(question).await
    }

    async fn list_events(&self, question: &ListEvents) -> Result<Page<Evidence>, StoreError> {
        self.list_events_of(question).await
    }

    async fn stats(&self, question: &StatsQuestion) -> Result<Stats, StoreError> {
        self.read_stats(question).await
    }

    async fn sum_up(&self, due: &Due) -> Result<Option<Timestamp>, StoreError> {
        self.sum_up_next(due).await
    }

    async fn quarantine(&self, question: &ListQuarantine) -> Result<Page<Quarantined>, StoreError> {
        self.list_quarantine(question).await
    }

    async fn unlisted(&self) -> Result<Vec<UnreadableRow>, StoreError> {
        self.read_unlisted().await
    }

    fn unreadable_rows(&self, table: Table) -> u64 {
        self.left_out.of(table)
    }

    fn notes_changes(&self) -> bool {
        self.options.changes
    }

    async fn latest_change(&self) -> Result<Position, StoreError> {
        self.read_latest().await
    }

    async fn changes(&self, after: Position) -> Result<Option<ChangePage>, StoreError> {
        self.read_changes(after).await
    }

    async fn holder_of_changes(&self) -> Result<Option<String>, StoreError> {
        self.read_holder().await
    }

    async fn announce(&self, who: &str) -> Result<(), StoreError> {
        self.write_announcement(who).await
    }

    async fn listen(&self, who: &str) -> Result<Box<dyn Notices>, StoreError> {
        self.open_listener(who).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.read_now().await
    }

    async fn begin_send(&self, send: &SendRecord) -> Result<Begun, StoreError> {
        self.write_send(send).await
    }

    async fn call_send(&self, key: &SendKey, claim: Claim) -> Result<bool, StoreError> {
        self.write_call_of_send(key, claim).await
    }

    async fn end_send(
        &self,
        key: &SendKey,
        claim: Claim,
        outcome: Option<&SendOutcome>,
    ) -> Result<(), StoreError> {
        self.write_end_of_send(key, claim, outcome).await
    }

    async fn take_turn(&self, turn: &Turn) -> Result<Turned, StoreError> {
        self.write_turn(turn).await
    }

    async fn forget(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write_forget(now).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.check_ready().await
    }

    async fn migrate(&self) -> Result<usize, StoreError> {
        self.apply_migrations().await
    }

    async fn close(&self) {
        for slots in [&self.writers, &self.aside] {
            // The server notices by itself if it is not told.
            let _ = tokio::time::timeout(self.options.connect_timeout, slots.close()).await;
        }
        let _ = tokio::time::timeout(self.options.read_timeout, self.readers.close()).await;
    }
}

/// The SQLSTATE of an error that the server answered.
fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// Another transaction was in the way: the same again may work.
fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("40001" | "40P01"))
}

/// A lock was not to be had in time.
fn is_locked(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("55P03")
}

/// The server takes no writes: a standby, or set so.
fn is_read_only(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25006")
}

/// "cached plan must not change result type": a migration has changed a table since the statement was prepared. Or the
/// server behind pgbouncer is another one.
fn is_stale(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("0A000") || epoch::is_over(error)
}

/// What an error means. An error that is not known to be the server's own belongs to the data: a batch is separated
/// then, and none of it is refused to others. The server's message for it may show the data.
fn meaning(error: sqlx::Error) -> StoreError {
    match &error {
        error if epoch::is_over(error) => {
            StoreError::Unavailable("the server was replaced behind the connection".into())
        }
        sqlx::Error::Database(answer) => {
            let code = answer.code().unwrap_or_default();
            match code.as_ref() {
                // A page of the disk, of a table or an index.
                "XX001" | "XX002" => StoreError::Corrupt(format!("SQLSTATE {code}: {}", answer.message())),
                _ if is_the_servers(&code) => {
                    StoreError::Unavailable(advised(&error, format!("SQLSTATE {code}: {}", answer.message())))
                }
                _ => StoreError::Refused(anonymous(&code, answer.as_ref())),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(advised(&error, error.to_string())),
    }
}

/// Appends what to do about an error, where that is known.
fn advised(error: &sqlx::Error, why: String) -> String {
    match advice::advice(error) {
        Some(advice) => format!("{why}; {advice}"),
        None => why,
    }
}

/// Whether an error says nothing of the data: it is about the connection, the login, the transaction as a whole, the
/// schema, the server's state or resources, or a lock.
fn is_the_servers(code: &str) -> bool {
    const CLASSES: [&str; 16] =
        ["08", "0A", "25", "26", "28", "2D", "3B", "3D", "3F", "40", "42", "53", "57", "58", "F0", "HV"];
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    code == LOCK_NOT_AVAILABLE || CLASSES.iter().any(|class| code.starts_with(class))
}

fn anonymous(code: &str, answer: &dyn DatabaseError) -> String {
    match answer.constraint() {
        Some(constraint) => format!("SQLSTATE {code}, constraint {constraint}"),
        None => format!("SQLSTATE {code}"),
    }
}
