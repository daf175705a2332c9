//! The statements of a commit, and what is bound to them.
//!
//! Lives here: SQL that writes deliveries, older events and quarantine. Does not: in which order it runs (`commit`).

use sqlx::{Postgres as Db, postgres::PgArguments, query::Query};
use uuid::Uuid;

use super::{epoch::position, rows};
use crate::{
    batch::{FoldedEvent, FoldedQuarantine},
    delivery::DeliveryId,
    money::Money,
    phone::Phone,
    signature::{Digest, Signature},
};

/// The columns of a row of `deliveries`, in the order of [`bind_rows`].
macro_rules! columns {
    () => {
        "(id, text_id, phone, carrier, status, cost, error_code, created_at, completed_at, received_at, listed_at, source,
            standing, kind, body, signature, times)"
    };
}

/// What [`bind_rows`] has bound, as rows. One `UNNEST` of all arrays, in `FROM`, would copy each value twice.
macro_rules! bound_rows {
    () => {
        " SELECT UNNEST($1::uuid[]), UNNEST($2::text[]), UNNEST($3::text[]), UNNEST($4::text[]), UNNEST($5::text[]),
            UNNEST($6::numeric[]), UNNEST($7::text[]), UNNEST($8::timestamptz[]), UNNEST($9::timestamptz[]),
            UNNEST($10::timestamptz[]), UNNEST($11::timestamptz[]), UNNEST($12::text[]), UNNEST($13::bytea[]),
            UNNEST($14::text[]), UNNEST($15::bytea[]), UNNEST($16::bytea[]), UNNEST($17::bigint[])"
    };
}

/// Rows are locked in the batch's order, so that replicas whose batches overlap wait for each other. One that holds
/// another event than the batch's is left as it is, and missing in the answer.
macro_rules! upsert {
    ($rows:expr) => {
        concat!(
            "INSERT INTO deliveries AS known ",
            columns!(),
            $rows,
            " ON CONFLICT (id) DO UPDATE SET
                times = known.times + EXCLUDED.times,
                signature = LEAST(known.signature, EXCLUDED.signature),
                received_at = LEAST(known.received_at, EXCLUDED.received_at)
            WHERE known.standing = EXCLUDED.standing
            RETURNING id, text_id, times"
        )
    };
}

/// An upsert that also notes which rows are new: those that no transaction has locked, since an update locks first.
/// It is the first of its transaction, so that there is no note yet.
macro_rules! noted {
    ($rows:expr, $new:expr, $answer:expr) => {
        concat!(
            "WITH upserted AS (",
            upsert!($rows),
            ", known.xmax = 0 AS new), noted AS (INSERT INTO changes (position, ids, noted_at)
            SELECT ",
            position!(),
            ", ",
            $new,
            ") ",
            $answer
        )
    };
}

/// The ids of new rows; nothing where there are none.
macro_rules! new_rows {
    () => {
        "array_agg(id), now() FROM upserted WHERE new HAVING COUNT(*) > 0"
    };
}

/// Likewise of a lone row.
macro_rules! new_row {
    () => {
        "ARRAY[id], now() FROM upserted WHERE new"
    };
}

/// How many rows are new, as `times` of no id; the rows themselves only if that is not all of them.
macro_rules! count_or_rows {
    () => {
        "SELECT NULL::uuid AS id, NULL::text AS text_id, COUNT(*) AS times FROM upserted WHERE new
        UNION ALL
        SELECT id, text_id, times FROM upserted
        WHERE (SELECT COUNT(*) FROM upserted WHERE new) < cardinality($1::uuid[])"
    };
}

/// What [`bind_row`] has bound, as a row.
macro_rules! bound_row {
    () => {
        " VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::numeric, $7::text, $8::timestamptz,
            $9::timestamptz, $10::timestamptz, $11::timestamptz, $12::text, $13::bytea, $14::text, $15::bytea,
            $16::bytea, $17::bigint)"
    };
}

pub(super) const LOCK: &str = "
SELECT id, text_id, phone, carrier, status, cost, error_code, created_at, completed_at, received_at, listed_at, source,
    standing, kind, body, signature, substring(standing FROM 11) AS digest, times
FROM deliveries WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

/// Those of these rows that somebody else has locked; what is free is locked for no longer than the statement takes.
pub(super) const LOCKED: &str = "
WITH free AS (SELECT id FROM deliveries WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)
SELECT id FROM deliveries WHERE id = ANY($1) AND id NOT IN (SELECT id FROM free)";

