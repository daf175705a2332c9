//! Questions about single deliveries, and lists.

use std::io;

use sqlx::{
    Execute as _, PgConnection, Postgres as Db, QueryBuilder,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::time::{Instant, timeout_at};

use super::{Postgres, doubt::is_dead, is_stale, meaning, rows};
use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, Status},
    store::{
        Evidence, Quarantined, StoreError,
        query::{
            Cursor, CursorKey, ListDeliveries, ListEvents, ListQuarantine, PAGE_BYTES, Page, PageSize,
            RawDigest, RawEvent, RawId,
        },
        unreadable::{Read, Table, UnreadableRow, read},
    },
};

impl Postgres {
    /// Asks one question, within the time for it. It is planned for its own values: a plan kept for any values may
    /// take the index of a common error code where a rare carrier's would do.
    pub(super) async fn ask(&self, question: QueryBuilder<Db>) -> Result<Vec<PgRow>, StoreError> {
        let deadline = Instant::now() + self.options.read_timeout;
        self.ask_once(question, false, deadline).await.map_err(meaning)
    }

    /// See [`crate::store::Store::now`].
    pub(super) async fn read_now(&self) -> Result<Timestamp, StoreError> {
        let rows = self.ask(QueryBuilder::new("SELECT clock_timestamp() AS now")).await?;
        let now = rows::time(&rows[0], "now").map_err(meaning)?;
        self.set_clock(now);
        Ok(now)
    }

    /// Asks for what has a key, by a plan that is kept; by a new one if a migration has overtaken that.
    async fn look_up(&self, question: impl Fn() -> QueryBuilder<Db>) -> Result<Vec<PgRow>, StoreError> {
        let deadline = Instant::now() + self.options.read_timeout;
        match self.ask_once(question(), self.named_statements(), deadline).await {
            Err(error) if is_stale(&error) => self.ask_once(question(), false, deadline).await,
            answer => answer,
        }
        .map_err(meaning)
    }

