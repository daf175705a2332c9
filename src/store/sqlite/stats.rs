//! Statistics: SQLite groups and counts, `tally` makes figures of it.

use sqlx::{Error, QueryBuilder, Row, Sqlite as Db, sqlite::SqliteRow};

use super::{Sqlite, meaning, rows};
use crate::{
    clock::Timestamp,
    delivery::GIVEN_UP_HOURS,
    money::Money,
    store::{
        StoreError,
        hours::HOUR_MICROS,
        query::{GroupBy, Stats, StatsQuestion},
        tally::{Counted, Second, Tally},
        unreadable::{Table, UnreadableRow, read},
    },
};

/// How long a delivery took, if its two times can be read: the difference of others may be no whole number.
macro_rules! took {
    () => {
        "CASE WHEN created_at BETWEEN -62135596800000000 AND 253402300799999999
            AND completed_at BETWEEN -62135596800000000 AND 253402300799999999 THEN completed_at - created_at END"
    };
}

/// The whole second of how long a delivery took, and what is counted of deliveries that are alike. SQLite divides towards
/// zero; a delivery may have been completed before it was created.
const SECOND: &str = concat!(
    "CASE WHEN status <> 'sent' THEN ",
    took!(),
    " / 1000000 - (",
    took!(),
    " % 1000000 < 0) END AS second"
);
const COUNTED: &str = concat!("MAX(", took!(), ") AS longest, COUNT(*) AS count");

/// All three statuses are named because the index has them before the time.
const OF_ANY_STATUS: &str = "deliveries WHERE status IN ('sent', 'delivered', 'failed')";

impl Sqlite {
    /// See [`crate::store::Store::stats`].
    pub(super) async fn read_stats(&self, question: &StatsQuestion) -> Result<Stats, StoreError> {
        let given_up = Timestamp::now().hours_before(GIVEN_UP_HOURS);
        let mut tally = Tally::default();
        for row in self.ask(counts(question, given_up)).await? {
            let name = || format!("{} to {}", question.from, question.to).into_bytes();
            let unreadable =
                match read(Table::Statistics, counted(&row, question.by), name).map_err(meaning)? {
                    Ok(counted) if tally.add(&counted) => continue,
                    Ok(_) => UnreadableRow::new(Table::Statistics, &name(), "cost"),
                    Err(unreadable) => unreadable,
                };
            self.left_out.note_of(&unreadable, rows::count(&row, "count").unwrap_or(1));
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
/// one state of the database, so that each delivery is counted either way and once. The hour in which the time falls
/// before which those still `sent` are given up is counted as a gap: its sums do not tell the two apart.
pub(super) fn counts(question: &StatsQuestion, given_up: Timestamp) -> QueryBuilder<Db> {
    let (from, to) = (question.from.micros(), question.to.micros());
    let last = to.saturating_sub(HOUR_MICROS);
    let given_up = given_up.micros();
    let mut sql =
        QueryBuilder::new("WITH summed AS MATERIALIZED (SELECT hour FROM hours WHERE summed AND hour >= ");
    sql.push_bind(from)
        .push(" AND hour <= ")
        .push_bind(last)
        .push(" AND (hour >= ")
        .push_bind(given_up)
        .push(" OR hour <= ")
        .push_bind(given_up - HOUR_MICROS)
        .push(")), gaps AS (SELECT LAG(hour + 3600000000, 1, ");
    sql.push_bind(from).push(") OVER (ORDER BY hour) AS since, hour AS until FROM summed");
    sql.push(" UNION ALL SELECT COALESCE(MAX(hour) + 3600000000, ").push_bind(from).push("), ").push_bind(to);
    sql.push(" FROM summed)");

    sql.push(" SELECT ")
        .push(key(question.by))
        .push(" AS key, status, cost, second, status = 'sent' AND listed_at < ")
        .push_bind(given_up)
        .push(" AS stale, MAX(longest) AS longest");
    sql.push(
        ", SUM(count) AS count FROM (SELECT hour AS listed_at, carrier, status, error_code, cost, second",
    );
    sql.push(", longest, count FROM summed CROSS JOIN hour_counts USING (hour)) GROUP BY 1, 2, 3, 4, 5");

    // A CROSS JOIN keeps its order.
    sql.push(" UNION ALL SELECT ").push(key(question.by)).push(" AS key, status, cost, ").push(SECOND);
    sql.push(", status = 'sent' AND listed_at < ").push_bind(given_up).push(" AS stale, ").push(COUNTED);
    sql.push(" FROM gaps CROSS JOIN ").push(OF_ANY_STATUS);
    sql.push(" AND since < until AND listed_at >= since AND listed_at < until GROUP BY 1, 2, 3, 4, 5");
    sql
}

/// The deliveries of an hour, in parts as the table of counts has them.
pub(super) fn counts_of_hour(hour: Timestamp) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT carrier, status, error_code, cost, ");
    sql.push(SECOND).push(", ").push(COUNTED).push(" FROM ").push(OF_ANY_STATUS);
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
        stale: row.try_get("stale")?,
        cost: rows::money(row, "cost")?.unwrap_or(Money::ZERO),
        took: row.try_get::<Option<i64>, _>("second")?.map(took).transpose()?,
        count: rows::count(row, "count")?,
    })
}
