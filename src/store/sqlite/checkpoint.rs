//! Checkpoints: copies the log into the file, on a connection and in a task of their own, beside the commits.
//!
//! SQLite's automatic checkpoints run inside a commit, and hide an error of the disk.

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use sqlx::{Connection, Row, SqliteConnection};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};

use super::{Options, connect, trust::Trust, write::Writer};
use crate::store::StoreError;

/// A checkpoint begins after about so many changed pages, of 4 KiB. A page that many commits have changed is copied
/// once.
const EVERY_PAGES: usize = 8_000;

/// A log that has grown to this many pages, 80 MiB, begins anew. That makes commits wait for a last pass and its syncs, 2
/// to 20 ms.
const ANEW_PAGES: i64 = 20_000;

/// Passes at most before the last one. Each copies what was committed during the one before.
const PASSES: usize = 4;

/// Pages that may be left for the last pass.
const TAIL_PAGES: i64 = 400;

/// A shorter log begins anew only if fewer pages were changed while it was copied, so that next to nobody waits. A log that
/// is used again costs a lone commit a fifth less than one that grows, whose syncs have new blocks to write down.
const IDLE_PAGES: usize = 200;

/// Readers keep the log from beginning anew; from 256 MiB on that is logged, at most once a minute.
const LONG_LOG_PAGES: i64 = 65_536;
const WARN_PAUSE: Duration = Duration::from_secs(60);

/// Counts changed pages, and asks for a checkpoint when there are enough. The task ends when this is dropped.
pub(super) struct Due {
    pages: usize,
    ask: mpsc::Sender<()>,
}

impl Due {
    /// The first commit asks for one: an earlier life may have been killed and have left a log of any length, which a
    /// service that is killed soon after each start would read again at each.
    fn new(ask: mpsc::Sender<()>) -> Self {
        Self { pages: EVERY_PAGES, ask }
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Counts what a commit has changed.
    pub(super) fn changed(&mut self, pages: usize) {
        self.pages += pages;
        // When a checkpoint is asked for already, it will copy these too.
        if self.pages >= EVERY_PAGES && self.ask.try_send(()).is_ok() {
            self.pages = 0;
        }
    }
}

/// Starts the task. It has the writer only while it needs it, so that a store which is dropped ends it.
pub(super) fn start(
    options: &Options,
    file: PathBuf,
    trust: Arc<Trust>,
    writer: impl FnOnce(Due) -> Arc<Mutex<Writer>>,
) -> (Arc<Mutex<Writer>>, JoinHandle<()>) {
    let (ask, asked) = mpsc::channel(1);
    let writer = writer(Due::new(ask));
    let checkpoints = Checkpoints {
        options: options.clone(),
        file,
        trust,
        writer: Arc::downgrade(&writer),
        connection: None,
        first: true,
        warned: None,
    };
    let task = tokio::spawn(checkpoints.run(asked));
    (writer, task)
}

struct Checkpoints {
    options: Options,
    file: PathBuf,
    trust: Arc<Trust>,
    writer: Weak<Mutex<Writer>>,
    connection: Option<SqliteConnection>,
    /// Whether the log is an earlier life's still.
    first: bool,
    /// When it was last logged that the log is long.
    warned: Option<Instant>,
}

/// How a checkpoint went, in pages.
struct Pass {
    log: i64,
    copied: i64,
}

impl Checkpoints {
    async fn run(mut self, mut asked: mpsc::Receiver<()>) {
        while asked.recv().await.is_some() {
            if self.trust.require().is_err() {
                return;
            }
            // The log has all that was committed. The next commits ask again.
            match AssertUnwindSafe(self.checkpoint()).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the store's log could not be copied into its file"),
                Err(_) => tracing::error!("a checkpoint of the store panicked"),
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            let error = self.trust.judge(error);
            tracing::warn!(%error, "the store's checkpoints were not closed well");
        }
    }

    async fn checkpoint(&mut self) -> Result<(), StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect::checkpoints(&self.options, &self.file, &self.trust).await?,
        };
        let mut length = self.pass(&mut connection, PASSIVE).await?.log;
        let is_long = self.first || length >= ANEW_PAGES;
        let more = if is_long { PASSES - 1 } else { 0 };
        for _ in 0..more {
            let Pass { log, copied } = self.pass(&mut connection, PASSIVE).await?;
            // Readers need the rest of the log, or nearly nothing was committed meanwhile.
            if copied < log || log - length < TAIL_PAGES {
                break;
            }
            length = log;
        }
        if let Some(writer) = self.writer.upgrade() {
            let no_commit = writer.lock().await;
            if is_long || no_commit.changed() < IDLE_PAGES {
                let pass = self.pass(&mut connection, RESTART).await?;
                self.first = pass.copied < pass.log;
                self.report(&pass);
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn pass(&self, connection: &mut SqliteConnection, how: &'static str) -> Result<Pass, StoreError> {
        let pass = async {
            let row = sqlx::query(how).fetch_one(connection).await?;
            Ok(Pass { log: row.try_get(1)?, copied: row.try_get(2)? })
        };
        pass.await.map_err(|error| self.trust.judge(error))
    }

    fn report(&mut self, Pass { log, copied }: &Pass) {
        let mebibytes = log / 256;
        if copied == log {
            if self.warned.take().is_some() {
                tracing::info!(mebibytes, "the store's log begins anew");
            }
        } else if *log > LONG_LOG_PAGES && self.warned.is_none_or(|at| at.elapsed() > WARN_PAUSE) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                mebibytes,
                "the store's log grows: a reader that does not end keeps it from beginning anew"
            );
        }
    }
}

/// Copies what no reader needs any more, and waits for nobody.
const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Likewise, then waits for readers as long as the connection's busy timeout allows, so that the next commit begins the
/// log anew: with readers at all times it otherwise never would.
const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";