    /// Asks; if the connection has ended, once more over another one.
    async fn ask_once(
        &self,
        mut question: QueryBuilder<Db>,
        named: bool,
        deadline: Instant,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let late = |_| sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        let sql = question.sql();
        let arguments = question.build().take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
        let mut is_again = false;
        loop {
            let mut lent = Lent(Some(timeout_at(deadline, self.readers.acquire()).await.map_err(late)??));
            let connection = lent.0.as_deref_mut().expect("it is taken below, at the end");
            let question = sqlx::query_with(sql.clone(), arguments.clone()).persistent(named);
            match timeout_at(deadline, self.answer(connection, question)).await.map_err(late)? {
                Ok(answer) => {
                    // Back to the pool.
                    drop(lent.0.take());
                    return Ok(answer);
                }
                Err(error) if is_dead(&error) => {
                    // The pool checks the others before it lends them.
                    self.doubt.found(&error);
                    if std::mem::replace(&mut is_again, true) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn answer(
        &self,
        connection: &mut PgConnection,
        question: Query<'_, Db, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        if !self.options.pgbouncer {
            return question.fetch_all(connection).await;
        }
        self.begin(connection, self.options.read_timeout, self.options.read_timeout).await?;
        let answer = question.fetch_all(&mut *connection).await?;
        sqlx::raw_sql("COMMIT").execute(connection).await?;
        Ok(answer)
    }

    /// See [`crate::store::Store::delivery`].
    pub(super) async fn read_delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let found = self.look_up(|| one(id)).await?;
        let Some(row) = found.first() else { return Ok(None) };
        match rows::each_delivery(row).map_err(meaning)? {
            Ok(delivery) => Ok(Some(delivery)),
            Err(unreadable) => {
                self.left_out.note(&unreadable);
                Err(StoreError::Unreadable(unreadable))
            }
        }
    }

    /// See [`crate::store::Store::settled_among`].
    pub(super) async fn read_settled(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
        let found = self.ask(settled_among(ids)).await?;
        let entry = |row| read(Table::Deliveries, rows::id(row), || rows::raw_id(row));
        let settled = found.iter().map(entry).collect::<Result<Vec<_>, _>>().map_err(meaning)?;
        Ok(self.left_out.readable(settled))
    }

    /// See [`crate::store::Store::list_events`].
    pub(super) async fn list_events_of(&self, question: &ListEvents) -> Result<Page<Evidence>, StoreError> {
        let entry = |row: &PgRow| {
            let key = RawEvent::new(&rows::raw_digest(row));
            let cursor = Cursor { time: rows::time(row, "sorted_at")?, key };
            Ok((rows::each_evidence(row, &question.id)?, cursor))
        };
        let page =
            page(&self.look_up(|| events_of(question)).await?, entry, question.size).map_err(meaning)?;
        self.note_all(&page.unreadable);
        Ok(page)
    }

    /// See [`crate::store::Store::deliveries`].
    pub(super) async fn list_deliveries(
        &self,
        question: &ListDeliveries,
    ) -> Result<Page<Delivery>, StoreError> {
        let entry = |row: &PgRow| {
            let key = RawId::new(&rows::raw_id(row));
            Ok((rows::each_delivery(row)?, Cursor { time: rows::time(row, "listed_at")?, key }))
        };
        let found = self.ask(list(question)).await?;
        let found = found.iter().map(entry).collect::<Result<_, _>>().map_err(meaning)?;
        let page = Page::of(found, question.size);
        self.note_all(&page.unreadable);
        Ok(page)
    }

    /// See [`crate::store::Store::unlisted`].
    pub(super) async fn read_unlisted(&self) -> Result<Vec<UnreadableRow>, StoreError> {
        let found = self.ask(unlisted()).await?;
        let name = |row| UnreadableRow::new(Table::Deliveries, &rows::raw_id(row), "listed_at");
        Ok(found.iter().map(name).collect())
    }

    /// See [`crate::store::Store::quarantine`].
    pub(super) async fn list_quarantine(
        &self,
        question: &ListQuarantine,
    ) -> Result<Page<Quarantined>, StoreError> {
        let entry = |row: &PgRow| {
            let digest = rows::raw_digest(row);
            let cursor = Cursor { time: rows::time(row, "received_at")?, key: RawDigest::new(&digest) };
            let name = || hex::encode(digest).into_bytes();
            Ok((read(Table::Quarantine, rows::quarantined(row), name)?, cursor))
        };
        let page = page(&self.ask(list_of_quarantine(question)).await?, entry, question.size);
        let page = page.map_err(meaning)?;
        self.note_all(&page.unreadable);
        Ok(page)
    }

    /// Counts and names rows that were left out.
    fn note_all(&self, unreadable: &[UnreadableRow]) {
        unreadable.iter().for_each(|row| self.left_out.note(row));
    }
}

/// A page of what [`within_bytes`] has found.
fn page<T, K: CursorKey>(
    rows: &[PgRow],
    entry: impl Fn(&PgRow) -> Result<(Read<T>, Cursor<K>), sqlx::Error>,
    size: PageSize,
) -> Result<Page<T>, sqlx::Error> {
    let found = rows.first().map(|row| rows::count(row, "found")).transpose()?.unwrap_or_default();
    let entries = rows.iter().map(entry).collect::<Result<_, _>>()?;
    Ok(Page::among(entries, usize::try_from(found).unwrap_or(usize::MAX), size))
}

/// A connection of the pool that is closed rather than given back, unless its question was answered.
struct Lent(Option<PoolConnection<Db>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

pub(super) fn one(id: &DeliveryId) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(rows::DELIVERY).push(" FROM deliveries WHERE id = ").push_bind(id.key().uuid());
    sql
}

pub(super) fn settled_among(ids: &[DeliveryId]) -> QueryBuilder<Db> {
    let ids: Vec<_> = ids.iter().map(|id| id.key().uuid()).collect();
    let mut sql = QueryBuilder::new("SELECT id, text_id FROM deliveries WHERE id = ANY(");
    sql.push_bind(ids).push(") AND status <> 'sent'");
    sql
}

pub(super) fn events_of(question: &ListEvents) -> QueryBuilder<Db> {
    within_bytes("sorted_at, digest", |sql| {
        let id = question.id.key().uuid();
        // A row whose time cannot be read has a place all the same.
        sql.push("SELECT * FROM (SELECT *, LEAST(GREATEST(received_at, ").push(FIRST).push("), ").push(LAST);
        sql.push(") AS sorted_at FROM (SELECT digest, ").push(rows::EVIDENCE);
        sql.push(" FROM older_events WHERE delivery_id = ").push_bind(id);
        // The one that won stands in the delivery's own row, its digest at the end of its standing.
        sql.push(" UNION ALL SELECT substring(standing FROM 11), ").push(rows::EVIDENCE);
        sql.push(" FROM deliveries WHERE id = ").push_bind(id).push(") AS told) AS events");
        if let Some(Cursor { time, key }) = &question.after {
            sql.push(" WHERE (sorted_at, digest) > (").push_bind(time.date_time());
            sql.push(", ").push_bind(key.as_bytes()).push(")");
        }
        sql.push(" ORDER BY sorted_at, digest LIMIT ").push_bind(question.size.and_one_more());
    })
}

/// The first of some rows, until their bodies reach the bytes of a page, and how many rows there were. Bodies that are
/// left out are not read: their length stands in front of them.
fn within_bytes(order: &'static str, rows: impl FnOnce(&mut QueryBuilder<Db>)) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT * FROM (SELECT *, count(*) OVER () AS found, ");
    sql.push("sum(octet_length(body)) OVER (ORDER BY ").push(order);
    sql.push(" ROWS UNBOUNDED PRECEDING) - octet_length(body) AS ahead FROM (");
    rows(&mut sql);
    sql.push(") AS page) AS measured WHERE ahead < ").push_bind(PAGE_BYTES).push(" ORDER BY ").push(order);
    sql
}

/// A page's statement: the first rows of each range that an index has in order, then the first of these.
pub(super) fn list(question: &ListDeliveries) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT * FROM (");
    for (n, status) in question.ranges().into_iter().enumerate() {
        sql.push(if n == 0 { "" } else { " UNION ALL " });
        sql.push("SELECT ").push(rows::DELIVERY).push(" FROM (");
        range(&mut sql, question, status);
        sql.push(") AS range");
    }
    sql.push(") AS ranges ORDER BY");
    last_first(&mut sql, question);
    sql
}

/// The text of an id, in the order of which those of one time are listed; no index has it.
const TEXT: &str = "COALESCE(text_id, id::text COLLATE \"C\")";

/// The first time that a row may have, and the end of all.
const FIRST: &str = "timestamptz '0001-01-01 00:00:00+00'";
const END: &str = "timestamptz '10000-01-01 00:00:00+00'";
const LAST: &str = "timestamptz '9999-12-31 23:59:59.999999+00'";

/// The month of a delivery, as the index by phone has it.
const MONTH: &str = "date_trunc('month', listed_at AT TIME ZONE 'UTC')";

fn last_first(sql: &mut QueryBuilder<Db>, question: &ListDeliveries) {
    sql.push(" listed_at DESC, ").push(TEXT).push(" DESC LIMIT ");
    sql.push_bind(question.size.and_one_more());
}

fn range(sql: &mut QueryBuilder<Db>, question: &ListDeliveries, status: Option<Status>) {
    sql.push("SELECT ").push(rows::DELIVERY).push(" FROM deliveries WHERE TRUE");
    if let Some(phone) = &question.phone {
        sql.push(" AND phone = ").push_bind(phone.reveal());
    }
    if let Some(code) = &question.error_code {
        sql.push(" AND error_code = ").push_bind(code.as_str());
    }
    if let Some(carrier) = &question.carrier {
        sql.push(" AND carrier = ").push_bind(carrier.as_str());
    }
    if let Some(status) = status {
        sql.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(from) = question.from {
        bound(sql, question, ">=", from);
    }
    if let Some(to) = question.to {
        bound(sql, question, "<", to);
    }
    // A row that is listed at a time that is none has no place in any list.
    if question.from.is_none() {
        sql.push(" AND listed_at >= ").push(FIRST);
    }
    if question.to.is_none() {
        sql.push(" AND listed_at < ").push(END);
    }
    if let Some(Cursor { time, key }) = &question.after {
        bound(sql, question, "<=", *time);
        sql.push(" AND (listed_at, ").push(TEXT).push(") < (").push_bind(time.date_time());
        sql.push(", ").push_bind(key.as_text()).push(")");
    }
    sql.push(" ORDER BY ");
    if question.phone.is_some() {
        // Month by month, so that few rows are read of a phone that has many.
        sql.push(MONTH).push(" DESC, ");
    }
    last_first(sql, question);
}

/// A bound of the time; of a phone's deliveries also of the month, which their index has.
fn bound(sql: &mut QueryBuilder<Db>, question: &ListDeliveries, is: &'static str, time: Timestamp) {
    sql.push(" AND listed_at ").push(is).push(" ").push_bind(time.date_time());
    if question.phone.is_some() {
        let is = if is == ">=" { ">=" } else { "<=" };
        sql.push(" AND ").push(MONTH).push(" ").push(is).push(" date_trunc('month', ");
        sql.push_bind(time.date_time()).push(" AT TIME ZONE 'UTC')");
    }
}

/// All statuses are named because the index has them before the time.
fn unlisted() -> QueryBuilder<Db> {
    const OF_ANY_STATUS: &str =
        "SELECT id, text_id FROM deliveries WHERE status IN ('sent', 'delivered', 'failed') AND listed_at ";
    let mut sql = QueryBuilder::new(OF_ANY_STATUS);
    sql.push("< ").push(FIRST).push(" UNION ALL ").push(OF_ANY_STATUS);
    sql.push(">= ").push(END).push(" LIMIT 500");
    sql
}

pub(super) fn list_of_quarantine(question: &ListQuarantine) -> QueryBuilder<Db> {
    const ORDER: &str = "received_at DESC, digest DESC";
    within_bytes(ORDER, |sql| {
        sql.push("SELECT ")
            .push(rows::QUARANTINED)
            .push(" FROM quarantine WHERE received_at >= ")
            .push(FIRST);
        sql.push(" AND received_at < ").push(END);
        if let Some(Cursor { time, key }) = &question.after {
            sql.push(" AND (received_at, digest) < (").push_bind(time.date_time());
            sql.push(", ").push_bind(key.as_bytes()).push(")");
        }
        sql.push(" ORDER BY ").push(ORDER).push(" LIMIT ").push_bind(question.size.and_one_more());
    })
}
