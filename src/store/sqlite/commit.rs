//! Commits: the only statements that write deliveries, events and quarantine.

use sqlx::{Connection, QueryBuilder, Row, Sqlite as Db, SqliteConnection};
use tokio::time::timeout;

use super::{Sqlite, connect, rows};
use crate::{
    batch::{Batch, FoldedEvent, FoldedQuarantine, Outcome},
    delivery::Delivery,
    event::Arrival,
    store::{StoreError, committed::Committed},
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
        self.write(Work::Commit(batch)).await?.outcomes(batch)
    }

    /// See [`crate::store::Store::release`].
    pub(super) async fn commit_release(&self, mut understood: Vec<Arrival>) -> Result<(), StoreError> {
        understood.retain(|arrival| arrival.meaning.is_ok());
        self.write(Work::Release(&understood)).await.map(drop)
    }

    /// Does work in one transaction. Whatever goes wrong, the connection goes with it: after some errors SQLite has
    /// rolled back by itself, and closing rolls back in any case.
    async fn write(&self, work: Work<'_>) -> Result<Committed, StoreError> {
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
enum Work<'a> {
    Commit(&'a Batch),
    Release(&'a [Arrival]),
}

impl Work<'_> {
    async fn run(self, connection: &mut SqliteConnection) -> Result<Committed, sqlx::Error> {
        // IMMEDIATE, so that it waits for another writer here rather than fails later.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let done = match self {
            Self::Commit(batch) => insert(connection, batch).await?,
            Self::Release(understood) => release(connection, understood).await?,
        };
        sqlx::query("COMMIT").execute(connection).await?;
        Ok(done)
    }

    /// About how many pages of the file this changes.
    fn pages(self) -> usize {
        match self {
            Self::Commit(batch) => 2 + 8 * batch.events.len() + 4 * batch.quarantine.len(),
            Self::Release(understood) => 2 + 12 * understood.len(),
        }
    }
}

async fn insert(connection: &mut SqliteConnection, batch: &Batch) -> Result<Committed, sqlx::Error> {
    let mut committed = Committed::default();
    for events in chunks(&batch.events) {
        for row in upsert_events(events).build().fetch_all(&mut *connection).await? {
            committed.event(rows::digest(&row, "digest")?, rows::count(&row, "times")?);
        }
    }
    for deliveries in chunks(&batch.deliveries) {
        for row in upsert_deliveries(deliveries).build().fetch_all(&mut *connection).await? {
            committed.state(rows::standing(&row, "standing")?);
        }
    }
    for quarantine in chunks(&batch.quarantine) {
        upsert_quarantine(quarantine).build().execute(&mut *connection).await?;
    }
    Ok(committed)
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
fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    const MOST: usize = 64;
    std::iter::from_fn(move || {
        let size = 1 << rows.len().min(MOST).checked_ilog2()?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

/// Evidence; of one event under two secrets, the lesser signature stays.
fn upsert_events(events: &[FoldedEvent]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO events (delivery_id, digest, body, signature, kind, status, source, received_at, times) ",
    );
    sql.push_values(events, |mut row, FoldedEvent { verified, event, times }| {
        row.push_bind(event.told.id.as_str())
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
            times = events.times + excluded.times,
            signature = min(events.signature, excluded.signature),
            received_at = min(events.received_at, excluded.received_at)
        RETURNING digest, times",
    );
    sql
}

/// States, folded into those known by the rule of [`Delivery::merge`]. Answers those that changed.
fn upsert_deliveries(deliveries: &[Delivery]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO deliveries (id, phone, carrier, status, cost, error_code, created_at, completed_at,
            received_at, listed_at, source, standing) ",
    );
    sql.push_values(deliveries, |mut row, told| {
        row.push_bind(told.id.as_str())
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
            .push_bind(told.standing.as_bytes().as_slice());
    });
    sql.push(ON_KNOWN_DELIVERY);
    sql
}

/// `iif(excluded.standing > …)`: the winner's fields, whole.
const ON_KNOWN_DELIVERY: &str = "
    ON CONFLICT (id) DO UPDATE SET
        phone        = iif(excluded.standing > deliveries.standing, excluded.phone, deliveries.phone),
        carrier      = iif(excluded.standing > deliveries.standing, excluded.carrier, deliveries.carrier),
        status       = iif(excluded.standing > deliveries.standing, excluded.status, deliveries.status),
        cost         = iif(excluded.standing > deliveries.standing, excluded.cost, deliveries.cost),
        error_code   = iif(excluded.standing > deliveries.standing, excluded.error_code, deliveries.error_code),
        completed_at = iif(excluded.standing > deliveries.standing, excluded.completed_at, deliveries.completed_at),
        source       = iif(excluded.standing > deliveries.standing, excluded.source, deliveries.source),
        standing     = max(excluded.standing, deliveries.standing),
        received_at  = CASE
            WHEN excluded.standing > deliveries.standing THEN excluded.received_at
            WHEN excluded.standing = deliveries.standing THEN min(excluded.received_at, deliveries.received_at)
            ELSE deliveries.received_at END,
        created_at   = coalesce(
            min(excluded.created_at, deliveries.created_at), excluded.created_at, deliveries.created_at)
    WHERE excluded.standing > deliveries.standing
        OR (excluded.standing = deliveries.standing AND excluded.received_at < deliveries.received_at)
        OR excluded.created_at < deliveries.created_at
        OR (excluded.created_at IS NOT NULL AND deliveries.created_at IS NULL)
    RETURNING standing";

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
