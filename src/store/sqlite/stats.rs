//! Statistics: SQLite groups and counts, `tally` makes figures of it.

use sqlx::{Error, QueryBuilder, Row, Sqlite as Db, sqlite::SqliteRow};

use super::{Sqlite, meaning, rows};
use crate::{
    clock::Timestamp,
    money::Money,
    store::{
        StoreError,
        hours::HOUR_MICROS,
        query::{GroupBy, Stats, StatsQuestion},
        tally::{Counted, Second, Tally},
    },
};

/// What is counted of deliveries that are alike, and the whole second of how long they took. SQLite divides towards
/// zero; a delivery may have been completed before it was created.
pub(super) const COUNTED: &str = "
    CASE WHEN status <> 'sent' THEN
        (completed_at - created_at) / 1000000 - ((completed_at - created_at) % 1000000 < 0) END AS second,
    MAX(completed_at - created_at) AS longest, COUNT(*) AS count";

/// All three statuses are named because the index has them before the time.
const OF_ANY_STATUS: &str = "deliveries WHERE status IN ('sent', 'delivered', 'failed')";

impl Sqlite {
    /// See [`crate::store::Store::stats`].
    pub(super) async fn read_stats(&self, question: &StatsQuestion) -> Result<Stats, StoreError> {
        let mut tally = Tally::default();
        for row in self.ask(counts(question)).await? {
            tally.add(&counted(&row, question.by).map_err(meaning)?)?;
        }
        Ok(tally.stats(question.by.is_some()))
    }
}

/// The group's key; an hour or a day as its first microsecond.
fn key(by: Option<GroupBy>) -> &'static str {
    match by {
        None => "NULL",
        Some(GroupBy::Carrier) => "carrier",
        Some(GroupBy::ErrorCode) => "error_code",
        // The remainder of a time before 1970 is negative.
        Some(GroupBy::Hour) => "listed_at - (listed_at % 3600000000 + 3600000000) % 3600000000",
        Some(GroupBy::Day) => "listed_at - (listed_at % 86400000000 + 86400000000) % 86400000000",
    }
}

/// Whole hours that are summed up, and the deliveries of the gaps before, between and after them. One statement sees
/// one state of the database, so that each delivery is counted either way and once.
pub(super) fn counts(question: &StatsQuestion) -> QueryBuilder<Db> {
    let (from, to) = (question.from.micros(), question.to.micros());
    let last = to.saturating_sub(HOUR_MICROS);
    let mut sql =
        QueryBuilder::new("WITH summed AS MATERIALIZED (SELECT hour FROM hours WHERE summed AND hour >= ");
    sql.push_bind(from)
        .push(" AND hour <= ")
        .push_bind(last)
        .push("), gaps AS (SELECT LAG(hour + 3600000000, 1, ");
    sql.push_bind(from).push(") OVER (ORDER BY hour) AS since, hour AS until FROM summed");
    sql.push(" UNION ALL SELECT COALESCE(MAX(hour) + 3600000000, ").push_bind(from).push("), ").push_bind(to);
    sql.push(" FROM summed)");

    sql.push(" SELECT ")
        .push(key(question.by))
        .push(" AS key, status, cost, second, MAX(longest) AS longest");
    sql.push(
        ", SUM(count) AS count FROM (SELECT hour AS listed_at, carrier, status, error_code, cost, second",
    );
    sql.push(", longest, count FROM summed CROSS JOIN hour_counts USING (hour)) GROUP BY 1, 2, 3, 4");

    // A CROSS JOIN keeps its order.
    sql.push(" UNION ALL SELECT ").push(key(question.by)).push(" AS key, status, cost, ").push(COUNTED);
    sql.push(" FROM gaps CROSS JOIN ").push(OF_ANY_STATUS);
    sql.push(" AND since < until AND listed_at >= since AND listed_at < until GROUP BY 1, 2, 3, 4");
    sql
}

/// The deliveries of an hour, in parts as the table of counts has them.
pub(super) fn counts_of_hour(hour: Timestamp) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT carrier, status, error_code, cost, ");
    sql.push(COUNTED).push(" FROM ").push(OF_ANY_STATUS);
    sql.push(" AND listed_at >= ").push_bind(hour.micros());
    sql.push(" AND listed_at < ").push_bind(hour.micros() + HOUR_MICROS);
    sql.push(" GROUP BY 1, 2, 3, 4, 5");
    sql
}

fn counted(row: &SqliteRow, by: Option<GroupBy>) -> Result<Counted, Error> {
    let took = |second| Ok::<_, Error>(Second { second, longest: row.try_get("longest")? });
    let key = match by {
        None => None,
        Some(GroupBy::Carrier | GroupBy::ErrorCode) => row.try_get("key")?,
        Some(GroupBy::Hour | GroupBy::Day) => {
            let time: Timestamp = rows::time(row, "key")?;
            Some(time.to_string())
        }
    };
    Ok(Counted {
        key,
        status: rows::status(row, "status")?,
        cost: rows::money(row, "cost")?.unwrap_or(Money::ZERO),
        took: row.try_get::<Option<i64>, _>("second")?.map(took).transpose()?,
        count: rows::count(row, "count")?,
    })
}
