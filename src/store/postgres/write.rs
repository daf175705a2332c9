//! Transactions that write: on which connection, within which time, and what is done when one fails.
//!
//! Lives here: [`Work`] and how it is run. Does not: what is written (`commit`, `sends`, `polls`).

use sqlx::PgConnection;
use tokio::{sync::Mutex, time::timeout};

use super::{Postgres, is_conflict, is_stale, meaning};
use crate::store::StoreError;

/// A connection that is taken out for each transaction, and put back when there is no doubt about it; otherwise a new
/// one is opened, so that a server that came back, or another one that took over, is found.
pub(super) type Slot = Mutex<Option<PgConnection>>;

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
    /// Does work with the first connection that is free.
    ///
    /// The connection stays only if it is known to be well. Whoever stops waiting in the middle, be it the time
    /// limit, has taken it along.
    pub(super) async fn write<W: Work>(&self, slots: &[Slot], work: &W) -> Result<W::Done, StoreError> {
        const ATTEMPTS: usize = 5;
        let whole = async {
            let mut slot = match slots.iter().find_map(|slot| slot.try_lock().ok()) {
                Some(slot) => slot,
                None => slots[0].lock().await,
            };
            let mut attempts = 0;
            loop {
                attempts += 1;
                let mut connection = match slot.take() {
                    Some(connection) => connection,
                    None => self.connect_writer().await?,
                };
                match self.run(work, &mut connection).await {
                    Ok(done) => {
                        *slot = Some(connection);
                        return Ok(done);
                    }
                    Err(error) if attempts < ATTEMPTS && is_conflict(&error) => *slot = Some(connection),
                    // A new connection has no old plans.
                    Err(error) if attempts == 1 && is_stale(&error) => {}
                    Err(error) => {
                        let error = meaning(error);
                        if matches!(error, StoreError::Refused(_)) {
                            *slot = Some(connection);
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
