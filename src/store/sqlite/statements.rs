//! The statements of a commit, and what is bound to them.
//!
//! Lives here: SQL that writes deliveries, older events and quarantine. Does not: in which order it runs (`commit`).

use std::sync::OnceLock;

use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite as Db, query::Query, sqlite::SqliteArguments};

use super::rows;
use crate::{
    batch::{FoldedEvent, FoldedQuarantine},
    phone::Phone,
    proof::Proof,
};

/// Rows in one statement at most.
const MOST_ROWS: usize = 64;

/// How many numbers of rows [`chunks`] makes.
const SIZES: usize = MOST_ROWS.ilog2() as usize + 1;

/// Rows for one statement: as many as the greatest power of two that there are, so that few different statements
/// are prepared, and each once.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = 1 << rows.len().min(MOST_ROWS).checked_ilog2()?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

/// A statement that takes any number of rows, written once for each number that [`chunks`] makes.
pub(super) struct Rows {
    before: &'static str,
    each: &'static str,
    after: &'static str,
    written: [OnceLock<String>; SIZES],
}

impl Rows {
    const fn new(before: &'static str, each: &'static str, after: &'static str) -> Self {
        Self { before, each, after, written: [const { OnceLock::new() }; SIZES] }
    }

    pub(super) fn for_rows(&'static self, rows: usize) -> AssertSqlSafe<&'static str> {
        let place = &self.written[rows.ilog2() as usize];
        let write = || [self.before, &vec![self.each; rows].join(", "), self.after].concat();
        AssertSqlSafe(place.get_or_init(write))
    }
}

/// The last row there is: each new one comes after it.
pub(super) const LAST: &str = "SELECT coalesce(max(rowid), 0) FROM deliveries";

pub(super) static KNOWN: Rows = Rows::new("SELECT id FROM deliveries WHERE id IN (", "?", ") AND rowid <= ?");

pub(super) static INSERT: Rows = Rows::new(
    // OR ROLLBACK: a statement that could be taken back alone would first copy each page that it changes.
    "INSERT OR ROLLBACK INTO deliveries (id, phone, carrier, status, cost, error_code, created_at, completed_at, received_at,
        listed_at, source, standing, kind, body, signature, times) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    " ON CONFLICT (id) DO NOTHING",
);

/// Rows of the deliveries that have none yet.
pub(super) fn bind_rows<'a>(rows: &[&'a FoldedEvent]) -> Query<'a, Db, SqliteArguments> {
    rows.iter().fold(sqlx::query(INSERT.for_rows(rows.len())), |statement, row| {
        let told = &row.event.told;
        statement
            .bind(told.id.as_str())
            .bind(told.phone.as_ref().map(Phone::reveal))
            .bind(told.carrier.as_deref())
            .bind(told.status.as_str())
            .bind(told.cost.map(|cost| cost.to_string()))
            .bind(told.error_code.as_deref())
            .bind(told.created_at.map(|time| time.micros()))
            .bind(told.completed_at.map(|time| time.micros()))
            .bind(told.received_at.micros())
            .bind(told.listed_at().micros())
            .bind(told.source.as_str())
            .bind(told.standing.as_bytes().as_slice())
            .bind(row.event.kind.as_str())
            .bind(row.proof.body().as_ref())
            .bind(signature(&row.proof))
            .bind(rows::integer(row.times))
    })
}

pub(super) const ROW: &str = "
    SELECT id, phone, carrier, status, cost, error_code, created_at, completed_at, received_at, listed_at, source,
        standing, kind, body, signature, substr(standing, 11) AS digest, times
    FROM deliveries WHERE id = ?";

/// Writes a row anew: all but its id, and the time by which it is listed.
pub(super) fn update(row: &FoldedEvent) -> QueryBuilder<Db> {
    let told = &row.event.told;
    let mut sql = QueryBuilder::new("UPDATE deliveries SET ");
    let mut set = sql.separated(", ");
    set.push("phone = ").push_bind_unseparated(told.phone.as_ref().map(Phone::reveal));
    set.push("carrier = ").push_bind_unseparated(told.carrier.as_deref());
    set.push("status = ").push_bind_unseparated(told.status.as_str());
    set.push("cost = ").push_bind_unseparated(told.cost.map(|cost| cost.to_string()));
    set.push("error_code = ").push_bind_unseparated(told.error_code.as_deref());
    set.push("created_at = ").push_bind_unseparated(told.created_at.map(|time| time.micros()));
    set.push("completed_at = ").push_bind_unseparated(told.completed_at.map(|time| time.micros()));
    set.push("received_at = ").push_bind_unseparated(told.received_at.micros());
    set.push("source = ").push_bind_unseparated(told.source.as_str());
    set.push("standing = ").push_bind_unseparated(told.standing.as_bytes().as_slice());
    set.push("kind = ").push_bind_unseparated(row.event.kind.as_str());
    set.push("body = ").push_bind_unseparated(row.proof.body().as_ref());
    set.push("signature = ").push_bind_unseparated(signature(&row.proof));
    set.push("times = ").push_bind_unseparated(rows::integer(row.times));
    sql.push(" WHERE id = ").push_bind(told.id.as_str());
    sql
}

/// Evidence of events that did not win; of one event under two secrets, the lesser signature stays.
pub(super) fn upsert_older(events: &[&FoldedEvent]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO older_events AS known
            (delivery_id, digest, body, signature, kind, status, source, received_at, times) ",
    );
    sql.push_values(events, |mut values, FoldedEvent { proof, event, times }| {
        values
            .push_bind(event.told.id.as_str())
            .push_bind(proof.digest().as_bytes().to_vec())
            .push_bind(proof.body().as_ref())
            .push_bind(signature(proof))
            .push_bind(event.kind.as_str())
            .push_bind(event.told.status.as_str())
            .push_bind(event.told.source.as_str())
            .push_bind(event.told.received_at.micros())
            .push_bind(rows::integer(*times));
    });
    sql.push(
        " ON CONFLICT (delivery_id, digest) DO UPDATE SET
            times = known.times + excluded.times,
            signature = min(coalesce(known.signature, excluded.signature),
                coalesce(excluded.signature, known.signature)),
            received_at = min(known.received_at, excluded.received_at)
        RETURNING delivery_id, digest, times",
    );
    sql
}

fn signature(proof: &Proof) -> Option<Vec<u8>> {
    proof.signature().map(|signature| signature.as_bytes().to_vec())
}

/// What was not understood; known already, it is only counted.
pub(super) fn upsert_quarantine(quarantine: &[FoldedQuarantine]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(
        "INSERT INTO quarantine (digest, body, signature, reason, detail, received_at, times) ",
    );
    sql.push_values(quarantine, |mut row, FoldedQuarantine { verified, received_at, reason, times }| {
        row.push_bind(verified.digest().as_bytes().as_slice())
            .push_bind(verified.body().as_ref())
            .push_bind(verified.signature().as_bytes().as_slice())
            .push_bind(reason.code())
            .push_bind(reason.to_string())
            .push_bind(received_at.micros())
            .push_bind(rows::integer(*times));
    });
    sql.push(" ON CONFLICT (digest) DO UPDATE SET times = quarantine.times + excluded.times");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_few_sizes_and_miss_no_row() {
        for length in 0..300 {
            let rows: Vec<usize> = (0..length).collect();
            assert_eq!(chunks(&rows).flatten().copied().collect::<Vec<_>>(), rows);
            assert!(chunks(&rows).all(|chunk| chunk.len().is_power_of_two() && chunk.len() <= MOST_ROWS));
        }
    }
}
