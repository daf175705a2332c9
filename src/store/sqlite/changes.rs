//! What changed: noted by commits, read by those who follow. One process has the file, and nobody else need be told.

use std::{future, time::Duration};

use async_trait::async_trait;
use sqlx::{Error, QueryBuilder, Row, Sqlite as Db, SqliteConnection, sqlite::SqliteRow};

use super::{Sqlite, meaning, rows};
use crate::{
    delivery::DeliveryId,
    store::{
        StoreError,
        changes::{Change, ChangePage, ENDED_EPOCHS, Notices, PAGE_BYTES, PAGE_CHANGES, Position, new_epoch},
        unreadable::{Table, UnreadableRow, read},
    },
};

/// Notes what is shown otherwise since this transaction.
pub(super) async fn note(connection: &mut SqliteConnection, ids: &[&DeliveryId]) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids = serde_json::to_string(ids).expect("texts are JSON");
    sqlx::query(NOTE).bind(ids).execute(connection).await.map(drop)
}

const NOTE: &str =
    "INSERT INTO changes (ids, noted_at) VALUES (?, CAST(unixepoch('subsec') * 1000000 AS INTEGER))";

const END_EPOCH: &str = "
INSERT INTO change_epochs_ended (epoch, position, ended_at)
SELECT epoch, MAX(position, (SELECT COALESCE(MAX(position), 0) FROM changes)),
    CAST(unixepoch('subsec') * 1000000 AS INTEGER)
FROM change_epoch, changes_forgotten";

const FORGET_EPOCHS: &str = "
DELETE FROM change_epochs_ended WHERE epoch IN (
    SELECT epoch FROM change_epochs_ended ORDER BY ended_at DESC LIMIT -1 OFFSET ?)";

/// Begins an epoch of positions, as the first thing that a connection writes: the file may be an older copy, put in place
/// of a newer one since the last was opened.
pub(super) async fn begin_epoch(connection: &mut SqliteConnection) -> Result<(), Error> {
    sqlx::query(END_EPOCH).execute(&mut *connection).await?;
    sqlx::query(FORGET_EPOCHS).bind(ENDED_EPOCHS).execute(&mut *connection).await?;
    let begin = sqlx::query("UPDATE change_epoch SET epoch = ?").bind(new_epoch());
    begin.execute(connection).await.map(drop)
}

impl Sqlite {
    /// See [`crate::store::Store::latest_change`].
    pub(super) async fn read_latest(&self) -> Result<Position, StoreError> {
        let sql = "SELECT epoch, MAX(position, (SELECT COALESCE(MAX(position), 0) FROM changes)) AS latest
            FROM change_epoch, changes_forgotten";
        let rows = self.ask(QueryBuilder::new(sql)).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("no epoch of positions".into()))?;
        let latest = || Ok(Position::after(row.try_get("epoch")?, row.try_get("latest")?));
        latest().map_err(meaning)
    }

    /// See [`crate::store::Store::changes`].
    pub(super) async fn read_changes(&self, after: Position) -> Result<Option<ChangePage>, StoreError> {
        self.page(&self.ask(page_after(after)).await?, after).map_err(meaning)
    }
}

/// The text of the page's deliveries before this one, their ids included.
const BYTES_BEFORE: &str = "SUM(octet_length(concat(changed, carrier, error_code)))
    OVER (ORDER BY position, seen ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)";

/// A note that is no array of ids is told as one change that can't be read.
const IDS: &str = "json_each(CASE WHEN json_valid(ids) THEN ids ELSE '[null]' END)";

/// Everything about a page in one snapshot: whether all since the position is kept, the changes, and their deliveries.
fn page_after(after: Position) -> QueryBuilder<Db> {
    let most = i64::try_from(PAGE_CHANGES).unwrap_or(i64::MAX);
    let mut sql = QueryBuilder::new("WITH kept AS (SELECT epoch, COALESCE(");
    sql.push_bind(after.commit).push(" BETWEEN position AND CASE WHEN epoch = ").push_bind(after.epoch);
    sql.push(
        " THEN MAX(position, (SELECT COALESCE(MAX(position), 0) FROM changes)) ELSE (
            SELECT ended.position FROM change_epochs_ended AS ended WHERE ended.epoch = ",
    );
    sql.push_bind(after.epoch).push(") END, FALSE) AS kept FROM change_epoch, changes_forgotten)");
    // Both are read in order: the commits by their key, the ids as they stand in the array.
    sql.push(
        ", noted AS (SELECT position, key + 1 AS seen, value AS changed FROM (
            SELECT position, ids FROM changes WHERE position >= ",
    )
    .push_bind(after.commit);
    sql.push(" ORDER BY position LIMIT ").push_bind(most).push(") CROSS JOIN ").push(IDS);
    sql.push(" WHERE position > ").push_bind(after.commit).push(" OR key >= ").push_bind(after.seen());
    sql.push(" LIMIT ").push_bind(most);
    sql.push("), page AS (SELECT epoch, kept, position, seen, changed, ");
    sql.push(rows::DELIVERY).push(", ").push(BYTES_BEFORE);
    sql.push(
        " AS before FROM kept LEFT JOIN noted ON kept LEFT JOIN deliveries ON id = changed)
        SELECT * FROM page WHERE COALESCE(before, 0) < ",
    );
    sql.push_bind(i64::try_from(PAGE_BYTES).unwrap_or(i64::MAX)).push(" ORDER BY position, seen");
    sql
}

impl Sqlite {
    fn page(&self, rows: &[SqliteRow], after: Position) -> Result<Option<ChangePage>, Error> {
        let Some(first) = rows.first() else { return Ok(None) };
        let epoch = first.try_get("epoch")?;
        if !first.try_get::<bool, _>("kept")? {
            return Ok(None);
        }
        // One writer: whatever is committed can be read.
        let mut page = ChangePage::empty(Position::after(epoch, after.commit), Duration::ZERO);
        for row in rows {
            let Some(commit) = row.try_get("position")? else { break };
            let seen = rows::value("seen", row, |seen: i64| u32::try_from(seen).ok())?;
            page.end = Position::within(epoch, commit, seen);
            if row.try_get::<Option<&str>, _>("changed")?.is_none() {
                self.left_out.note(&UnreadableRow::new(Table::Changes, commit.to_string().as_bytes(), "ids"));
            } else if row.try_get::<Option<&[u8]>, _>("id")?.is_some() {
                // One that was deleted since is nobody's any more.
                let change = read(Table::Deliveries, change(row, page.end), || rows::raw_id(row))?;
                page.changes.extend(self.left_out.readable([change]));
            }
        }
        Ok(Some(page))
    }
}

fn change(row: &SqliteRow, position: Position) -> Result<Change, Error> {
    Ok(Change { position, listed_at: rows::time(row, "listed_at")?, delivery: rows::delivery(row)? })
}

/// Of the replicas that there are not.
pub(super) struct Silence;

#[async_trait]
impl Notices for Silence {
    async fn next(&mut self) -> Result<(), StoreError> {
        future::pending().await
    }
}
