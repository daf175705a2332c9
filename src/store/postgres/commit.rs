//! Commits: in which order transactions write deliveries, older events and quarantine.

use std::collections::HashMap;

use sqlx::{PgConnection, postgres::PgRow};
use tokio::time::timeout;

use super::{
    Postgres,
    hours::set_back,
    is_conflict, is_stale, meaning, rows,
    statements::{
        LOCK, QUARANTINE, UPDATE, UPSERT, UPSERT_OLDER, UPSERT_ONE, bind_older, bind_quarantine, bind_rows,
        digest,
    },
};
use crate::{
    batch::{Batch, Outcome},
    clock::Timestamp,
    event::Arrival,
    store::{
        StoreError,
        committed::{Committed, Settling},
        hours::to_set_back,
    },
};

impl Postgres {
    /// See [`crate::store::Store::commit`].
    pub(super) async fn commit_batch(&self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        let committed = self.write(Work::Upsert(batch)).await?;
        if committed.is_all_of(batch) {
            return committed.outcomes();
        }
        self.write(Work::Settle(batch, &committed)).await?.outcomes()
    }

    /// See [`crate::store::Store::release`].
    pub(super) async fn commit_release(&self, mut understood: Vec<Arrival>) -> Result<(), StoreError> {
        understood.retain(|arrival| arrival.event().is_some());
        self.write(Work::Release(&understood)).await.map(drop)
    }

    /// Does work with the connection that writes, again if another transaction was in its way.
    ///
    /// The connection stays only if it is known to be well. Whoever stops waiting in the middle, be it the time
    /// limit, has taken it along.
    async fn write(&self, work: Work<'_>) -> Result<Committed, StoreError> {
        const ATTEMPTS: usize = 5;
        let whole = async {
            let free = self.writers.iter().find_map(|writer| writer.try_lock().ok());
            let mut slot = match free {
                Some(slot) => slot,
                None => self.writers[0].lock().await,
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

    async fn run(&self, work: Work<'_>, connection: &mut PgConnection) -> Result<Committed, sqlx::Error> {
        let named = self.named_statements();
        let old = work.old_hours();
        if let (Work::Upsert(batch), true, true) = (work, named, old.is_empty()) {
            // A statement alone is a transaction.
            return upsert(connection, batch, &old, true).await;
        }
        self.begin(connection, self.options.commit_timeout).await?;
        let done = match work {
            Work::Upsert(batch) => upsert(connection, batch, &old, named).await,
            Work::Settle(batch, committed) => settle(connection, batch, committed, &old, named).await,
            Work::Release(understood) => release(connection, understood, &old, named).await,
        };
        // Nothing is ever committed after an error: the server would roll back and call it a success.
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        sqlx::raw_sql(end).execute(connection).await?;
        done
    }
}

/// What is done in one transaction.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// Each delivery's leader, where it is the first or the same again.
    Upsert(&'a Batch),
    /// What that has left.
    Settle(&'a Batch, &'a Committed),
    Release(&'a [Arrival]),
}

impl Work<'_> {
    /// The hours to set back first, as far as its events tell.
    fn old_hours(self) -> Vec<Timestamp> {
        match self {
            Self::Upsert(batch) | Self::Settle(batch, _) => {
                to_set_back(batch.events.iter().map(|event| event.event.told.listed_at()))
            }
            Self::Release(understood) => {
                let events = understood.iter().filter_map(Arrival::event);
                to_set_back(events.map(|event| event.told.listed_at()))
            }
        }
    }
}

async fn upsert(
    connection: &mut PgConnection,
    batch: &Batch,
    old_hours: &[Timestamp],
    named: bool,
) -> Result<Committed, sqlx::Error> {
    let mut committed = Committed::nothing_of(batch);
    if batch.events.is_empty() {
        return Ok(committed);
    }
    set_back(connection, old_hours, named).await?;
    let leaders: Vec<_> = batch.leaders().collect();
    let statement = if leaders.len() == 1 { UPSERT_ONE } else { UPSERT };
    for row in bind_rows(sqlx::query(statement), &leaders).persistent(named).fetch_all(connection).await? {
        committed.stands(batch, &rows::id(&row, "id")?, rows::count(&row, "times")?);
    }
    Ok(committed)
}

async fn settle(
    connection: &mut PgConnection,
    batch: &Batch,
    committed: &Committed,
    old_hours: &[Timestamp],
    named: bool,
) -> Result<Committed, sqlx::Error> {
    // Before the rows are locked, as in the first step, so that the two don't wait for each other.
    set_back(connection, old_hours, named).await?;
    let mut settling = Settling::after(batch, committed);
    let ids: Vec<_> = committed.unsettled(batch).into_iter().map(|id| id.as_str()).collect();
    let mut listed = Vec::with_capacity(ids.len());
    for row in sqlx::query(LOCK).bind(ids).persistent(named).fetch_all(&mut *connection).await? {
        listed.push(rows::time(&row, "listed_at")?);
        settling.settle(rows::row(&row)?);
    }
    // Of an event that names another time than the one that its delivery is listed at.
    let more: Vec<_> =
        to_set_back(listed.into_iter()).into_iter().filter(|hour| !old_hours.contains(hour)).collect();
    set_back(connection, &more, named).await?;
    let older = settling.older();
    if !older.is_empty() {
        let kept: Vec<PgRow> = bind_older(sqlx::query(UPSERT_OLDER), &older)
            .persistent(named)
            .fetch_all(&mut *connection)
            .await?;
        for row in kept {
            let (id, digest) = (rows::id(&row, "delivery_id")?, rows::digest(&row, "digest")?);
            settling.kept(id, digest, rows::count(&row, "times")?);
        }
    }
    let changed: Vec<_> = settling.changed.iter().collect();
    if !changed.is_empty() {
        bind_rows(sqlx::query(UPDATE), &changed).persistent(named).execute(&mut *connection).await?;
    }
    if !batch.quarantine.is_empty() {
        bind_quarantine(sqlx::query(QUARANTINE), &batch.quarantine)
            .persistent(named)
            .execute(connection)
            .await?;
    }
    Ok(settling.committed())
}

async fn release(
    connection: &mut PgConnection,
    understood: &[Arrival],
    old_hours: &[Timestamp],
    named: bool,
) -> Result<Committed, sqlx::Error> {
    let digests: Vec<_> = understood.iter().map(|arrival| digest(arrival.digest())).collect();
    let delete = "DELETE FROM quarantine WHERE digest = ANY($1) RETURNING digest, times";
    let mut deleted = HashMap::new();
    for row in sqlx::query(delete).bind(digests).persistent(named).fetch_all(&mut *connection).await? {
        deleted.insert(rows::digest(&row, "digest")?, rows::count(&row, "times")?);
    }
    let released = understood.iter().filter_map(|arrival| {
        // Taken out, so that one that stands twice in the list counts once.
        deleted.remove(&arrival.digest()).map(|times| Arrival { times, ..arrival.clone() })
    });
    let batch = Batch::fold(released.collect()).0;
    let committed = upsert(connection, &batch, old_hours, named).await?;
    settle(connection, &batch, &committed, old_hours, named).await
}
