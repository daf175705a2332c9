//! Commits: in which order a transaction writes deliveries, older events and quarantine.

use std::collections::HashSet;

use sqlx::SqliteConnection;

use super::{
    Sqlite,
    changes::note,
    hours::set_back,
    polls::queue,
    rows,
    statements::{KNOWN, LAST, ROW, bind_rows, chunks, update, upsert_older, upsert_quarantine},
    write::Work,
};
use crate::{
    batch::{Batch, FoldedEvent},
    clock::Timestamp,
    delivery::DeliveryId,
    event::Arrival,
    store::{
        Kept, StoreError,
        committed::{Committed, Settling},
        hours::to_set_back,
    },
};

impl Sqlite {
    /// See [`crate::store::Store::commit`].
    pub(super) async fn commit_batch(&self, batch: &Batch) -> Result<Vec<Kept>, StoreError> {
        Ok(self.write(Commit(batch.clone())).await?.kept(batch))
    }

    /// See [`crate::store::Store::release`].
    pub(super) async fn commit_release(&self, mut understood: Vec<Arrival>) -> Result<(), StoreError> {
        understood.retain(|arrival| arrival.event().is_some());
        self.write(Release(understood)).await.map(drop)
    }
}

/// A batch's commit.
struct Commit(Batch);

impl Work for Commit {
    type Done = Committed;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<Committed, sqlx::Error> {
        insert(connection, &self.0).await
    }

    /// A row's own pages if it is long, and a few of its indexes.
    fn pages(&self) -> usize {
        const PAGE: usize = 4096;
        let Batch { events, quarantine } = &self.0;
        let bytes: usize = events.iter().map(|event| event.proof.body().len()).sum();
        let more: usize = quarantine.iter().map(|body| body.verified.body().len()).sum();
        2 + 3 * (events.len() + quarantine.len()) + (bytes + more) / PAGE
    }
}

/// What leaves quarantine.
struct Release(Vec<Arrival>);

impl Work for Release {
    type Done = Committed;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<Committed, sqlx::Error> {
        release(connection, &self.0).await
    }

    fn pages(&self) -> usize {
        2 + 6 * self.0.len()
    }
}

async fn insert(connection: &mut SqliteConnection, batch: &Batch) -> Result<Committed, sqlx::Error> {
    let mut committed = Committed::nothing_of(batch);
    let mut leaders: Vec<_> = batch.leaders().collect();
    let last = sqlx::query_scalar(LAST).fetch_one(&mut *connection).await?;
    let mut new = 0;
    for rows in chunks(&leaders) {
        new += bind_rows(rows).execute(&mut *connection).await?.rows_affected();
    }
    if new < leaders.len() as u64 {
        let known = known(connection, &leaders, last).await?;
        leaders.retain(|leader| !known.contains(leader.id()));
    }
    set_back(
        connection,
        &to_set_back(leaders.iter().map(|row| row.event.told.listed_at()), Timestamp::now()),
    )
    .await?;
    queue(connection, &leaders).await?;
    for row in &leaders {
        committed.stands(batch, row.id(), row.times);
    }
    for quarantine in chunks(&batch.quarantine) {
        upsert_quarantine(quarantine).build().execute(&mut *connection).await?;
    }
    let settling = settle(connection, batch, &committed).await?;
    let shown: Vec<_> = leaders.iter().map(|row| row.id()).chain(&settling.shown).collect();
    note(connection, &shown).await?;
    Ok(settling.committed())
}

/// The deliveries that had a row before: no later one than the last. Most batches have none, and never ask.
async fn known(
    connection: &mut SqliteConnection,
    leaders: &[&FoldedEvent],
    last: i64,
) -> Result<HashSet<DeliveryId>, sqlx::Error> {
    let mut known = HashSet::new();
    for rows in chunks(leaders) {
        let mut statement = sqlx::query(KNOWN.for_rows(rows.len()));
        for row in rows {
            statement = statement.bind(row.id().as_str());
        }
        for row in statement.bind(last).fetch_all(&mut *connection).await? {
            known.insert(rows::id(&row, "id")?);
        }
    }
    Ok(known)
}

/// Merges the events that met another one of their delivery.
async fn settle<'a>(
    connection: &mut SqliteConnection,
    batch: &'a Batch,
    committed: &Committed,
) -> Result<Settling<'a>, sqlx::Error> {
    let mut settling = Settling::after(batch, committed);
    let mut listed = Vec::new();
    for id in committed.unsettled(batch) {
        let row = sqlx::query(ROW).bind(id.as_str()).fetch_one(&mut *connection).await?;
        match rows::row(&row).and_then(|kept| Ok((rows::time(&row, "listed_at")?, kept))) {
            Ok((time, kept)) => {
                listed.push(time);
                settling.settle(kept);
            }
            Err(error) => settling.unreadable(id, &error.to_string()),
        }
    }
    set_back(connection, &to_set_back(listed.into_iter(), Timestamp::now())).await?;
    let mut kept = Vec::new();
    for events in chunks(&settling.older()) {
        kept.extend(upsert_older(events).build().fetch_all(&mut *connection).await?);
    }
    for row in kept {
        let (id, digest) = (rows::id(&row, "delivery_id")?, rows::digest(&row, "digest")?);
        settling.kept(&id, digest, rows::count(&row, "times")?);
    }
    for row in &settling.changed {
        update(row).build().execute(&mut *connection).await?;
    }
    Ok(settling)
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
    let committed = insert(connection, &Batch::fold(released).0).await?;
    // Nothing may leave quarantine that is not kept elsewhere.
    committed.require_all().map_err(|why| sqlx::Error::Decode(why.into()))?;
    Ok(committed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{
        batch::Outcome,
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
        let connection = slot.connection.as_mut().unwrap();
        sqlx::raw_sql("PRAGMA max_page_count = 1").execute(connection).await.unwrap();
        drop(slot);
        let refused = store.commit(&batch(1..300)).await;
        assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("full")), "{refused:?}");
        assert!(store.writer.lock().await.connection.is_none(), "no doubtful connection is kept");
        // The limit went with the connection: there is space again.
        assert_eq!(
            store.commit(&batch(0..300)).await.unwrap().iter().filter(|it| **it == Ok(Outcome::Seen)).count(),
            1
        );
    }
}
