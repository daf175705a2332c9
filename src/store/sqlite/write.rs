//! Transactions that write: on the one connection that does, within which time, and what is done when one fails.
//!
//! Lives here: [`Work`] and how it is run. Does not: what is written (`commit`, `hours`, `sends`, `polls`), the copying
//! of the log into the file (`checkpoint`).

use std::{path::PathBuf, sync::Arc};

use scopeguard::{ScopeGuard, guard_on_success};
use sqlx::{Connection, SqliteConnection};
use tokio::{
    runtime::Handle,
    sync::OwnedMutexGuard,
    time::{Instant, timeout_at},
};

use super::{Options, Sqlite, changes::begin_epoch, checkpoint::Due, connect, trust::Trust};
use crate::store::StoreError;

/// What is done in one transaction. It owns what it needs, since it may go on after its caller has given up.
pub(super) trait Work: Send + Sync + 'static {
    /// What comes of it.
    type Done: Send + 'static;

    /// Does it.
    fn run(
        &self,
        connection: &mut SqliteConnection,
    ) -> impl Future<Output = Result<Self::Done, sqlx::Error>> + Send;

    /// About how many pages of the file it changes.
    fn pages(&self) -> usize;
}

/// The one connection that writes.
pub(super) struct Writer {
    /// Taken out for each commit and put back after it went well: with any doubt a new one is opened.
    pub(super) connection: Option<SqliteConnection>,
    /// Whether the connection has begun an epoch of positions.
    has_epoch: bool,
    options: Options,
    file: PathBuf,
    trust: Arc<Trust>,
    /// Gone once it is closed.
    due: Option<Due>,
}

impl Writer {
    pub(super) fn new(
        connection: SqliteConnection,
        options: &Options,
        file: PathBuf,
        trust: Arc<Trust>,
        due: Due,
    ) -> Self {
        Self {
            connection: Some(connection),
            has_epoch: false,
            options: options.clone(),
            file,
            trust,
            due: Some(due),
        }
    }

    /// About how many pages were changed since the last checkpoint was asked for.
    pub(super) fn changed(&self) -> usize {
        self.due.as_ref().map_or(0, Due::pages)
    }

    /// No more checkpoints: their task ends after the one under way.
    pub(super) fn end_checkpoints(&mut self) {
        self.due = None;
    }

    /// Closes the connection, in which SQLite copies the log into the file.
    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            let error = self.trust.judge(error);
            tracing::warn!(%error, "the store was not closed well; what was committed is kept");
        }
    }

    /// Does work in one transaction. Whatever goes wrong, the connection goes with it: after some errors SQLite has
    /// rolled back by itself, and closing rolls back in any case.
    async fn run<W: Work>(&mut self, work: W) -> Result<W::Done, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.has_epoch = false;
                connect::writer(&self.options, &self.file, &self.trust).await?
            }
        };
        let done = transaction(&work, &mut connection, self.has_epoch)
            .await
            .map_err(|error| self.trust.judge(error))?;
        self.has_epoch = true;
        self.connection = Some(connection);
        if let Some(due) = &mut self.due {
            due.changed(work.pages());
        }
        Ok(done)
    }
}

impl Sqlite {
    /// Does work in one transaction, and waits for it within the time for a commit.
    ///
    /// Once begun it is done to its end, whoever stops waiting: of a sync that fails later than that the process has
    /// to know as well. At most one such is under way, because it keeps the writer.
    pub(super) async fn write<W: Work>(&self, work: W) -> Result<W::Done, StoreError> {
        let deadline = Instant::now() + self.options.commit_timeout;
        let late = |_| StoreError::Unavailable("the disk or another process held up the commit".into());
        let mut writer: OwnedMutexGuard<Writer> =
            timeout_at(deadline, Arc::clone(&self.writer).lock_owned()).await.map_err(late)?;
        self.trust.require()?;
        let whole = Box::pin(async move { writer.run(work).await });
        // As a task from the start it would cost each commit two more hand-overs between threads, a tenth of the rate over
        // one connection.
        let mut whole = guard_on_success(whole, |rest| {
            // Without a runtime the process ends.
            let _ = Handle::try_current().map(|runtime| runtime.spawn(rest));
        });
        let done = timeout_at(deadline, whole.as_mut()).await.map_err(late)?;
        drop(ScopeGuard::into_inner(whole));
        done
    }
}

async fn transaction<W: Work>(
    work: &W,
    connection: &mut SqliteConnection,
    has_epoch: bool,
) -> Result<W::Done, sqlx::Error> {
    // IMMEDIATE, so that it waits for another writer here rather than fails later.
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    if !has_epoch {
        begin_epoch(connection).await?;
    }
    let done = work.run(connection).await?;
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(done)
}
