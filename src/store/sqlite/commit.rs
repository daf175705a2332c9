//! Commits: the only statements that write deliveries, older events and quarantine.

use sqlx::{Connection, QueryBuilder, Row, Sqlite as Db, SqliteConnection};
use tokio::time::timeout;

use super::{
    Sqlite, connect,
    hours::{Claimed, set_back},
    rows,
};
use crate::{
    batch::{Batch, FoldedEvent, FoldedQuarantine, Outcome},
    event::Arrival,
    store::{
        StoreError,
        committed::{Committed, Settling},
        hours::to_set_back,
    },
};

/// The one connection that writes, and about how many pages it has left to copy from the log into the file.
pub(super) struct Writer {
    connection: SqliteConnection,
    pages: usize,
}

impl Writer {
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self { connection, pages: 0 }
    }

    /// Closes the connection, in which SQLite copies the log into the file.
    pub(super) async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the store was not closed well; what was committed is kept");
        }
    }

    /// Copies the log into the file now and then. SQLite would do it by itself, but keep it a secret if the disk
    /// fails at it; and it would never begin the log anew while there is always some reader.
    async fn checkpoint(&mut self) -> Result<(), sqlx::Error> {
        const EVERY_PAGES: usize = 4_000;
        const LONG_LOG_PAGES: i64 = 16_000;
        if self.pages < EVERY_PAGES {
            return Ok(());
        }
        self.pages = 0;
        let passive = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut self.connection).await?;
        if passive.try_get::<i64, _>(1)? > LONG_LOG_PAGES {
            // Waits for those that read the log now; new readers already do without.
            sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(&mut self.connection).await?;
        }
        Ok(())
    }
}

impl Sqlite {
    /// See [`crate::store::Store::commit`].
    pub(super) async fn commit_batch(&self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        self.write(Work::Commit(batch)).await?.outcomes()
    }

    /// See [`crate::store::Store::release`].
    pub(super) async fn commit_release(&self, mut understood: Vec<Arrival>) -> Result<(), StoreError> {
        understood.retain(|arrival| arrival.meaning.is_ok());
        self.write(Work::Release(&understood)).await.map(drop)
    }

