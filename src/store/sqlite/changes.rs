//! What changed: noted by commits, read by those who follow. One process has the file, and nobody else need be told.

use std::future;

use async_trait::async_trait;
use sqlx::{Error, QueryBuilder, Row, Sqlite as Db, SqliteConnection};

use super::{Sqlite, meaning, read::of, rows, statements::chunks};
use crate::{
    delivery::DeliveryId,
    store::{
        StoreError,
        changes::{Change, Noted, Notices, Position},
    },
};

/// Commits that are read at one time.
const MOST_COMMITS: i64 = 256;

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

impl Sqlite {
    /// See [`crate::store::Store::latest_change`].
    pub(super) async fn read_latest(&self) -> Result<Position, StoreError> {
        let sql = "SELECT MAX(position, (SELECT COALESCE(MAX(position), 0) FROM changes)) AS latest
            FROM changes_forgotten";
        let rows = self.ask(QueryBuilder::new(sql)).await?;
        let latest = rows.first().map(|row| row.try_get("latest")).transpose().map_err(meaning)?;
        Ok(Position::after(latest.unwrap_or_default()))
    }

    /// See [`crate::store::Store::is_kept`].
    pub(super) async fn read_is_kept(&self, position: Position) -> Result<bool, StoreError> {
        let mut sql = QueryBuilder::new("SELECT 1 FROM changes_forgotten WHERE position <= ");
        sql.push_bind(position.commit);
        Ok(!self.ask(sql).await?.is_empty() && position.commit <= self.read_latest().await?.commit)
    }

    /// See [`crate::store::Store::changes`].
    pub(super) async fn read_changes(&self, after: Position) -> Result<Vec<Change>, StoreError> {
        let mut noted = Noted::nothing();
        for row in self.ask(noted_since(after)).await? {
            let position = row.try_get("position").map_err(meaning)?;
            let ids: &str = row.try_get("ids").map_err(meaning)?;
            let ids: Vec<String> = serde_json::from_str(ids)
                .map_err(|_| StoreError::Corrupt("changes that are no array of ids".into()))?;
            let ids = ids.into_iter().filter_map(|id| DeliveryId::parse(id).ok());
            noted.add(position, ids, after);
        }
        let ids = noted.ids();
        let mut deliveries = Vec::with_capacity(ids.len());
        for ids in chunks(&ids) {
            for row in self.ask(of(ids)).await? {
                deliveries.push(rows::delivery(&row).map_err(meaning)?);
            }
        }
        Ok(noted.with(deliveries, |delivery| delivery.id.clone()))
    }
}

pub(super) fn noted_since(after: Position) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT position, ids FROM changes WHERE position >= ");
    sql.push_bind(after.commit).push(" ORDER BY position LIMIT ").push_bind(MOST_COMMITS);
    sql
}

/// Of the replicas that there are not.
pub(super) struct Silence;

#[async_trait]
impl Notices for Silence {
    async fn next(&mut self) -> Result<(), StoreError> {
        future::pending().await
    }
}
