//! Transactions that write: on the one connection that does, within which time, and what is done when one fails.
//!
//! Lives here: [`Work`] and how it is run, and the copying of the log into the file. Does not: what is written
//! (`commit`, `hours`, `sends`, `polls`).

use sqlx::{Connection, Row, SqliteConnection};
use tokio::time::timeout;

use super::{Sqlite, connect};
use crate::store::StoreError;

/// What is done in one transaction.
pub(super) trait Work: Sync {
    /// What comes of it.
    type Done: Send;

    /// Does it.
    fn run(
        &self,
        connection: &mut SqliteConnection,
    ) -> impl Future<Output = Result<Self::Done, sqlx::Error>> + Send;

    /// About how many pages of the file it changes.
    fn pages(&self) -> usize;
}

/// After about so many changed pages, of 4 KiB, the log is copied into the file: a page that many commits have changed is
/// copied once.
const EVERY_PAGES: usize = 8_000;

/// The one connection that writes.
pub(super) struct Writer {
    /// Taken out for each commit and put back after it went well: with any doubt a new one is opened.
    pub(super) connection: Option<SqliteConnection>,
    /// About how many pages it has left to copy from the log into the file.
    pages: usize,
}

impl Writer {
    /// An earlier life may have ended in the middle and left any log: the first commit copies it. A service that is
    /// killed soon after each start would else read a longer one at each.
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self { connection: Some(connection), pages: EVERY_PAGES }
    }

    /// Closes the connection, in which SQLite copies the log into the file.
    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the store was not closed well; what was committed is kept");
        }
    }

    /// Copies the log into the file now and then. SQLite would do it by itself, but keep it a secret if the disk
    /// fails at it; and it would never begin the log anew while there is always some reader.
    async fn checkpoint(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        const LONG_LOG_PAGES: i64 = 14_000;
        if self.pages < EVERY_PAGES {
            return Ok(());
        }
        self.pages = 0;
        let passive = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut *connection).await?;
        if passive.try_get::<i64, _>(1)? > LONG_LOG_PAGES {
            // Waits for those that read the log now; new readers already do without.
            sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(connection).await?;
        }
        Ok(())
    }
}

impl Sqlite {
    /// Does work in one transaction. Whatever goes wrong, the connection goes with it: after some errors SQLite has
    /// rolled back by itself, and closing rolls back in any case.
    pub(super) async fn write<W: Work>(&self, work: &W) -> Result<W::Done, StoreError> {
        self.trust()?;
        let whole = async {
            let mut writer = self.writer.lock().await;
            let mut connection = match writer.connection.take() {
                Some(connection) => connection,
                None => connect::writer(&self.options, &self.file).await?,
            };
            let done = transaction(work, &mut connection).await.map_err(|error| self.judge(error))?;
            writer.pages += work.pages();
            match writer.checkpoint(&mut connection).await {
                Ok(()) => writer.connection = Some(connection),
                // What was committed is safe in the log.
                Err(error) => {
                    let error = self.judge(error);
                    tracing::warn!(%error, "the store's log could not be copied into its file");
                }
            }
            Ok(done)
        };
        let late = |_| StoreError::Unavailable("the disk or another process held up the commit".into());
        timeout(self.options.commit_timeout, whole).await.map_err(late)?
    }
}

async fn transaction<W: Work>(work: &W, connection: &mut SqliteConnection) -> Result<W::Done, sqlx::Error> {
    // IMMEDIATE, so that it waits for another writer here rather than fails later.
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let done = work.run(connection).await?;
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(done)
}
