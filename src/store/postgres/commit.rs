//! Commits: in which order transactions write deliveries, older events and quarantine.

use std::collections::HashMap;

use sqlx::{PgConnection, postgres::PgRow};

use super::{
    Postgres,
    changes::note,
    hours::set_back,
    polls::{any_sent, queue},
    rows,
    statements::{
        self, LOCK, QUARANTINE, UPDATE, UPSERT_OLDER, bind_older, bind_quarantine, bind_rows, digest,
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
        let committed = self.write(&self.writers, &self.commit(Step::Upsert(batch))).await?;
        if committed.is_all_of(batch) {
            return committed.outcomes();
        }
        self.write(&self.writers, &self.commit(Step::Settle(batch, &committed))).await?.outcomes()
    }

    /// See [`crate::store::Store::release`].
    pub(super) async fn commit_release(&self, mut understood: Vec<Arrival>) -> Result<(), StoreError> {
        understood.retain(|arrival| arrival.event().is_some());
        self.write(&self.writers, &self.commit(Step::Release(&understood))).await.map(drop)
    }
}

/// What is done in one transaction.
struct Commit<'a> {
    step: Step<'a>,
    begun: Timestamp,
    /// The hours to set back first, as far as its events tell.
    old_hours: Vec<Timestamp>,
    /// Whether it is noted what changes.
    noting: bool,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// Each delivery's leader, where it is the first or the same again.
    Upsert(&'a Batch),
    /// What that has left.
    Settle(&'a Batch, &'a Committed),
    Release(&'a [Arrival]),
}

impl Postgres {
    fn commit<'a>(&self, step: Step<'a>) -> Commit<'a> {
        let begun = self.clock();
        let old_hours = match step {
            Step::Upsert(batch) | Step::Settle(batch, _) => {
                to_set_back(batch.events.iter().map(|event| event.event.told.listed_at()), begun)
            }
            Step::Release(understood) => {
                let events = understood.iter().filter_map(Arrival::event);
                to_set_back(events.map(|event| event.told.listed_at()), begun)
            }
        };
        Commit { step, begun, old_hours, noting: self.options.changes }
    }
}

impl Work for Commit<'_> {
    type Done = Committed;

    /// What is there already is only counted again, and what was released is no longer in quarantine.
    fn is_repeatable(&self) -> bool {
        true
    }

    fn is_one_statement(&self) -> bool {
        matches!(self.step, Step::Upsert(batch) if self.old_hours.is_empty() && !any_sent(batch.leaders()))
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<Committed, sqlx::Error> {
        match self.step {
            Step::Upsert(batch) => self.upsert(connection, batch, named).await,
            Step::Settle(batch, committed) => self.settle(connection, batch, committed, named).await,
            Step::Release(understood) => self.release(connection, understood, named).await,
        }
    }
}

impl Commit<'_> {
    async fn upsert(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
        named: bool,
    ) -> Result<Committed, sqlx::Error> {
        let mut committed = Committed::nothing_of(batch);
        if batch.events.is_empty() {
            return Ok(committed);
        }
        set_back(connection, &self.old_hours, named).await?;
        let leaders: Vec<_> = batch.leaders().collect();
        let statement = statements::upsert(&leaders, self.noting).persistent(named);
        for row in statement.fetch_all(&mut *connection).await? {
            let times = rows::count(&row, "times")?;
            match rows::maybe_id(&row)? {
                Some(id) => committed.stands(batch, &id, times),
                None if usize::try_from(times) == Ok(leaders.len()) => committed.all_are_new(batch),
                // The rows follow.
                None => {}
            }
        }
        queue(connection, &leaders, named).await?;
        Ok(committed)
    }

    async fn settle(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
        committed: &Committed,
        named: bool,
    ) -> Result<Committed, sqlx::Error> {
        // Before the rows are locked, as in the first step, so that the two don't wait for each other.
        set_back(connection, &self.old_hours, named).await?;
        let mut settling = Settling::after(batch, committed);
        let ids: Vec<_> = committed.unsettled(batch).into_iter().map(|id| id.key().uuid()).collect();
        let mut listed = Vec::with_capacity(ids.len());
        for row in sqlx::query(LOCK).bind(ids).persistent(named).fetch_all(&mut *connection).await? {
            listed.push(rows::time(&row, "listed_at")?);
            settling.settle(rows::row(&row)?);
        }
        // Of an event that names another time than the one that its delivery is listed at.
        let more: Vec<_> = to_set_back(listed.into_iter(), self.begun)
            .into_iter()
            .filter(|hour| !self.old_hours.contains(hour))
            .collect();
        set_back(connection, &more, named).await?;
        let older = settling.older();
        if !older.is_empty() {
            let ids: HashMap<_, _> =
                older.iter().map(|event| (event.id().key(), event.id().clone())).collect();
            let kept: Vec<PgRow> = bind_older(sqlx::query(UPSERT_OLDER), &older)
                .persistent(named)
                .fetch_all(&mut *connection)
                .await?;
            for row in kept {
                let (key, digest) = (rows::key(&row, "delivery_id")?, rows::digest(&row, "digest")?);
                if let Some(id) = ids.get(&key) {
                    settling.kept(id, digest, rows::count(&row, "times")?);
                }
            }
        }
        let changed: Vec<_> = settling.changed.iter().collect();
        if !changed.is_empty() {
            bind_rows(sqlx::query(UPDATE), &changed).persistent(named).execute(&mut *connection).await?;
        }
        if self.noting {
            note(connection, &settling.shown, named).await?;
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
        &self,
        connection: &mut PgConnection,
        understood: &[Arrival],
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
        let committed = self.upsert(connection, &batch, named).await?;
        self.settle(connection, &batch, &committed, named).await
    }
}
