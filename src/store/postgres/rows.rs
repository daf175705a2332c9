//! Values and rows: how what the program knows is written in columns, and read back.

use bytes::Bytes;
use sqlx::{
    Decode, Error, Postgres as Db, Row, Type,
    postgres::{PgRow, types::PgInterval},
};
use uuid::Uuid;

use super::exact::{Exact, Micros};
use crate::{
    batch::FoldedEvent,
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, DeliveryKey, Source, Standing, Status},
    event::Event,
    money::Money,
    phone::Phone,
    proof::Proof,
    signature::{Digest, Signature, Verified},
    store::{
        Evidence, Quarantined,
        unreadable::{Read, Table, read},
    },
};

/// What [`delivery`] reads.
pub(super) const DELIVERY: &str = "id, text_id, phone, carrier, status, cost, error_code, created_at, completed_at, \
    received_at, listed_at, source, standing";

/// What [`evidence`] reads beside the digest, which the two tables have in different places.
pub(super) const EVIDENCE: &str = "body, signature, kind, status, source, received_at, times";

/// What [`quarantined`] reads.
pub(super) const QUARANTINED: &str = "digest, body, signature, reason, detail, received_at, times";

/// Everything that was told of one delivery, as one row of `deliveries` has it.
pub(super) fn row(row: &PgRow) -> Result<FoldedEvent, Error> {
    let event = Event { kind: row.try_get("kind")?, told: delivery(row)? };
    Ok(FoldedEvent { proof: proof(row)?, event, times: count(row, "times")? })
}

/// A count as the database has it.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn delivery(row: &PgRow) -> Result<Delivery, Error> {
    Ok(Delivery {
        id: id(row)?,
        phone: value("phone", row, |phone: Option<&str>| phone.map(Phone::parse).transpose().ok())?,
        carrier: row.try_get("carrier")?,
        status: status(row, "status")?,
        cost: money(row, "cost")?,
        error_code: row.try_get("error_code")?,
        created_at: maybe_time(row, "created_at")?,
        completed_at: maybe_time(row, "completed_at")?,
        received_at: time(row, "received_at")?,
        source: value("source", row, Source::parse)?,
        standing: standing(row, "standing")?,
    })
}

/// One of many deliveries, or its row's name.
pub(super) fn each_delivery(row: &PgRow) -> Result<Read<Delivery>, Error> {
    read(Table::Deliveries, delivery(row), || raw_id(row))
}

/// One of the events of a delivery, or its row's name: the delivery's and the event's digest.
pub(super) fn each_evidence(row: &PgRow, of: &DeliveryId) -> Result<Read<Evidence>, Error> {
    let name = || format!("{} {}", of.as_str(), hex::encode(raw_digest(row))).into_bytes();
    read(Table::OlderEvents, evidence(row), name)
}

/// The bytes of a delivery's id, also where it is none.
pub(super) fn raw_id(row: &PgRow) -> Vec<u8> {
    match row.try_get::<Option<String>, _>("text_id") {
        Ok(Some(text)) => text.into_bytes(),
        _ => row.try_get::<Uuid, _>("id").map(|id| id.to_string().into_bytes()).unwrap_or_default(),
    }
}

/// The bytes of a digest, also where it is none.
pub(super) fn raw_digest(row: &PgRow) -> Vec<u8> {
    row.try_get("digest").unwrap_or_default()
}

fn evidence(row: &PgRow) -> Result<Evidence, Error> {
    Ok(Evidence {
        proof: proof(row)?,
        kind: row.try_get("kind")?,
        status: status(row, "status")?,
        source: value("source", row, Source::parse)?,
        received_at: time(row, "received_at")?,
        times: count(row, "times")?,
    })
}

pub(super) fn quarantined(row: &PgRow) -> Result<Quarantined, Error> {
    Ok(Quarantined {
        verified: verified(row)?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        received_at: time(row, "received_at")?,
        times: count(row, "times")?,
    })
}

