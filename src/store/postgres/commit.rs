//! Commits: in which order transactions write deliveries, older events and quarantine.

use std::collections::HashMap;

use sqlx::{PgConnection, postgres::PgRow};

use super::{
    Postgres,
    hours::set_back,
    polls::{any_sent, queue},
    rows,
    statements::{
        LOCK, QUARANTINE, UPDATE, UPSERT, UPSERT_OLDER, UPSERT_ONE, bind_older, bind_quarantine, bind_rows,
        digest,
    },
    write::Work,
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
        let committed = self.write(&self.writers, &Commit::of(Step::Upsert(batch))).await?;
        if committed.is_all_of(batch) {
            return committed.outcomes();
        }
        self.write(&self.writers, &Commit::of(Step::Settle(batch, &committed))).await?.outcomes()
    }

    /// See [`crate::store::Store::release`].
    pub(super) async fn commit_release(&self, mut understood: Vec<Arrival>) -> Result<(), StoreError> {
        understood.retain(|arrival| arrival.event().is_some());
        self.write(&self.writers, &Commit::of(Step::Release(&understood))).await.map(drop)
    }
}

/// What is done in one transaction.
struct Commit<'a> {
    step: Step<'a>,
    /// The hours to set back first, as far as its events tell.
    old_hours: Vec<Timestamp>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// Each delivery's leader, where it is the first or the same again.
    Upsert(&'a Batch),
    /// What that has left.
    Settle(&'a Batch, &'a Committed),
    Release(&'a [Arrival]),
}

impl<'a> Commit<'a> {
    fn of(step: Step<'a>) -> Self {
        let old_hours = match step {
            Step::Upsert(batch) | Step::Settle(batch, _) => {
                to_set_back(batch.events.iter().map(|event| event.event.told.listed_at()))
            }
            Step::Release(understood) => {
                let events = understood.iter().filter_map(Arrival::event);
                to_set_back(events.map(|event| event.told.listed_at()))
            }
        };
        Self { step, old_hours }
    }
}

impl Work for Commit<'_> {
    type Done = Committed;

    fn is_one_statement(&self) -> bool {
        matches!(self.step, Step::Upsert(batch) if self.old_hours.is_empty() && !any_sent(batch.leaders()))
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<Committed, sqlx::Error> {
        let old = &self.old_hours;
        match self.step {
            Step::Upsert(batch) => upsert(connection, batch, old, named).await,
            Step::Settle(batch, committed) => settle(connection, batch, committed, old, named).await,
            Step::Release(understood) => release(connection, understood, old, named).await,
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
    for row in
        bind_rows(sqlx::query(statement), &leaders).persistent(named).fetch_all(&mut *connection).await?
    {
        committed.stands(batch, &rows::id(&row, "id")?, rows::count(&row, "times")?);
    }
    queue(connection, &leaders, named).await?;
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
