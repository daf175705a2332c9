//! Epochs of positions: when one ends, and how positions go on where a restored store meets lower transaction ids.
//!
//! The statements that note changes compare when the server was started with what stands here, so that none is ever noted
//! under an epoch that is over.

use sqlx::{AssertSqlSafe, Error, PgConnection, Row, postgres::PgDatabaseError};

use super::{Postgres, sqlstate};
use crate::store::{
    StoreError,
    changes::{ENDED_EPOCHS, new_epoch},
};

/// The position of the transaction that notes it. None when the server is not the one that the epoch began on: behind
/// pgbouncer a connection outlives it.
macro_rules! position {
    () => {
        "pg_current_xact_id()::text::bigint
            + (SELECT shift FROM change_epoch WHERE id = 1 AND started_at = pg_postmaster_start_time())"
    };
}
pub(super) use position;

/// Whether a change could not be noted because its epoch is over. On a new connection the next one has begun.
pub(super) fn is_over(error: &Error) -> bool {
    const NOT_NULL: &str = "23502";
    let column =
        |error: &PgDatabaseError| error.table() == Some("changes") && error.column() == Some("position");
    sqlstate(error).as_deref() == Some(NOT_NULL)
        && error.as_database_error().and_then(|error| error.try_downcast_ref()).is_some_and(column)
}

impl Postgres {
    /// Begins an epoch if the server, or the database, is not the one of the last. One round trip.
    ///
    /// No transaction that is under way now, or begins later, has an id below `xmin`: so none gets a position up to `last`.
    pub(super) async fn begin_epoch(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let epoch = new_epoch();
        let begin = format!(
            "WITH here AS (SELECT oid::bigint AS database_id FROM pg_database WHERE datname = current_database()),
            former AS (
                SELECT former.epoch, here.database_id FROM change_epoch AS former, here
                WHERE former.id = 1
                AND (former.started_at <> pg_postmaster_start_time() OR former.database_id <> here.database_id)
                FOR UPDATE OF former),
            last AS (
                SELECT GREATEST(position, (SELECT MAX(position) FROM changes)) AS position
                FROM changes_forgotten WHERE id = 1),
            ended AS (
                INSERT INTO change_epochs_ended (epoch, position, ended_at)
                SELECT former.epoch, last.position, now() FROM former, last),
            expired AS (
                DELETE FROM change_epochs_ended WHERE EXISTS (SELECT FROM former) AND epoch IN (
                    SELECT epoch FROM change_epochs_ended ORDER BY ended_at DESC OFFSET {ENDED_EPOCHS} - 1))
            UPDATE change_epoch SET epoch = {epoch}, started_at = pg_postmaster_start_time(),
                database_id = former.database_id,
                shift = GREATEST(shift,
                    last.position + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
            FROM former, last WHERE id = 1 RETURNING change_epoch.shift"
        );
        let begun = self.in_time(async {
            match sqlx::raw_sql(AssertSqlSafe(begin)).fetch_optional(connection).await {
                // The schema is not there yet.
                Err(error) if sqlstate(&error).as_deref() == Some("42P01") => Ok(None),
                begun => begun?.map(|row| row.try_get::<i64, _>("shift")).transpose(),
            }
        });
        if let Some(shift) = begun.await? {
            tracing::info!(shift, "an epoch of the stream's positions has begun");
        }
        Ok(())
    }
}
