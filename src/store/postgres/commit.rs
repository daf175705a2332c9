//! Commits: in which order transactions write deliveries, older events and quarantine.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, PgConnection, postgres::PgRow};

use super::{
    Postgres,
    changes::note,
    connect::{IMPATIENCE, milliseconds},
    hours::set_back,
    polls::{any_sent, queue},
    rows,
    statements::{
        self, LOCK, LOCKED, QUARANTINE, UPDATE, UPSERT_OLDER, bind_older, bind_quarantine, bind_rows, digest,
    },
    write::Work,
};
use crate::{
    batch::Batch,
    clock::Timestamp,
    delivery::{DeliveryId, DeliveryKey},
    event::Arrival,
    store::{
        Fault, Kept, StoreError,
        committed::{Committed, Settling},
        hours::to_set_back,
    },
};

impl Postgres {
    /// See [`crate::store::Store::commit`].
    pub(super) async fn commit_batch(&self, batch: &Batch) -> Result<Vec<Kept>, StoreError> {
        let committed = self.write_step(Step::Upsert(batch)).await?;
        if committed.is_all_of(batch) {
            return Ok(committed.kept(batch));
        }
        let fault = match self.write_step(Step::Settle(batch, &committed)).await {
            Ok(settled) => return Ok(settled.kept(batch)),
            Err(StoreError::Contended(why)) => Fault::Contended(why),
            Err(StoreError::Refused(why) | StoreError::Corrupt(why)) => Fault::Refused(why),
            Err(StoreError::Unreadable(row)) => Fault::Refused(row.to_string()),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Broken(_))) => return Err(error),
        };
        Ok(committed.kept_but_for(batch, &fault))
    }

    /// Writes a step. A lock on a whole table, as a migration takes it, is waited for, since it is in everybody's way.
    async fn write_step(&self, step: Step<'_>) -> Result<Committed, StoreError> {
        let begun = Instant::now();
        loop {
            match self.write(&self.writers, &self.commit(step)).await {
                Err(StoreError::Contended(_))
                    if begun.elapsed() < self.options.commit_timeout && self.wait_for_tables().await? => {}
                done => return done,
            }
        }
    }

    /// Waits until no table is locked; answers whether one was.
    async fn wait_for_tables(&self) -> Result<bool, StoreError> {
        // An engine that has no such statement has no such locks either.
        let Err(StoreError::Contended(_)) = self.write(&self.writers, &Tables(None)).await else {
            return Ok(false);
        };
        let patience = self.options.commit_timeout.mul_f64(IMPATIENCE);
        match self.write(&self.writers, &Tables(Some(patience))).await {
            Ok(()) => Ok(true),
            Err(StoreError::Contended(why)) => {
                Err(StoreError::Unavailable(format!("a table is locked: {why}")))
            }
            Err(error) => Err(error),
        }
    }

    /// See [`crate::store::Store::locked_among`].
    pub(super) async fn find_locked(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
        // Not over the commits' connections: the next commit would find one that has not prepared its statements.
        self.write(&self.aside, &Locked(ids)).await
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

/// The locks on tables that commits take, taken at once or waited for.
struct Tables(Option<Duration>);

impl Work for Tables {
    type Done = ();

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, _: bool) -> Result<(), sqlx::Error> {
        let lock =
            "LOCK TABLE deliveries, older_events, quarantine, hours, polls, changes IN ROW EXCLUSIVE MODE";
        let sql = match self.0 {
            None => format!("{lock} NOWAIT"),
            Some(patience) => format!("SET LOCAL lock_timeout = {}; {lock}", milliseconds(patience)),
        };
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }
}

/// Looks for rows that another transaction has locked.
struct Locked<'a>(&'a [DeliveryId]);

impl Work for Locked<'_> {
    type Done = Vec<DeliveryId>;

    fn is_repeatable(&self) -> bool {
        true
    }

    fn is_one_statement(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<Self::Done, sqlx::Error> {
        let ids: HashMap<_, _> = self.0.iter().map(|id| (id.key(), id)).collect();
        let keys: Vec<_> = ids.keys().map(|key| key.uuid()).collect();
        let rows = sqlx::query(LOCKED).bind(keys).persistent(named).fetch_all(connection).await?;
        let keys = rows.iter().map(|row| rows::key(row, "id"));
        keys.filter_map(|key| key.map(|key| ids.get(&key).map(|id| (*id).clone())).transpose()).collect()
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
        // After the rows: whoever waits for one of them has not locked an hour, which many deliveries share.
        set_back(connection, &self.old_hours, named).await?;
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
        let mut settling = Settling::after(batch, committed);
        let ids: BTreeMap<_, _> = committed.unsettled(batch).into_iter().map(|id| (id.key(), id)).collect();
        let keys: Vec<_> = ids.keys().map(|key| key.uuid()).collect();
        let mut hours = self.old_hours.clone();
        for row in sqlx::query(LOCK).bind(keys).persistent(named).fetch_all(&mut *connection).await? {
            // An event may name another time than the one that its delivery is listed at.
            if let Some(listed) = settle_row(&mut settling, &ids, &row)? {
                hours.extend(to_set_back([listed].into_iter(), self.begun));
            }
        }
        hours.sort_unstable();
        hours.dedup();
        set_back(connection, &hours, named).await?;
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
        let settled = self.settle(connection, &batch, &committed, named).await?;
        // Nothing may leave quarantine that is not kept elsewhere.
        settled.require_all().map_err(|why| sqlx::Error::Decode(why.into()))?;
        Ok(settled)
    }
}

/// Merges a delivery's events into its row; answers when the delivery is listed, if the row can be read.
fn settle_row(
    settling: &mut Settling<'_>,
    ids: &BTreeMap<DeliveryKey, &DeliveryId>,
    row: &PgRow,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let Some(id) = ids.get(&rows::key(row, "id")?) else { return Ok(None) };
    let read = rows::row(row).and_then(|kept| Ok((rows::time(row, "listed_at")?, kept)));
    match read {
        Ok((listed, kept)) if kept.id() == *id => {
            settling.settle(kept);
            return Ok(Some(listed));
        }
        Ok((_, other)) => settling.unreadable(id, &format!("it is that of `{}`", other.id().as_str())),
        Err(error) => settling.unreadable(id, &error.to_string()),
    }
    Ok(None)
}
