//! Hours: which are set back, and how one is summed up. Why that is exact stands at [`crate::store::hours`].

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Postgres, meaning, rows,
    stats::{COUNTED, OF_ANY_STATUS, SECOND},
};
use crate::{
    clock::Timestamp,
    delivery::Status,
    store::{StoreError, hours::Due},
};

/// An hour of millions of deliveries takes seconds, and nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server ends what was given up here. It is told in each transaction, since behind pgbouncer no session is kept.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '110s'; SET LOCAL lock_timeout = '10s'";

/// Sets hours back, in a transaction that is about to change what is counted of them.
pub(super) async fn set_back(
    connection: &mut PgConnection,
    hours: &[Timestamp],
    named: bool,
) -> Result<(), sqlx::Error> {
    if hours.is_empty() {
        return Ok(());
    }
    let hours: Vec<_> = hours.iter().map(|hour| hour.date_time()).collect();
    sqlx::query(SET_BACK).bind(hours).persistent(named).execute(connection).await.map(drop)
}

/// Each is locked, also where it was set back before and stays as it is; then with a shared lock, so that commits do not
/// wait for each other. All are locked in the hours' order.
const SET_BACK: &str = "
WITH set_back AS (
    SELECT hour FROM hours WHERE hour = ANY($1::timestamptz[]) AND NOT summed AND claim IS NULL ORDER BY hour FOR SHARE)
INSERT INTO hours (hour, claim, summed) SELECT hour, NULL, FALSE FROM UNNEST($1::timestamptz[]) AS hour
WHERE hour NOT IN (SELECT hour FROM set_back)
ON CONFLICT (hour) DO UPDATE SET claim = NULL, summed = FALSE";

impl Postgres {
    /// See [`crate::store::Store::sum_up`]. With a connection of its own, so that neither commits nor questions wait.
    pub(super) async fn sum_up_next(&self, due: &Due) -> Result<Option<Timestamp>, StoreError> {
        let mut connection = self.connect().await?;
        let whole = async {
            let claim = Uuid::new_v4();
            let hour = claim_next(&mut connection, due, claim).await?;
            if let Some(hour) = hour {
                count(&mut connection, hour, claim).await?;
            }
            connection.close().await?;
            Ok(hour)
        };
        let late = |_| StoreError::Unavailable("an hour could not be summed up in time".into());
        timeout(PATIENCE, whole).await.map_err(late)?.map_err(meaning)
    }
}

async fn claim_next(
    connection: &mut PgConnection,
    due: &Due,
    claim: Uuid,
) -> Result<Option<Timestamp>, sqlx::Error> {
    sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
    let row = sqlx::query(AssertSqlSafe(next()))
        .bind(due.from.date_time())
        .bind(due.noted.date_time())
        .bind(due.until.date_time())
        .persistent(false)
        .fetch_optional(&mut *connection)
        .await?;
    let hour = row.map(|row| rows::time(&row, "hour")).transpose()?;
    if let Some(hour) = hour {
        sqlx::query(CLAIM)
            .bind(hour.date_time())
            .bind(claim.as_bytes().as_slice())
            .persistent(false)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(hour)
}

/// Counts, and keeps it if the claim still stands. That is asked last, so that the hour is not locked while its
/// deliveries are counted.
async fn count(connection: &mut PgConnection, hour: Timestamp, claim: Uuid) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
    for statement in ["DELETE FROM hour_counts WHERE hour = $1", &keep()] {
        let statement = sqlx::query(AssertSqlSafe(statement)).bind(hour.date_time());
        statement.persistent(false).execute(&mut *connection).await?;
    }
    let stands = sqlx::query("UPDATE hours SET summed = TRUE WHERE hour = $1 AND claim = $2")
        .bind(hour.date_time())
        .bind(claim.as_bytes().as_slice())
        .persistent(false)
        .execute(&mut *connection)
        .await?
        .rows_affected()
        == 1;
    sqlx::raw_sql(if stands { "COMMIT" } else { "ROLLBACK" }).execute(connection).await.map(drop)
}

const CLAIM: &str = "
INSERT INTO hours (hour, claim, summed) VALUES ($1, $2, FALSE)
ON CONFLICT (hour) DO UPDATE SET claim = EXCLUDED.claim WHERE NOT hours.summed";

/// The first hour of those that were set back, and of those that have deliveries and no row yet: from one hour with
/// deliveries to the next, for as long as they have one.
fn next() -> String {
    let first = |since: &str| {
        let first = Status::ALL.map(|status| {
            let status = status.as_str();
            format!(
                "(SELECT MIN(listed_at) FROM deliveries WHERE status = '{status}' AND listed_at >= {since})"
            )
        });
        format!("date_trunc('hour', LEAST({}) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'", first.join(", "))
    };
    format!(
        "WITH RECURSIVE walk (hour) AS (SELECT {}
            UNION ALL SELECT {} FROM walk
                WHERE walk.hour < $3 AND EXISTS (SELECT FROM hours WHERE hours.hour = walk.hour))
        SELECT hour FROM (
            SELECT hour FROM walk WHERE NOT EXISTS (SELECT FROM hours WHERE hours.hour = walk.hour)
            UNION ALL SELECT MIN(hour) FROM hours WHERE NOT summed AND hour >= $1) AS found
        WHERE hour < $3 ORDER BY hour LIMIT 1",
        first("GREATEST($1, $2)"),
        first("(walk.hour + interval '1 hour')"),
    )
}

/// A conflict is with another who sums up the same hour, and tells that the claim is gone: what whoever it is now with
/// finds here was committed before it was claimed, and deleted a moment ago.
fn keep() -> String {
    format!(
        "INSERT INTO hour_counts (hour, part, carrier, status, error_code, cost, second, longest, count)
        SELECT $1, row_number() OVER (), alike.* FROM (
            SELECT carrier, status, error_code, cost, {SECOND}, {COUNTED} {OF_ANY_STATUS}
            AND listed_at >= $1 AND listed_at < $1 + interval '1 hour' GROUP BY 1, 2, 3, 4, 5) AS alike
        ON CONFLICT (hour, part) DO NOTHING"
    )
}
