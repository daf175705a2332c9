//! Statistics: Postgres groups and counts, `tally` makes figures of it.

use sqlx::{Error, Postgres as Db, QueryBuilder, Row, postgres::PgRow};

use super::{Postgres, meaning, rows};
use crate::{
    clock::Timestamp,
    delivery::GIVEN_UP_HOURS,
    money::Money,
    store::{
        StoreError,
        query::{GroupBy, Stats, StatsQuestion},
        tally::{Counted, Second, Tally},
        unreadable::{Table, UnreadableRow, read},
    },
};

/// How long a delivery took, if its two times can be read: of others no difference may be asked for.
macro_rules! took {
    () => {
        "CASE WHEN created_at >= timestamptz '0001-01-01 00:00:00+00'
            AND created_at < timestamptz '10000-01-01 00:00:00+00'
            AND completed_at >= timestamptz '0001-01-01 00:00:00+00'
            AND completed_at < timestamptz '10000-01-01 00:00:00+00' THEN completed_at - created_at END"
    };
}

/// The whole second of how long a delivery took, and what is counted of deliveries that are alike.
pub(super) const SECOND: &str =
    concat!("CASE WHEN status <> 'sent' THEN floor(date_part('epoch', ", took!(), "))::bigint END AS second");
pub(super) const COUNTED: &str = concat!("MAX(", took!(), ") AS longest, COUNT(*) AS count");

/// All three statuses are named because the index has them before the time.
pub(super) const OF_ANY_STATUS: &str = " FROM deliveries WHERE status IN ('sent', 'delivered', 'failed')";

impl Postgres {
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

/// The group's key; an hour or a day as its start.
fn key(by: Option<GroupBy>) -> &'static str {
    match by {
        None => "NULL::text",
        Some(GroupBy::Carrier) => "carrier",
        Some(GroupBy::ErrorCode) => "error_code",
        Some(GroupBy::Hour) => "date_trunc('hour', listed_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
        Some(GroupBy::Day) => "date_trunc('day', listed_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
    }
}

/// Whole hours that are summed up, and the deliveries of the gaps before, between and after them. One statement sees
/// one state of the database, so that each delivery is counted either way and once. The hour in which the time falls
/// before which those still `sent` are given up is counted as a gap: its sums do not tell the two apart.
pub(super) fn counts(question: &StatsQuestion, given_up: Timestamp) -> QueryBuilder<Db> {
    let (from, to) = (question.from.date_time(), question.to.date_time());
    let given_up = given_up.date_time();
    let mut sql =
        QueryBuilder::new("WITH summed AS MATERIALIZED (SELECT hour FROM hours WHERE summed AND hour >= ");
    sql.push_bind(from).push(" AND hour <= ").push_bind(to).push(" - interval '1 hour' AND (hour >= ");
    sql.push_bind(given_up)
        .push(" OR hour <= ")
        .push_bind(given_up)
        .push(" - interval '1 hour')), gaps AS (");
    sql.push("SELECT LAG(hour + interval '1 hour', 1, ")
        .push_bind(from)
        .push(") OVER (ORDER BY hour) AS since, hour");
    sql.push(" AS until FROM summed UNION ALL SELECT COALESCE(MAX(hour) + interval '1 hour', ")
        .push_bind(from);
    sql.push("), ").push_bind(to).push(" FROM summed)");

    sql.push(" SELECT ")
        .push(key(question.by))
        .push(" AS key, status, cost, second, status = 'sent' AND listed_at < ")
        .push_bind(given_up)
        .push(" AS stale, MAX(longest) AS longest");
    sql.push(", SUM(count)::bigint AS count FROM (SELECT hour AS listed_at, carrier, status, error_code, cost, second");
    sql.push(", longest, count FROM hour_counts JOIN summed USING (hour) WHERE hour >= ").push_bind(from);
    sql.push(" AND hour <= ").push_bind(to).push(" - interval '1 hour') AS hourly GROUP BY 1, 2, 3, 4, 5");

    sql.push(" UNION ALL SELECT single.* FROM gaps CROSS JOIN LATERAL (SELECT ").push(key(question.by));
    sql.push(" AS key, status, cost, ").push(SECOND).push(", status = 'sent' AND listed_at < ");
    sql.push_bind(given_up).push(" AS stale, ").push(COUNTED).push(OF_ANY_STATUS);
    sql.push(
        " AND listed_at >= since AND listed_at < until GROUP BY 1, 2, 3, 4, 5) AS single WHERE since < until",
    );
    sql
}

fn counted(row: &PgRow, by: Option<GroupBy>) -> Result<Counted, Error> {
    let took = |second| Ok::<_, Error>(Second { second, longest: rows::duration(row, "longest")? });
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
