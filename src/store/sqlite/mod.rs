//! The embedded store: one SQLite file in a folder of its own.
//!
//! Lives here: the store itself, and what its errors mean. One connection writes; questions have a pool of their own,
//! and are told apart from it by the file being read-only to them.

mod backup;
mod changes;
mod checkpoint;
mod commit;
mod connect;
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
mod trust;
mod write;

pub use migrate::schema;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::SqlitePool;
use tokio::{sync::Mutex, task::JoinHandle};

pub use backup::backup;

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
};

/// Where the embedded store is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder, made when it is missing. On a local disk: a network file system breaks SQLite's promises.
    pub folder: PathBuf,
    /// The most connections for questions; the writer has one more of its own.
    pub read_connections: u32,
    /// How long a commit may wait for another process that writes to the same file.
    pub commit_timeout: Duration,
    /// How long a question may take, waiting for a connection included.
    pub read_timeout: Duration,
}

/// The embedded store.
pub struct Sqlite {
    options: Options,
    file: PathBuf,
    writer: Arc<Mutex<write::Writer>>,
    checkpoints: Mutex<Option<JoinHandle<()>>>,
    readers: SqlitePool,
    /// The rows that could not be read.
    left_out: LeftOut,
    trust: Arc<trust::Trust>,
    last_commit: LastCommit,
}

impl Sqlite {
    /// Opens the store, and makes its folder and file where they are missing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the folder or the file can't be written.
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        Self::open_file(options, connect::create(&options.folder)?).await
    }

    /// Opens a store that is there, and makes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is none, or it lacks a migration of this version.
    pub async fn open_existing(options: &Options) -> Result<Self, StoreError> {
        let store = Self::open_file(options, connect::existing(&options.folder).await?).await?;
        store.require_migrations().await?;
        Ok(store)
    }

    async fn open_file(options: &Options, file: PathBuf) -> Result<Self, StoreError> {
        let trust = Arc::new(trust::Trust::new());
        let connection = connect::writer(options, &file, &trust).await?;
        let (writer, checkpoints) = checkpoint::start(options, file.clone(), Arc::clone(&trust), |due| {
            let writer = write::Writer::new(connection, options, file.clone(), Arc::clone(&trust), due);
            Arc::new(Mutex::new(writer))
        });
        Ok(Self {
            options: options.clone(),
            readers: connect::readers(options, &file),
            file,
            left_out: LeftOut::default(),
            writer,
            checkpoints: Mutex::new(Some(checkpoints)),
            trust,
            last_commit: LastCommit::default(),
        })
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn commit(&self, batch: &Batch) -> Result<Vec<Kept>, StoreError> {
        let ended = self.commit_batch(batch).await;
        self.last_commit.note(&ended);
        ended
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

    async fn latest_change(&self) -> Result<Position, StoreError> {
        self.read_latest().await
    }

    async fn changes(&self, after: Position) -> Result<Option<ChangePage>, StoreError> {
        self.read_changes(after).await
    }

    async fn announce(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn listen(&self, _: &str) -> Result<Box<dyn Notices>, StoreError> {
        Ok(Box::new(changes::Silence))
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

    fn log_bytes(&self) -> u64 {
        self.file.with_extension("db-wal").metadata().map_or(0, |log| log.len())
    }

    async fn broken(&self) {
        self.trust.lost().await;
    }

    /// The writer last: whoever closes the file last copies the log, which those that only read can't.
    async fn close(&self) {
        self.readers.close().await;
        self.writer.lock().await.end_checkpoints();
        if let Some(checkpoints) = self.checkpoints.lock().await.take()
            && let Err(error) = checkpoints.await
        {
            tracing::error!(%error, "the store's checkpoints have ended badly");
        }
        self.writer.lock().await.close().await;
    }
}

const CONSTRAINT_TRIGGER: i32 = 1811;

/// SQLite's extended result code.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// What an error means. One that is not known to be the file's own belongs to the data: a batch is separated then, and
/// none of it is refused to others. SQLite's messages name tables, columns and constraints, never values; a trigger's
/// is its author's.
fn meaning(error: sqlx::Error) -> StoreError {
    const ERROR: i32 = 1;
    const INTERRUPT: i32 = 9;
    const CORRUPT: i32 = 11;
    const NOT_A_DATABASE: i32 = 26;
    /// PERM, ABORT, BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL, SCHEMA, NOLFS, AUTH.
    const OF_THE_FILE: [i32; 13] = [3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 17, 22, 23];
    match result_code(&error) {
        Some(CONSTRAINT_TRIGGER) => StoreError::Refused("a trigger refused it (SQLite 1811)".into()),
        // The lower byte is the kind, the rest its particulars.
        Some(code) => match code & 0xff {
            CORRUPT | NOT_A_DATABASE => StoreError::Corrupt(message(&error)),
            INTERRUPT => StoreError::Unavailable("the question took too long".into()),
            ERROR if lacks_schema(&error) => StoreError::Unavailable(message(&error)),
            kind if OF_THE_FILE.contains(&kind) => StoreError::Unavailable(message(&error)),
            _ => StoreError::Refused(message(&error)),
        },
        None => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                StoreError::Corrupt(error.to_string())
            }
            _ => StoreError::Unavailable(error.to_string()),
        },
    }
}

/// Whether the file lacks a table or a column; SQLite has no code for it.
fn lacks_schema(error: &sqlx::Error) -> bool {
    let message = message(error);
    ["no such table", "no such column", "no column named"].iter().any(|lack| message.contains(lack))
}

fn message(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(String::new, |error| format!("SQLite {error}"))
}