    /// Does work in one transaction. Whatever goes wrong, the connection goes with it: after some errors SQLite has
    /// rolled back by itself, and closing rolls back in any case.
    pub(super) async fn write(&self, work: Work<'_>) -> Result<Committed, StoreError> {
        self.trust()?;
        let whole = async {
            let mut slot = self.writer.lock().await;
            let mut writer = match slot.take() {
                Some(writer) => writer,
                None => Writer::new(connect::writer(&self.options, &self.file).await?),
            };
            let done = work.run(&mut writer.connection).await.map_err(|error| self.judge(error))?;
            writer.pages += work.pages();
            match writer.checkpoint().await {
                Ok(()) => *slot = Some(writer),
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

/// What is done in one transaction.
#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    Commit(&'a Batch),
    Release(&'a [Arrival]),
    /// A step of it; no event is committed by it.
    SumUp(Claimed<'a>),
}

impl Work<'_> {
    async fn run(self, connection: &mut SqliteConnection) -> Result<Committed, sqlx::Error> {
        // IMMEDIATE, so that it waits for another writer here rather than fails later.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let done = match self {
            Self::Commit(batch) => insert(connection, batch).await?,
            Self::Release(understood) => release(connection, understood).await?,
            Self::SumUp(claimed) => {
                claimed.run(connection).await?;
                Committed::nothing_of(&Batch::default())
            }
        };
        sqlx::query("COMMIT").execute(connection).await?;
        Ok(done)
    }

    /// About how many pages of the file this changes.
    fn pages(self) -> usize {
        match self {
            Self::Commit(batch) => 2 + 8 * batch.events.len() + 4 * batch.quarantine.len(),
            Self::Release(understood) => 2 + 12 * understood.len(),
            Self::SumUp(claimed) => claimed.pages(),
        }
    }
}

async fn insert(connection: &mut SqliteConnection, batch: &Batch) -> Result<Committed, sqlx::Error> {
    let mut committed = Committed::nothing_of(batch);
    let leaders: Vec<_> = batch.leaders().collect();
    set_back(connection, &to_set_back(leaders.iter().map(|row| row.event.told.listed_at()))).await?;
    for rows in chunks(&leaders) {
        for row in upsert(rows).build().fetch_all(&mut *connection).await? {
            committed.stands(batch, &rows::id(&row, "id")?, rows::count(&row, "times")?);
        }
    }
    for quarantine in chunks(&batch.quarantine) {
        upsert_quarantine(quarantine).build().execute(&mut *connection).await?;
    }
    settle(connection, batch, committed).await
}

/// Merges the events that met another one of their delivery.
async fn settle(
    connection: &mut SqliteConnection,
    batch: &Batch,
    committed: Committed,
) -> Result<Committed, sqlx::Error> {
    let mut settling = Settling::after(batch, &committed);
    let mut listed = Vec::new();
    for id in committed.unsettled(batch) {
        let row = sqlx::query(ROW).bind(id.as_str()).fetch_one(&mut *connection).await?;
        listed.push(rows::time(&row, "listed_at")?);
        settling.settle(rows::row(&row)?);
    }
    set_back(connection, &to_set_back(listed.into_iter())).await?;
    let mut kept = Vec::new();
    for events in chunks(&settling.older()) {
        kept.extend(upsert_older(events).build().fetch_all(&mut *connection).await?);
    }
    for row in kept {
        let (id, digest) = (rows::id(&row, "delivery_id")?, rows::digest(&row, "digest")?);
        settling.kept(id, digest, rows::count(&row, "times")?);
    }
    for row in &settling.changed {
        update(row).build().execute(&mut *connection).await?;
    }
    Ok(settling.committed())
}

async fn release(
    connection: &mut SqliteConnection,
    understood: &[Arrival],
) -> Result<Committed, sqlx::Error> {
    let mut released = Vec::with_capacity(understood.len());
    for arrival in understood {
        let row = sqlx::query("DELETE FROM quarantine WHERE digest = ? RETURNING times")
            .bind(arrival.verified.digest().as_bytes().as_slice())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            released.push(Arrival { times: rows::count(&row, "times")?, ..arrival.clone() });
        }
    }
    insert(connection, &Batch::fold(released).0).await
}

/// Rows for one statement: as many as the greatest power of two that there are, so that few different statements
/// are prepared, and each once.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    const MOST: usize = 64;
    std::iter::from_fn(move || {
        let size = 1 << rows.len().min(MOST).checked_ilog2()?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

/// Each delivery's leader, where it is the first or the same again. A row that holds another event is left as it is,
/// and missing in the answer.
fn upsert(rows: &[&FoldedEvent]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO deliveries AS known (id, phone, carrier, status, cost, error_code, created_at, completed_at,
            received_at, listed_at, source, standing, kind, body, signature, times) ",
    );
    sql.push_values(rows, |mut values, row| {
        let told = &row.event.told;
        values
            .push_bind(told.id.as_str())
            .push_bind(told.phone.reveal())
            .push_bind(told.carrier.as_str())
            .push_bind(told.status.as_str())
            .push_bind(told.cost.to_string())
            .push_bind(told.error_code.as_deref())
            .push_bind(told.created_at.map(|time| time.micros()))
            .push_bind(told.completed_at.map(|time| time.micros()))
            .push_bind(told.received_at.micros())
            .push_bind(told.listed_at().micros())
            .push_bind(told.source.as_str())
            .push_bind(told.standing.as_bytes().as_slice())
            .push_bind(row.event.kind.as_str())
            .push_bind(row.verified.body().as_ref())
            .push_bind(row.verified.signature().as_bytes().as_slice())
            .push_bind(rows::integer(row.times));
    });
    sql.push(
        " ON CONFLICT (id) DO UPDATE SET
            times = known.times + excluded.times,
            signature = min(known.signature, excluded.signature),
            received_at = min(known.received_at, excluded.received_at)
        WHERE known.standing = excluded.standing
        RETURNING id, times",
    );
    sql
}

const ROW: &str = "
    SELECT id, phone, carrier, status, cost, error_code, created_at, completed_at, received_at, listed_at, source,
        standing, kind, body, signature, substr(standing, 11) AS digest, times
    FROM deliveries WHERE id = ?";

/// Writes a row anew: all but its id, and the time by which it is listed.
fn update(row: &FoldedEvent) -> QueryBuilder<Db> {
    let told = &row.event.told;
    let mut sql = QueryBuilder::new("UPDATE deliveries SET ");
    let mut set = sql.separated(", ");
    set.push("phone = ").push_bind_unseparated(told.phone.reveal());
    set.push("carrier = ").push_bind_unseparated(told.carrier.as_str());
    set.push("status = ").push_bind_unseparated(told.status.as_str());
    set.push("cost = ").push_bind_unseparated(told.cost.to_string());
    set.push("error_code = ").push_bind_unseparated(told.error_code.as_deref());
    set.push("created_at = ").push_bind_unseparated(told.created_at.map(|time| time.micros()));
    set.push("completed_at = ").push_bind_unseparated(told.completed_at.map(|time| time.micros()));
    set.push("received_at = ").push_bind_unseparated(told.received_at.micros());
    set.push("source = ").push_bind_unseparated(told.source.as_str());
    set.push("standing = ").push_bind_unseparated(told.standing.as_bytes().as_slice());
    set.push("kind = ").push_bind_unseparated(row.event.kind.as_str());
    set.push("body = ").push_bind_unseparated(row.verified.body().as_ref());
    set.push("signature = ").push_bind_unseparated(row.verified.signature().as_bytes().as_slice());
    set.push("times = ").push_bind_unseparated(rows::integer(row.times));
    sql.push(" WHERE id = ").push_bind(told.id.as_str());
    sql
}

/// Evidence of events that did not win; of one event under two secrets, the lesser signature stays.
fn upsert_older(events: &[&FoldedEvent]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO older_events AS known
            (delivery_id, digest, body, signature, kind, status, source, received_at, times) ",
    );
    sql.push_values(events, |mut values, FoldedEvent { verified, event, times }| {
        values
            .push_bind(event.told.id.as_str())
            .push_bind(verified.digest().as_bytes().as_slice())
            .push_bind(verified.body().as_ref())
            .push_bind(verified.signature().as_bytes().as_slice())
            .push_bind(event.kind.as_str())
            .push_bind(event.told.status.as_str())
            .push_bind(event.told.source.as_str())
            .push_bind(event.told.received_at.micros())
            .push_bind(rows::integer(*times));
    });
    sql.push(
        " ON CONFLICT (delivery_id, digest) DO UPDATE SET
            times = known.times + excluded.times,
            signature = min(known.signature, excluded.signature),
            received_at = min(known.received_at, excluded.received_at)
        RETURNING delivery_id, digest, times",
    );
    sql
}

/// What was not understood; known already, it is only counted.
fn upsert_quarantine(quarantine: &[FoldedQuarantine]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO quarantine (digest, body, signature, reason, detail, received_at, times) ",
    );
    sql.push_values(quarantine, |mut row, FoldedQuarantine { verified, received_at, reason, times }| {
        row.push_bind(verified.digest().as_bytes().as_slice())
            .push_bind(verified.body().as_ref())
            .push_bind(verified.signature().as_bytes().as_slice())
            .push_bind(reason.code())
            .push_bind(reason.to_string())
            .push_bind(received_at.micros())
            .push_bind(rows::integer(*times));
    });
    sql.push(" ON CONFLICT (digest) DO UPDATE SET times = quarantine.times + excluded.times");
    sql
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{
        clock::Timestamp,
        signature::{Digest, Signature, Verified},
        store::{Store as _, sqlite::Options},
    };

    fn batch(deliveries: std::ops::Range<u32>) -> Batch {
        let arrival = |n| {
            let body = format!(
                r#"{{"type":"otp","id":"{n}","phone":"+84981234567","carrier":"x","status":"sent","cost":0}}"#
            );
            let body = Bytes::from(body);
            let verified =
                Verified::from_evidence(body.clone(), Digest::of(&body), Signature::from_bytes([0; 32]));
            Arrival::understand(verified, Timestamp::from_micros(0).unwrap())
        };
        Batch::fold(deliveries.map(arrival).collect()).0
    }

    /// A database that may not grow fails as one on a full disk does: SQLite rolls back by itself.
    #[tokio::test]
    async fn a_full_disk_refuses_and_recovers() {
        let folder = tempfile::tempdir().unwrap();
        let time = Duration::from_secs(10);
        let folder = folder.path().to_owned();
        let options = Options { folder, read_connections: 1, commit_timeout: time, read_timeout: time };
        let store = Sqlite::open(&options).await.unwrap();
        store.migrate().await.unwrap();
        store.commit(&batch(0..1)).await.unwrap();
        let mut slot = store.writer.lock().await;
        let connection = &mut slot.as_mut().unwrap().connection;
        sqlx::raw_sql("PRAGMA max_page_count = 1").execute(connection).await.unwrap();
        drop(slot);
        let refused = store.commit(&batch(1..300)).await;
        assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("full")), "{refused:?}");
        assert!(store.writer.lock().await.is_none(), "no doubtful connection is kept");
        // The limit went with the connection: there is space again.
        assert_eq!(
            store.commit(&batch(0..300)).await.unwrap().iter().filter(|it| **it == Outcome::Seen).count(),
            1
        );
    }

    #[test]
    fn chunks_have_few_sizes_and_miss_no_row() {
        for length in 0..300 {
            let rows: Vec<usize> = (0..length).collect();
            assert_eq!(chunks(&rows).flatten().copied().collect::<Vec<_>>(), rows);
            assert!(chunks(&rows).all(|chunk| chunk.len().is_power_of_two() && chunk.len() <= 64));
        }
    }
}
