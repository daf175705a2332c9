//! Hours: which are set back, and how one is summed up. Why that is exact stands at [`crate::store::hours`].

use std::time::Duration;

use sqlx::{Error, QueryBuilder, Row, Sqlite as Db, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Sqlite, meaning, rows, statements::chunks, stats::counts_of_hour, write::Work};
use crate::{
    clock::Timestamp,
    delivery::Status,
    store::{StoreError, hours::Due},
};

/// An hour of millions of deliveries takes a minute, and nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Sets hours back, in a transaction that is about to change what is counted of them.
pub(super) async fn set_back(connection: &mut SqliteConnection, hours: &[Timestamp]) -> Result<(), Error> {
    for hour in hours {
        sqlx::query(SET_BACK).bind(hour.micros()).execute(&mut *connection).await?;
    }
    Ok(())
}

const SET_BACK: &str = "INSERT INTO hours (hour, claim, summed) VALUES (?, NULL, FALSE)
    ON CONFLICT (hour) DO UPDATE SET claim = NULL, summed = FALSE WHERE summed OR claim IS NOT NULL";

/// What the writer's connection does of summing up, a short transaction each.
enum Step {
    Claim,
    /// Keeps the counts if the claim still stands.
    Keep(Vec<Alike>),
}

/// An hour that is being summed up.
struct Claimed {
    hour: Timestamp,
    claim: Uuid,
    step: Step,
}

/// Deliveries of an hour that are alike: a row of its counts. Texts are kept as their bytes are, which in a broken row may
/// be none of a text.
struct Alike {
    part: i64,
    carrier: Option<Vec<u8>>,
    status: String,
    error_code: Option<Vec<u8>>,
    cost: Option<Vec<u8>>,
    second: Option<i64>,
    longest: Option<i64>,
    count: i64,
}

impl Sqlite {
    /// See [`crate::store::Store::sum_up`]. What takes long is done by a connection that only reads.
    pub(super) async fn sum_up_next(&self, due: &Due) -> Result<Option<Timestamp>, StoreError> {
        let found = self.ask_within(PATIENCE, next(due)).await?;
        let Some(hour) = found.first().map(|row| rows::time(row, "hour")).transpose().map_err(meaning)?
        else {
            return Ok(None);
        };
        let claim = Uuid::new_v4();
        self.write(Claimed { hour, claim, step: Step::Claim }).await?;
        let counted = self.ask_within(PATIENCE, counts_of_hour(hour)).await?;
        let counted = (1..).zip(&counted).map(|(part, row)| alike(part, row)).collect::<Result<Vec<_>, _>>();
        let step = Step::Keep(counted.map_err(meaning)?);
        self.write(Claimed { hour, claim, step }).await?;
        Ok(Some(hour))
    }
}

impl Work for Claimed {
    type Done = ();

    async fn run(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let (hour, claim) = (self.hour.micros(), self.claim.as_bytes().as_slice());
        let Step::Keep(counts) = &self.step else {
            return sqlx::query(CLAIM).bind(hour).bind(claim).execute(connection).await.map(drop);
        };
        let stands = sqlx::query("UPDATE hours SET summed = TRUE WHERE hour = ? AND claim = ?")
            .bind(hour)
            .bind(claim)
            .execute(&mut *connection)
            .await?
            .rows_affected()
            == 1;
        if stands {
            let delete = "DELETE FROM hour_counts WHERE hour = ?";
            sqlx::query(delete).bind(hour).execute(&mut *connection).await?;
            for counts in chunks(counts) {
                insert(hour, counts).build().execute(&mut *connection).await?;
            }
        }
        Ok(())
    }

    fn pages(&self) -> usize {
        match &self.step {
            Step::Claim => 2,
            Step::Keep(counts) => 4 + counts.len() / 20,
        }
    }
}

const CLAIM: &str = "INSERT INTO hours (hour, claim, summed) VALUES (?, ?, FALSE)
    ON CONFLICT (hour) DO UPDATE SET claim = excluded.claim WHERE NOT summed";

fn alike(part: i64, row: &SqliteRow) -> Result<Alike, Error> {
    Ok(Alike {
        part,
        carrier: row.try_get("carrier")?,
        status: row.try_get("status")?,
        error_code: row.try_get("error_code")?,
        cost: row.try_get("cost")?,
        second: row.try_get("second")?,
        longest: row.try_get("longest")?,
        count: row.try_get("count")?,
    })
}

fn insert(hour: i64, counts: &[Alike]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO hour_counts (hour, part, carrier, status, error_code, cost, second, longest, count) ",
    );
    sql.push_values(counts, |mut values, alike| {
        values
            .push_bind(hour)
            .push_bind(alike.part)
            .push("CAST(")
            .push_bind_unseparated(alike.carrier.as_deref())
            .push_unseparated(" AS TEXT)")
            .push_bind(alike.status.as_str())
            .push("CAST(")
            .push_bind_unseparated(alike.error_code.as_deref())
            .push_unseparated(" AS TEXT)")
            .push("CAST(")
            .push_bind_unseparated(alike.cost.as_deref())
            .push_unseparated(" AS TEXT)")
            .push_bind(alike.second)
            .push_bind(alike.longest)
            .push_bind(alike.count);
    });
    sql
}

/// The first hour of those that were set back, and of those that have deliveries and no row yet: from one hour with
/// deliveries to the next, for as long as they have one.
fn next(due: &Due) -> QueryBuilder<Db> {
    // Of the walk's present place, which is the time of an hour's first delivery.
    const HOUR: &str = "(first - (first % 3600000000 + 3600000000) % 3600000000)";
    let (from, until) = (due.from.micros(), due.until.micros());
    let mut sql = QueryBuilder::new("WITH RECURSIVE walk (first) AS (SELECT ");
    first(&mut sql, |sql| {
        sql.push_bind(from.max(due.noted.micros()));
    });
    sql.push(" UNION ALL SELECT ");
    first(&mut sql, |sql| {
        sql.push(HOUR).push(" + 3600000000");
    });
    sql.push(" FROM walk WHERE first < ").push_bind(until);
    sql.push(" AND EXISTS (SELECT 1 FROM hours WHERE hour = ").push(HOUR).push("))");
    sql.push(" SELECT hour FROM (SELECT ").push(HOUR).push(" AS hour FROM walk");
    sql.push(" WHERE NOT EXISTS (SELECT 1 FROM hours WHERE hour = ").push(HOUR);
    sql.push(") UNION ALL SELECT MIN(hour) FROM hours WHERE NOT summed AND hour >= ").push_bind(from);
    sql.push(") WHERE hour < ").push_bind(until).push(" ORDER BY hour LIMIT 1");
    sql
}

/// The time of the first delivery since some time.
fn first(sql: &mut QueryBuilder<Db>, since: impl Fn(&mut QueryBuilder<Db>)) {
    for (n, status) in Status::ALL.into_iter().enumerate() {
        sql.push(if n == 0 { "(SELECT MIN(listed_at) FROM (" } else { " UNION ALL " });
        sql.push("SELECT MIN(listed_at) AS listed_at FROM deliveries WHERE status = '").push(status.as_str());
        sql.push("' AND listed_at >= ");
        since(sql);
    }
    sql.push("))");
}
