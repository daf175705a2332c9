//! Statistics: Postgres groups and counts, `tally` makes figures of it.

use std::collections::BTreeSet;

use sqlx::{Error, Postgres as Db, QueryBuilder, Row, postgres::PgRow};

use super::{Postgres, meaning, rows};
use crate::{
    clock::Timestamp,
    store::{
        StoreError,
        query::{GroupBy, Stats, StatsQuestion},
        tally::{Counted, Second, Tally},
    },
};

/// The whole second of how long a delivery took.
const SECOND: &str =
    "CASE WHEN status <> 'sent' THEN floor(date_part('epoch', completed_at - created_at))::bigint END";

impl Postgres {
    /// See [`crate::store::Store::stats`].
    pub(super) async fn read_stats(&self, question: &StatsQuestion) -> Result<Stats, StoreError> {
        let mut tally = Tally::default();
        for row in self.ask(counts(question)).await? {
            tally.add(&counted(&row, question.by).map_err(meaning)?)?;
        }
        let unsettled = tally.unsettled();
        if !unsettled.is_empty() {
            for row in self.ask(durations(question, &unsettled)).await? {
                refine(&mut tally, &row, question.by).map_err(meaning)?;
            }
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

pub(super) fn counts(question: &StatsQuestion) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(key(question.by)).push(" AS key, status, cost, ").push(SECOND).push(
        " AS second, COUNT(*) AS count,
            MIN(completed_at - created_at) AS shortest, MAX(completed_at - created_at) AS longest",
    );
    within(&mut sql, question);
    sql.push(" GROUP BY 1, 2, 3, 4");
    sql
}

fn durations(question: &StatsQuestion, seconds: &BTreeSet<i64>) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(key(question.by))
        .push(" AS key, ")
        .push(SECOND)
        .push(" AS second, completed_at - created_at AS duration, COUNT(*) AS count");
    within(&mut sql, question);
    let list: Vec<i64> = seconds.iter().copied().collect();
    sql.push(" AND ").push(SECOND).push(" = ANY(").push_bind(list).push(")");
    sql.push(" GROUP BY 1, 2, 3");
    sql
}

/// All three statuses are named because the index has them before the time.
fn within(sql: &mut QueryBuilder<Db>, question: &StatsQuestion) {
    sql.push(" FROM deliveries WHERE status IN ('sent', 'delivered', 'failed') AND listed_at >= ");
    sql.push_bind(question.from.date_time()).push(" AND listed_at < ").push_bind(question.to.date_time());
}

fn counted(row: &PgRow, by: Option<GroupBy>) -> Result<Counted, Error> {
    let took = |second| {
        Ok::<_, Error>(Second {
            second,
            shortest: rows::duration(row, "shortest")?,
            longest: rows::duration(row, "longest")?,
        })
    };
    Ok(Counted {
        key: read_key(row, by)?,
        status: rows::status(row, "status")?,
        cost: rows::money(row, "cost")?,
        took: row.try_get::<Option<i64>, _>("second")?.map(took).transpose()?,
        count: rows::count(row, "count")?,
    })
}

fn refine(tally: &mut Tally, row: &PgRow, by: Option<GroupBy>) -> Result<(), Error> {
    let key = read_key(row, by)?;
    tally.refine(&key, row.try_get("second")?, rows::duration(row, "duration")?, rows::count(row, "count")?);
    Ok(())
}

fn read_key(row: &PgRow, by: Option<GroupBy>) -> Result<Option<String>, Error> {
    match by {
        None => Ok(None),
        Some(GroupBy::Carrier | GroupBy::ErrorCode) => row.try_get("key"),
        Some(GroupBy::Hour | GroupBy::Day) => {
            rows::time(row, "key").map(|time: Timestamp| Some(time.to_string()))
        }
    }
}