/// All but the id, and the time by which a delivery is listed.
pub(super) const UPDATE: &str = concat!(
    "UPDATE deliveries AS known SET
        phone = new.phone, carrier = new.carrier, status = new.status, cost = new.cost,
        error_code = new.error_code, created_at = new.created_at, completed_at = new.completed_at,
        received_at = new.received_at, source = new.source, standing = new.standing, kind = new.kind,
        body = new.body, signature = new.signature, times = new.times
    FROM (",
    bound_rows!(),
    ") AS new ",
    columns!(),
    " WHERE known.id = new.id"
);

pub(super) const UPSERT_OLDER: &str = "
INSERT INTO older_events AS known (delivery_id, digest, body, signature, kind, status, source, received_at, times)
SELECT * FROM UNNEST($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::text[],
    $8::timestamptz[], $9::bigint[])
ON CONFLICT (delivery_id, digest) DO UPDATE SET
    times = known.times + EXCLUDED.times,
    signature = LEAST(known.signature, EXCLUDED.signature),
    received_at = LEAST(known.received_at, EXCLUDED.received_at)
RETURNING delivery_id, digest, times";

pub(super) const QUARANTINE: &str = "
INSERT INTO quarantine AS known (digest, body, signature, reason, detail, received_at, times)
SELECT * FROM UNNEST($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[])
ON CONFLICT (digest) DO UPDATE SET times = known.times + EXCLUDED.times";

type Statement = Query<'static, Db, PgArguments>;

/// The one statement of most commits: each delivery's leader, and what is new of it noted if that is wanted.
pub(super) fn upsert(leaders: &[&FoldedEvent], noting: bool) -> Statement {
    const ALL: &str = noted!(bound_rows!(), new_rows!(), count_or_rows!());
    const LONE: &str = noted!(bound_row!(), new_row!(), "SELECT id, text_id, times FROM upserted");
    match (leaders, noting) {
        ([lone], true) => bind_row(sqlx::query(LONE), lone),
        ([lone], false) => bind_row(sqlx::query(upsert!(bound_row!())), lone),
        (_, true) => bind_rows(sqlx::query(ALL), leaders),
        (_, false) => bind_rows(sqlx::query(upsert!(bound_rows!())), leaders),
    }
}

/// A whole row of `deliveries`: arrays of one value each would cost a lone event a tenth of its time.
fn bind_row(statement: Statement, row: &FoldedEvent) -> Statement {
    let told = &row.event.told;
    let (key, text) = kept(row.id());
    statement
        .bind(key)
        .bind(text)
        .bind(told.phone.as_ref().map(Phone::reveal))
        .bind(told.carrier.as_deref())
        .bind(told.status.as_str())
        .bind(told.cost.map(Money::amount))
        .bind(told.error_code.as_deref())
        .bind(told.created_at.map(|time| time.date_time()))
        .bind(told.completed_at.map(|time| time.date_time()))
        .bind(told.received_at.date_time())
        .bind(told.listed_at().date_time())
        .bind(told.source.as_str())
        .bind(row.standing().as_bytes().as_slice())
        .bind(row.event.kind.as_str())
        .bind(row.proof.body().as_ref())
        .bind(row.proof.signature().map(bytes))
        .bind(rows::integer(row.times))
}

/// Whole rows of `deliveries`.
pub(super) fn bind_rows(statement: Statement, rows: &[&FoldedEvent]) -> Statement {
    let (keys, texts): (Vec<_>, Vec<_>) = rows.iter().map(|row| kept(row.id())).unzip();
    statement
        .bind(keys)
        .bind(texts)
        .bind(column(rows, |row| row.event.told.phone.as_ref().map(Phone::reveal)))
        .bind(column(rows, |row| row.event.told.carrier.as_deref()))
        .bind(column(rows, |row| row.event.told.status.as_str()))
        .bind(column(rows, |row| row.event.told.cost.map(Money::amount)))
        .bind(column(rows, |row| row.event.told.error_code.as_deref()))
        .bind(column(rows, |row| row.event.told.created_at.map(|time| time.date_time())))
        .bind(column(rows, |row| row.event.told.completed_at.map(|time| time.date_time())))
        .bind(column(rows, |row| row.event.told.received_at.date_time()))
        .bind(column(rows, |row| row.event.told.listed_at().date_time()))
        .bind(column(rows, |row| row.event.told.source.as_str()))
        .bind(column(rows, |row| row.standing().as_bytes().as_slice()))
        .bind(column(rows, |row| row.event.kind.as_str()))
        .bind(column(rows, |row| row.proof.body().as_ref()))
        .bind(column(rows, |row| row.proof.signature().map(bytes)))
        .bind(column(rows, |row| rows::integer(row.times)))
}

pub(super) fn bind_older(statement: Statement, events: &[&FoldedEvent]) -> Statement {
    statement
        .bind(column(events, |event| event.id().key().uuid()))
        .bind(column(events, |event| digest(event.proof.digest())))
        .bind(column(events, |event| event.proof.body().as_ref()))
        .bind(column(events, |event| event.proof.signature().map(bytes)))
        .bind(column(events, |event| event.event.kind.as_str()))
        .bind(column(events, |event| event.event.told.status.as_str()))
        .bind(column(events, |event| event.event.told.source.as_str()))
        .bind(column(events, |event| event.event.told.received_at.date_time()))
        .bind(column(events, |event| rows::integer(event.times)))
}

pub(super) fn bind_quarantine(statement: Statement, quarantine: &[FoldedQuarantine]) -> Statement {
    statement
        .bind(column(quarantine, |folded| digest(folded.verified.digest())))
        .bind(column(quarantine, |folded| folded.verified.body().as_ref()))
        .bind(column(quarantine, |folded| bytes(folded.verified.signature())))
        .bind(column(quarantine, |folded| folded.reason.code()))
        .bind(column(quarantine, |folded| folded.reason.to_string()))
        .bind(column(quarantine, |folded| folded.received_at.date_time()))
        .bind(column(quarantine, |folded| rows::integer(folded.times)))
}

/// What is kept of an id: its key, and its text where that is not the key's.
fn kept(id: &DeliveryId) -> (Uuid, Option<&str>) {
    match id.as_uuid() {
        Some(uuid) => (uuid, None),
        None => (id.key().uuid(), Some(id.as_str())),
    }
}

/// One column of many rows.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

pub(super) fn digest(digest: Digest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

fn bytes(signature: Signature) -> Vec<u8> {
    signature.as_bytes().to_vec()
}
