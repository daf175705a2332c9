//! Commits: in which order a transaction writes deliveries, older events and quarantine.

use std::collections::HashSet;

use sqlx::{Connection, Row, SqliteConnection};
use tokio::time::timeout;

use super::{
    Sqlite, connect,
    hours::{Claimed, set_back},
    rows,
    statements::{KNOWN, ROW, bind_rows, chunks, update, upsert_older, upsert_quarantine},
};
use crate::{
    batch::{Batch, FoldedEvent, Outcome},
    delivery::DeliveryId,
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
        // Of 4 KiB. A page that many commits have changed is copied once.
        const EVERY_PAGES: usize = 8_000;
        const LONG_LOG_PAGES: i64 = 14_000;
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
        understood.retain(|arrival| arrival.event().is_some());
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

    /// About how many pages of the file this changes: the row's own if it is long, and a few of its indexes.
    fn pages(self) -> usize {
        const PAGE: usize = 4096;
        let (members, bytes): (usize, usize) = match self {
            Self::Commit(batch) => {
                let events = batch.events.iter().map(|event| event.proof.body().len());
                let quarantine = batch.quarantine.iter().map(|body| body.verified.body().len());
                (batch.events.len() + batch.quarantine.len(), events.chain(quarantine).sum())
            }
            Self::Release(understood) => (2 * understood.len(), 0),
            Self::SumUp(claimed) => return claimed.pages(),
        };
        2 + 3 * members + bytes / PAGE
    }
}

async fn insert(connection: &mut SqliteConnection, batch: &Batch) -> Result<Committed, sqlx::Error> {
    let mut committed = Committed::nothing_of(batch);
    let mut leaders: Vec<_> = batch.leaders().collect();
    let known = known(connection, &leaders).await?;
    leaders.retain(|leader| !known.contains(leader.id()));
    set_back(connection, &to_set_back(leaders.iter().map(|row| row.event.told.listed_at()))).await?;
    for rows in chunks(&leaders) {
        bind_rows(rows).execute(&mut *connection).await?;
    }
    for row in leaders {
        committed.stands(batch, row.id(), row.times);
    }
    for quarantine in chunks(&batch.quarantine) {
        upsert_quarantine(quarantine).build().execute(&mut *connection).await?;
    }
    settle(connection, batch, committed).await
}

/// The deliveries that have a row. Nobody else writes meanwhile, and to ask for few rows costs less than to be told of
/// each one written.
async fn known(
    connection: &mut SqliteConnection,
    leaders: &[&FoldedEvent],
) -> Result<HashSet<DeliveryId>, sqlx::Error> {
    let mut known = HashSet::new();
    for rows in chunks(leaders) {
        let mut statement = sqlx::query(KNOWN.for_rows(rows.len()));
        for row in rows {
            statement = statement.bind(row.id().as_str());
        }
        for row in statement.fetch_all(&mut *connection).await? {
            known.insert(rows::id(&row, "id")?);
        }
    }
    Ok(known)
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
            .bind(arrival.digest().as_bytes().to_vec())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            released.push(Arrival { times: rows::count(&row, "times")?, ..arrival.clone() });
        }
    }
    insert(connection, &Batch::fold(released).0).await
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
}
