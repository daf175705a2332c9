//! Transactions that write: on which connection, within which time, and what is done when one fails.
//!
//! Lives here: [`Work`] and how it is run. Does not: what is written (`commit`, `sends`, `polls`).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    Postgres,
    doubt::{TRUSTED_IDLE, answers, is_dead},
    is_conflict, is_locked, is_stale, meaning,
};
use crate::store::StoreError;

/// A bounded set of connections for writing, opened when they are needed. Each transaction takes one out and puts it
/// back only if there is no doubt about it. After an error a new connection is opened, which finds a server that came
/// back, or another one that took over.
pub(super) struct Slots {
    count: u32,
    /// How long a statement may wait for a lock.
    lock_timeout: Duration,
    /// One permit for each connection that may be taken out.
    free: Semaphore,
    /// Each since when.
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

impl Slots {
    pub(super) fn new(count: u32, lock_timeout: Duration) -> Self {
        Self { count, lock_timeout, free: Semaphore::new(count as usize), idle: Mutex::default() }
    }

    /// The connection that was used last, if one is idle.
    fn take(&self) -> Option<(PgConnection, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn put_back(&self, connection: PgConnection) {
        let idle = (connection, Instant::now());
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
    }

    /// Leaves all idle connections, so that the next one is new.
    pub(super) fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Closes all connections, after the transactions that are under way.
    pub(super) async fn close(&self) -> Result<(), sqlx::Error> {
        let _all = self.free.acquire_many(self.count).await;
        while let Some((connection, _)) = self.take() {
            connection.close().await?;
        }
        Ok(())
    }
}

/// What is done in one transaction, and again if another one was in its way.
pub(super) trait Work: Sync {
    /// What comes of it.
    type Done: Send;

    /// Whether it may be done again after a connection broke that may have committed it: whether twice is as good as once.
    fn is_repeatable(&self) -> bool;

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

/// Why a transaction failed.
struct Failed {
    error: sqlx::Error,
    /// Whether it may have been committed all the same.
    may_be_committed: bool,
}

impl Postgres {
    /// Does work with any connection that is free, or the first that becomes free.
    ///
    /// The connection stays only if it is known to be well. Whoever stops waiting in the middle, be it the time
    /// limit, has taken it along. A connection may have ended while it was idle: then the work is repeated, once and
    /// within the time limit, over a new one.
    pub(super) async fn write<W: Work>(&self, slots: &Slots, work: &W) -> Result<W::Done, StoreError> {
        const ATTEMPTS: usize = 5;
        let whole = async {
            let _slot = slots.free.acquire().await.expect("nobody closes the semaphore");
            let (mut attempts, mut anew) = (0, false);
            loop {
                attempts += 1;
                let idle = if std::mem::take(&mut anew) { None } else { self.checked(slots.take()).await };
                let was_idle = idle.is_some();
                let mut connection = match idle {
                    Some(connection) => connection,
                    None => self.connect_writer(slots.lock_timeout).await?,
                };
                let Failed { error, may_be_committed } =
                    match self.run(work, &mut connection, slots.lock_timeout).await {
                        Ok(done) => {
                            slots.put_back(connection);
                            return Ok(done);
                        }
                        Err(failed) => failed,
                    };
                let is_dead = is_dead(&error);
                if is_dead {
                    self.doubt.found(&error);
                }
                let is_safe = work.is_repeatable() || !may_be_committed;
                if attempts < ATTEMPTS && is_conflict(&error) {
                    slots.put_back(connection);
                } else if was_idle && (is_stale(&error) || is_dead && is_safe) {
                    // A new connection has no old plans, and its other end was there a moment ago.
                    tracing::debug!(%error, "done again over a new connection to the database");
                    anew = true;
                } else {
                    let is_contended = is_locked(&error) || is_conflict(&error);
                    let error = match meaning(error) {
                        StoreError::Unavailable(why) if is_contended => StoreError::Contended(why),
                        error => error,
                    };
                    if matches!(error, StoreError::Refused(_) | StoreError::Contended(_)) {
                        slots.put_back(connection);
                    }
                    return Err(error);
                }
            }
        };
        let late = |_| StoreError::Unavailable("the database did not answer a commit in time".into());
        timeout(self.options.commit_timeout, whole).await.map_err(late)?
    }

    /// A connection that was idle, unless it was so for long and does not answer any more.
    async fn checked(&self, idle: Option<(PgConnection, Instant)>) -> Option<PgConnection> {
        let (mut connection, since) = idle?;
        let is_well = since.elapsed() <= TRUSTED_IDLE || answers(&mut connection, self.check_limit()).await;
        is_well.then_some(connection)
    }

    async fn run<W: Work>(
        &self,
        work: &W,
        connection: &mut PgConnection,
        lock_timeout: Duration,
    ) -> Result<W::Done, Failed> {
        let open = |error| Failed { error, may_be_committed: true };
        let rolled_back = |error| Failed { error, may_be_committed: false };
        let named = self.named_statements();
        if named && work.is_one_statement() {
            return work.run(connection, true).await.map_err(open);
        }
        self.begin(connection, self.options.commit_timeout, lock_timeout).await.map_err(rolled_back)?;
        match work.run(connection, named).await {
            Ok(done) => sqlx::raw_sql("COMMIT").execute(connection).await.map(|_| done).map_err(open),
            // Nothing is ever committed after an error: the server would roll back and call it a success.
            Err(error) => {
                sqlx::raw_sql("ROLLBACK").execute(connection).await.map_err(rolled_back)?;
                Err(rolled_back(error))
            }
        }
    }
}