fn verified(row: &PgRow) -> Result<Verified, Error> {
    match proof(row)? {
        Proof::Signed(verified) => Ok(verified),
        Proof::Unsigned(_) => Err(not_what_was_put_there("signature")),
    }
}

fn proof(row: &PgRow) -> Result<Proof, Error> {
    let body = Bytes::from(row.try_get::<Vec<u8>, _>("body")?);
    let signature = value("signature", row, |mac: Option<&[u8]>| {
        mac.map(|mac| mac.try_into().map(Signature::from_bytes)).transpose().ok()
    })?;
    Ok(Proof::from_evidence(body, digest(row, "digest")?, signature))
}

/// Of a row of `deliveries`.
pub(super) fn id(row: &PgRow) -> Result<DeliveryId, Error> {
    match row.try_get("text_id")? {
        Some(text) => DeliveryId::parse(text).map_err(|_| not_what_was_put_there("text_id")),
        None => {
            Ok(DeliveryId::parse(row.try_get::<Uuid, _>("id")?.to_string())
                .expect("a UUID has 36 characters"))
        }
    }
}

/// Likewise, of an answer that may be about none.
pub(super) fn maybe_id(row: &PgRow) -> Result<Option<DeliveryId>, Error> {
    row.try_get::<Option<Uuid>, _>("id")?.map(|_| id(row)).transpose()
}

/// Of a row of any other table.
pub(super) fn key(row: &PgRow, column: &'static str) -> Result<DeliveryKey, Error> {
    row.try_get(column).map(DeliveryKey::from_uuid)
}

pub(super) fn digest(row: &PgRow, column: &'static str) -> Result<Digest, Error> {
    value(column, row, |digest: &[u8]| digest.try_into().ok().map(Digest::from_bytes))
}

pub(super) fn standing(row: &PgRow, column: &'static str) -> Result<Standing, Error> {
    value(column, row, |standing: &[u8]| standing.try_into().ok().map(Standing::from_bytes))
}

pub(super) fn status(row: &PgRow, column: &'static str) -> Result<Status, Error> {
    value(column, row, Status::parse)
}

pub(super) fn money(row: &PgRow, column: &'static str) -> Result<Option<Money>, Error> {
    row.try_get::<Option<Exact>, _>(column).map(|cost| cost.map(|Exact(cost)| cost))
}

pub(super) fn count(row: &PgRow, column: &'static str) -> Result<u64, Error> {
    value(column, row, |count: i64| u64::try_from(count).ok())
}

pub(super) fn time(row: &PgRow, column: &'static str) -> Result<Timestamp, Error> {
    value(column, row, |Micros(micros)| Timestamp::from_micros(micros).ok())
}

/// The time between two times, in microseconds: such an interval has no months.
pub(super) fn duration(row: &PgRow, column: &'static str) -> Result<i64, Error> {
    const DAY: i64 = 86_400_000_000;
    row.try_get::<PgInterval, _>(column).map(|between| i64::from(between.days) * DAY + between.microseconds)
}

fn maybe_time(row: &PgRow, column: &'static str) -> Result<Option<Timestamp>, Error> {
    value(column, row, |time: Option<Micros>| match time {
        None => Some(None),
        Some(Micros(micros)) => Timestamp::from_micros(micros).ok().map(Some),
    })
}

/// Reads a column and parses it; the error of one that can't be names the column and never its value.
pub(super) fn value<'r, C, T>(
    column: &'static str,
    row: &'r PgRow,
    parse: impl FnOnce(C) -> Option<T>,
) -> Result<T, Error>
where
    C: Decode<'r, Db> + Type<Db>,
{
    let kept = row.try_get::<C, _>(column)?;
    parse(kept).ok_or_else(|| not_what_was_put_there(column))
}

fn not_what_was_put_there(column: &'static str) -> Error {
    Error::ColumnDecode { index: column.into(), source: "not what was put there".into() }
}
