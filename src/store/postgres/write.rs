//! Transactions that write: on which connection, within which time, and what is done when one fails.
//!
//! Lives here: [`Work`] and how it is run. Does not: what is written (`commit`, `sends`, `polls`).

use std::sync::{Mutex, PoisonError};

use sqlx::{Connection as _, PgConnection};
use tokio::{sync::Semaphore, time::timeout};

use super::{Postgres, is_conflict, is_locked, is_stale, meaning};
use crate::store::StoreError;

/// A bounded set of connections for writing, opened when they are needed. Each transaction takes one out and puts it
/// back only if there is no doubt about it. After an error a new connection is opened, which finds a server that came
/// back, or another one that took over.
pub(super) struct Slots {
    count: u32,
    /// One permit for each connection that may be taken out.
    free: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        Self { count, free: Semaphore::new(count as usize), idle: Mutex::default() }
    }

    /// The connection that was used last, if one is idle.
    fn take(&self) -> Option<PgConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn put_back(&self, connection: PgConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Closes all connections, after the transactions that are under way.
    pub(super) async fn close(&self) -> Result<(), sqlx::Error> {
        let _all = self.free.acquire_many(self.count).await;
        while let Some(connection) = self.take() {
            connection.close().await?;
        }
        Ok(())
    }
}

/// What is done in one transaction, and again if another one was in its way.
pub(super) trait Work: Sync {
    /// What comes of it.
    type Done: Send;

    /// Whether it is a single statement, which is a transaction by itself.
    fn is_one_statement(&self) -> bool {
        false
    }

    /// Does it; `named` says whether statements are kept under a name.
    fn run(
        &self,
        connection: &mut PgConnection,
        named: bool,
    ) -> impl Future<Output = Result<Self::Done, sqlx::Error>> + Send;
}

impl Postgres {
    /// Does work with any connection that is free, or the first that becomes free.
    ///
    /// The connection stays only if it is known to be well. Whoever stops waiting in the middle, be it the time
    /// limit, has taken it along.
    pub(super) async fn write<W: Work>(&self, slots: &Slots, work: &W) -> Result<W::Done, StoreError> {
        const ATTEMPTS: usize = 5;
        let whole = async {
            let _slot = slots.free.acquire().await.expect("nobody closes the semaphore");
            let mut attempts = 0;
            loop {
                attempts += 1;
                let mut connection = match slots.take() {
                    Some(connection) => connection,
                    None => self.connect_writer().await?,
                };
                match self.run(work, &mut connection).await {
                    Ok(done) => {
                        slots.put_back(connection);
                        return Ok(done);
                    }
                    Err(error) if attempts < ATTEMPTS && is_conflict(&error) => slots.put_back(connection),
                    // A new connection has no old plans.
                    Err(error) if attempts == 1 && is_stale(&error) => {}
                    Err(error) => {
                        let is_locked = is_locked(&error);
                        let error = match meaning(error) {
                            StoreError::Unavailable(why) if is_locked => StoreError::Contended(why),
                            error => error,
                        };
                        if matches!(error, StoreError::Refused(_) | StoreError::Contended(_)) {
                            slots.put_back(connection);
                        }
                        return Err(error);
                    }
                }
            }
        };
        let late = |_| StoreError::Unavailable("the database did not answer a commit in time".into());
        timeout(self.options.commit_timeout, whole).await.map_err(late)?
    }

    async fn run<W: Work>(&self, work: &W, connection: &mut PgConnection) -> Result<W::Done, sqlx::Error> {
        let named = self.named_statements();
        if named && work.is_one_statement() {
            return work.run(connection, true).await;
        }
        self.begin(connection, self.options.commit_timeout).await?;
        let done = work.run(connection, named).await;
        // Nothing is ever committed after an error: the server would roll back and call it a success.
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        sqlx::raw_sql(end).execute(connection).await?;
        done
    }
}
