//! Questions about single deliveries, and lists.

use std::time::Duration;

use sqlx::{QueryBuilder, Sqlite as Db, sqlite::SqliteRow};
use tokio::time::{Instant, timeout_at};

use super::{Sqlite, meaning, rows};
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

impl Sqlite {
    /// See [`crate::store::Store::now`]: the database has its machine's, and so have we.
    pub(super) async fn read_now(&self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::now())
    }

    /// Asks one question, within the time for it.
    pub(super) async fn ask(&self, question: QueryBuilder<Db>) -> Result<Vec<SqliteRow>, StoreError> {
        self.ask_within(self.options.read_timeout, question).await
    }

    /// Likewise, within another time.
    pub(super) async fn ask_within(
        &self,
        time: Duration,
        mut question: QueryBuilder<Db>,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let deadline = Instant::now() + time;
        let answer = async {
            let mut connection = self.readers.acquire().await?;
            // SQLite asks this every few thousand steps; without it a question that nobody waits for any more would
            // go on, and keep the log from beginning anew.
            connection.lock_handle().await?.set_progress_handler(4_000, move || Instant::now() < deadline);
            question.build().fetch_all(&mut *connection).await
        };
        let late = |_| StoreError::Unavailable("the question took too long".into());
        timeout_at(deadline, answer).await.map_err(late)?.map_err(meaning)
    }

    /// See [`crate::store::Store::delivery`].
    pub(super) async fn read_delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let found = self.ask(one(id)).await?;
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
        let entry = |row| read(Table::Deliveries, rows::id(row, "id"), || rows::raw_id(row));
        let settled = found.iter().map(entry).collect::<Result<Vec<_>, _>>().map_err(meaning)?;
        Ok(self.left_out.readable(settled))
    }

    /// See [`crate::store::Store::list_events`].
    pub(super) async fn list_events_of(&self, question: &ListEvents) -> Result<Page<Evidence>, StoreError> {
        let entry = |row: &SqliteRow| {
            let key = RawEvent::new(&rows::raw_digest(row));
            let cursor = Cursor { time: rows::time(row, "sorted_at")?, key };
            Ok((rows::each_evidence(row, &question.id)?, cursor))
        };
        let page = page(&self.ask(events_of(question)).await?, entry, question.size).map_err(meaning)?;
        self.note_all(&page.unreadable);
        Ok(page)
    }

    /// See [`crate::store::Store::deliveries`].
    pub(super) async fn list_deliveries(
        &self,
        question: &ListDeliveries,
    ) -> Result<Page<Delivery>, StoreError> {
        let entry = |row: &SqliteRow| {
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
        let entry = |row: &SqliteRow| {
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
    rows: &[SqliteRow],
    entry: impl Fn(&SqliteRow) -> Result<(Read<T>, Cursor<K>), sqlx::Error>,
    size: PageSize,
) -> Result<Page<T>, sqlx::Error> {
    let found = rows.first().map(|row| rows::count(row, "found")).transpose()?.unwrap_or_default();
    let entries = rows.iter().map(entry).collect::<Result<_, _>>()?;
    Ok(Page::among(entries, usize::try_from(found).unwrap_or(usize::MAX), size))
}

pub(super) fn one(id: &DeliveryId) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(rows::DELIVERY).push(" FROM deliveries WHERE id = ").push_bind(id.as_str());
    sql
}

pub(super) fn settled_among(ids: &[DeliveryId]) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT id FROM deliveries WHERE id IN (");
    let mut each = sql.separated(", ");
    for id in ids {
        each.push_bind(id.as_str().to_owned());
    }
    sql.push(") AND status <> 'sent'");
    sql
}

pub(super) fn events_of(question: &ListEvents) -> QueryBuilder<Db> {
    const ORDER: &str = "sorted_at, digest";
    let mut sql = within_bytes(ORDER, |sql| {
        let id = question.id.as_str();
        // A row whose time cannot be read has a place all the same.
        let (first, last) = (Timestamp::EARLIEST.micros(), Timestamp::LATEST.micros());
        let place = format!("rowid AS place, min(max(received_at, {first}), {last}) AS sorted_at, ");
        sql.push("SELECT * FROM (SELECT 0 AS won, ").push(&place).push("digest, length(body) AS bytes");
        sql.push(" FROM older_events WHERE delivery_id = ").push_bind(id);
        // The one that won stands in the delivery's own row, its digest at the end of its standing.
        sql.push(" UNION ALL SELECT 1 AS won, ").push(&place).push("substr(standing, 11), length(body)");
        sql.push(" FROM deliveries WHERE id = ").push_bind(id).push(")");
        if let Some(Cursor { time, key }) = &question.after {
            sql.push(" WHERE (sorted_at, digest) > (").push_bind(time.micros());
            sql.push(", ").push_bind(key.as_bytes()).push(")");
        }
        sql.push(" ORDER BY ").push(ORDER).push(" LIMIT ").push_bind(question.size.and_one_more());
    });
    rows_within_bytes(&mut sql, rows::EVIDENCE, "older_events", "won = 0 AND ");
    sql.push(" UNION ALL ");
    rows_within_bytes(&mut sql, rows::EVIDENCE, "deliveries", "won = 1 AND ");
    sql.push(" ORDER BY ").push(ORDER);
    sql
}

/// Rows of which only the place and the length of their body are read, and how many bytes are ahead of each: as `measured`,
/// for [`rows_within_bytes`].
fn within_bytes(order: &'static str, rows: impl FnOnce(&mut QueryBuilder<Db>)) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("WITH measured AS MATERIALIZED (SELECT *, count(*) OVER () AS found, ");
    sql.push("sum(bytes) OVER (ORDER BY ").push(order);
    sql.push(" ROWS UNBOUNDED PRECEDING) - bytes AS ahead FROM (");
    rows(&mut sql);
    sql.push(")) ");
    sql
}

/// Those rows themselves, until their bodies reach the bytes of a page, and how many rows there were. Bodies that are left
/// out are never read.
fn rows_within_bytes(sql: &mut QueryBuilder<Db>, columns: &str, table: &str, condition: &str) {
    sql.push("SELECT measured.digest AS digest, sorted_at, found");
    for column in columns.split(", ").filter(|column| *column != "digest") {
        sql.push(", it.").push(column).push(" AS ").push(column);
    }
    sql.push(" FROM measured CROSS JOIN ").push(table).push(" AS it ON it.rowid = place WHERE ");
    sql.push(condition).push("ahead < ").push_bind(PAGE_BYTES);
}

/// A page's statement: the first rows of each range that an index has in order, then the first of these.
pub(super) fn list(question: &ListDeliveries) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("");
    for (n, status) in question.ranges().into_iter().enumerate() {
        sql.push(if n == 0 { "" } else { " UNION ALL " });
        sql.push("SELECT ").push(rows::DELIVERY).push(" FROM (");
        range(&mut sql, question, status);
        sql.push(")");
    }
    sql.push(" ORDER BY listed_at DESC, id DESC LIMIT ").push_bind(question.size.and_one_more());
    sql
}

fn range(sql: &mut QueryBuilder<Db>, question: &ListDeliveries, status: Option<Status>) {
    // Named, because SQLite, once somebody has run ANALYZE, may choose one that does not have the range in order.
    let index = match question {
        ListDeliveries { phone: Some(_), .. } => "deliveries_by_phone",
        // Deliveries on their way are few, and few of them have an error code: not all of that code are looked through.
        ListDeliveries { error_code: Some(_), status, .. } if *status != Some(Status::Sent) => {
            "deliveries_by_error_code"
        }
        ListDeliveries { carrier: Some(_), .. } => "deliveries_by_carrier",
        _ => "deliveries_by_status",
    };
    sql.push("SELECT ").push(rows::DELIVERY).push(" FROM deliveries INDEXED BY ").push(index);
    sql.push(" WHERE TRUE");
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
        sql.push(" AND listed_at >= ").push_bind(from.micros());
    }
    if let Some(to) = question.to {
        sql.push(" AND listed_at < ").push_bind(to.micros());
    }
    // A row that is listed at a time that is none has no place in any list. The `+` keeps this from SQLite's choice of a
    // plan, for which a range with two ends would look small enough to skip through all statuses.
    if question.from.is_none() {
        sql.push(" AND +listed_at >= ").push(Timestamp::EARLIEST.micros());
    }
    if question.to.is_none() {
        sql.push(" AND +listed_at <= ").push(Timestamp::LATEST.micros());
    }
    if let Some(Cursor { time, key }) = &question.after {
        sql.push(" AND (listed_at, id) < (").push_bind(time.micros());
        sql.push(", CAST(").push_bind(key.as_bytes()).push(" AS TEXT))");
    }
    sql.push(" ORDER BY listed_at DESC, id DESC LIMIT ").push_bind(question.size.and_one_more());
}

/// All statuses are named because the index has them before the time.
fn unlisted() -> QueryBuilder<Db> {
    const OF_ANY_STATUS: &str =
        "SELECT id FROM deliveries WHERE status IN ('sent', 'delivered', 'failed') AND listed_at ";
    let mut sql = QueryBuilder::new(OF_ANY_STATUS);
    sql.push("< ").push(Timestamp::EARLIEST.micros()).push(" UNION ALL ").push(OF_ANY_STATUS);
    sql.push("> ").push(Timestamp::LATEST.micros()).push(" LIMIT 500");
    sql
}

pub(super) fn list_of_quarantine(question: &ListQuarantine) -> QueryBuilder<Db> {
    const ORDER: &str = "sorted_at DESC, digest DESC";
    let mut sql = within_bytes(ORDER, |sql| {
        sql.push(
            "SELECT rowid AS place, received_at AS sorted_at, digest, length(body) AS bytes FROM quarantine",
        );
        sql.push(" WHERE received_at BETWEEN ");
        sql.push(Timestamp::EARLIEST.micros()).push(" AND ").push(Timestamp::LATEST.micros());
        if let Some(Cursor { time, key }) = &question.after {
            sql.push(" AND (received_at, digest) < (").push_bind(time.micros());
            sql.push(", ").push_bind(key.as_bytes()).push(")");
        }
        sql.push(" ORDER BY received_at DESC, digest DESC LIMIT ").push_bind(question.size.and_one_more());
    });
    rows_within_bytes(&mut sql, rows::QUARANTINED, "quarantine", "");
    sql.push(" ORDER BY ").push(ORDER);
    sql
}
