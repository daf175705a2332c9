//! Commits: the only statements that write deliveries, events and quarantine.

use sqlx::{
    PgConnection, Postgres as Db, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::time::timeout;

use super::{Postgres, is_conflict, is_stale, meaning, rows};
use crate::{
    batch::{Batch, FoldedEvent, FoldedQuarantine, Outcome},
    delivery::Delivery,
    event::Arrival,
    signature::Verified,
    store::{StoreError, committed::Committed},
};

impl Postgres {
    /// See [`crate::store::Store::commit`].
    pub(super) async fn commit_batch(&self, batch: &Batch) -> Result<Vec<Outcome>, StoreError> {
        self.write(Work::Commit(batch)).await?.outcomes(batch)
    }

    /// See [`crate::store::Store::release`].
    pub(super) async fn commit_release(&self, mut understood: Vec<Arrival>) -> Result<(), StoreError> {
        understood.retain(|arrival| arrival.meaning.is_ok());
        self.write(Work::Release(&understood)).await.map(drop)
    }

    /// Does work with the connection that writes, again if another transaction was in its way.
    ///
    /// The connection stays only if it is known to be well. Whoever stops waiting in the middle, be it the time
    /// limit, has taken it along.
    async fn write(&self, work: Work<'_>) -> Result<Committed, StoreError> {
        const ATTEMPTS: usize = 5;
        let whole = async {
            let mut slot = self.writer.lock().await;
            let mut attempts = 0;
            loop {
                attempts += 1;
                let mut connection = match slot.take() {
                    Some(connection) => connection,
                    None => self.connect_writer().await?,
                };
                match self.run(work, &mut connection).await {
                    Ok(done) => {
                        *slot = Some(connection);
                        return Ok(done);
                    }
                    Err(error) if attempts < ATTEMPTS && is_conflict(&error) => *slot = Some(connection),
                    // A new connection has no old plans.
                    Err(error) if attempts == 1 && is_stale(&error) => {}
                    Err(error) => {
                        let error = meaning(error);
                        if matches!(error, StoreError::Refused(_)) {
                            *slot = Some(connection);
                        }
                        return Err(error);
                    }
                }
            }
        };
        let late = |_| StoreError::Unavailable("the database did not answer a commit in time".into());
        timeout(self.options.commit_timeout, whole).await.map_err(late)?
    }

    async fn run(&self, work: Work<'_>, connection: &mut PgConnection) -> Result<Committed, sqlx::Error> {
        let named = self.named_statements();
        if let (Work::Commit(batch), true) = (work, named) {
            // A statement alone is a transaction.
            return insert(connection, batch, true).await;
        }
        self.begin(connection, self.options.commit_timeout).await?;
        let done = match work {
            Work::Commit(batch) => insert(connection, batch, named).await,
            Work::Release(understood) => release(connection, understood, named).await,
        };
        // Nothing is ever committed after an error: the server would roll back and call it a success.
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        sqlx::raw_sql(end).execute(connection).await?;
        done
    }
}

/// What is done in one transaction.
#[derive(Clone, Copy)]
enum Work<'a> {
    Commit(&'a Batch),
    Release(&'a [Arrival]),
}

async fn insert(connection: &mut PgConnection, batch: &Batch, named: bool) -> Result<Committed, sqlx::Error> {
    let mut committed = Committed::default();
    for row in statement(batch).persistent(named).fetch_all(connection).await? {
        add(&mut committed, &row)?;
    }
    Ok(committed)
}

fn add(committed: &mut Committed, row: &PgRow) -> Result<(), sqlx::Error> {
    match row.try_get::<Option<i64>, _>("times")? {
        Some(_) => committed.event(rows::digest(row, "mark")?, rows::count(row, "times")?),
        None => committed.state(rows::standing(row, "mark")?),
    }
    Ok(())
}

async fn release(
    connection: &mut PgConnection,
    understood: &[Arrival],
    named: bool,
) -> Result<Committed, sqlx::Error> {
    let digests: Vec<_> = understood.iter().map(|arrival| digest(&arrival.verified)).collect();
    let delete = "DELETE FROM quarantine WHERE digest = ANY($1) RETURNING digest, times";
    let mut deleted = std::collections::HashMap::new();
    for row in sqlx::query(delete).bind(digests).persistent(named).fetch_all(&mut *connection).await? {
        deleted.insert(rows::digest(&row, "digest")?, rows::count(&row, "times")?);
    }
    let released = understood.iter().filter_map(|arrival| {
        // Taken out, so that one that stands twice in the list counts once.
        deleted.remove(&arrival.verified.digest()).map(|times| Arrival { times, ..arrival.clone() })
    });
    insert(connection, &Batch::fold(released.collect()).0, named).await
}

/// The whole batch in one statement: one transaction, one round trip.
///
/// `UNION ALL` reads its parts one after the other, so that every replica locks events before deliveries, and within
/// each the rows in the batch's order: two that overlap wait for each other, seldom in a circle. The rule by which a
/// state changes is [`Delivery::merge`]'s; `EXCLUDED` is what the batch tells.
const STATEMENT: &str = "
WITH known_events AS (
    INSERT INTO events (delivery_id, digest, body, signature, kind, status, source, received_at, times)
    SELECT * FROM UNNEST($1::text[], $2::bytea[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::text[],
        $8::timestamptz[], $9::bigint[])
    ON CONFLICT (delivery_id, digest) DO UPDATE SET
        times = events.times + EXCLUDED.times,
        signature = LEAST(events.signature, EXCLUDED.signature),
        received_at = LEAST(events.received_at, EXCLUDED.received_at)
    RETURNING digest, times
), changed_deliveries AS (
    INSERT INTO deliveries (id, phone, carrier, status, cost, error_code, created_at, completed_at, received_at,
        listed_at, source, standing)
    SELECT * FROM UNNEST($10::text[], $11::text[], $12::text[], $13::text[], $14::numeric[], $15::text[],
        $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[], $20::text[], $21::bytea[])
    ON CONFLICT (id) DO UPDATE SET
        phone        = CASE WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.phone ELSE deliveries.phone END,
        carrier      = CASE WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.carrier ELSE deliveries.carrier END,
        status       = CASE WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.status ELSE deliveries.status END,
        cost         = CASE WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.cost ELSE deliveries.cost END,
        error_code   = CASE WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.error_code ELSE deliveries.error_code END,
        completed_at = CASE WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.completed_at ELSE deliveries.completed_at END,
        source       = CASE WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.source ELSE deliveries.source END,
        standing     = GREATEST(EXCLUDED.standing, deliveries.standing),
        received_at  = CASE
            WHEN EXCLUDED.standing > deliveries.standing THEN EXCLUDED.received_at
            WHEN EXCLUDED.standing = deliveries.standing THEN LEAST(EXCLUDED.received_at, deliveries.received_at)
            ELSE deliveries.received_at END,
        created_at   = LEAST(EXCLUDED.created_at, deliveries.created_at)
    WHERE EXCLUDED.standing > deliveries.standing
        OR (EXCLUDED.standing = deliveries.standing AND EXCLUDED.received_at < deliveries.received_at)
        OR EXCLUDED.created_at < deliveries.created_at
        OR (EXCLUDED.created_at IS NOT NULL AND deliveries.created_at IS NULL)
    RETURNING standing
), quarantined AS (
    INSERT INTO quarantine (digest, body, signature, reason, detail, received_at, times)
    SELECT * FROM UNNEST($22::bytea[], $23::bytea[], $24::bytea[], $25::text[], $26::text[], $27::timestamptz[],
        $28::bigint[])
    ON CONFLICT (digest) DO UPDATE SET times = quarantine.times + EXCLUDED.times
)
SELECT digest AS mark, times FROM known_events
UNION ALL
SELECT standing, NULL FROM changed_deliveries";

type Statement = Query<'static, Db, PgArguments>;

fn statement(batch: &Batch) -> Statement {
    let with_events = bind_events(sqlx::query(STATEMENT), &batch.events);
    bind_quarantine(bind_deliveries(with_events, &batch.deliveries), &batch.quarantine)
}

fn bind_events(statement: Statement, events: &[FoldedEvent]) -> Statement {
    statement
        .bind(column(events, |folded| folded.event.told.id.as_str()))
        .bind(column(events, |folded| digest(&folded.verified)))
        .bind(column(events, |folded| folded.verified.body().as_ref()))
        .bind(column(events, |folded| signature(&folded.verified)))
        .bind(column(events, |folded| folded.event.kind.as_str()))
        .bind(column(events, |folded| folded.event.told.status.as_str()))
        .bind(column(events, |folded| folded.event.told.source.as_str()))
        .bind(column(events, |folded| folded.event.told.received_at.date_time()))
        .bind(column(events, |folded| rows::integer(folded.times)))
}

fn bind_deliveries(statement: Statement, deliveries: &[Delivery]) -> Statement {
    statement
        .bind(column(deliveries, |told| told.id.as_str()))
        .bind(column(deliveries, |told| told.phone.reveal()))
        .bind(column(deliveries, |told| told.carrier.as_str()))
        .bind(column(deliveries, |told| told.status.as_str()))
        .bind(column(deliveries, |told| told.cost.amount()))
        .bind(column(deliveries, |told| told.error_code.as_deref()))
        .bind(column(deliveries, |told| told.created_at.map(|time| time.date_time())))
        .bind(column(deliveries, |told| told.completed_at.map(|time| time.date_time())))
        .bind(column(deliveries, |told| told.received_at.date_time()))
        .bind(column(deliveries, |told| told.listed_at().date_time()))
        .bind(column(deliveries, |told| told.source.as_str()))
        .bind(column(deliveries, |told| told.standing.as_bytes().as_slice()))
}

fn bind_quarantine(statement: Statement, quarantine: &[FoldedQuarantine]) -> Statement {
    statement
        .bind(column(quarantine, |folded| digest(&folded.verified)))
        .bind(column(quarantine, |folded| folded.verified.body().as_ref()))
        .bind(column(quarantine, |folded| signature(&folded.verified)))
        .bind(column(quarantine, |folded| folded.reason.code()))
        .bind(column(quarantine, |folded| folded.reason.to_string()))
        .bind(column(quarantine, |folded| folded.received_at.date_time()))
        .bind(column(quarantine, |folded| rows::integer(folded.times)))
}

/// One column of many rows.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

fn digest(verified: &Verified) -> Vec<u8> {
    verified.digest().as_bytes().to_vec()
}

fn signature(verified: &Verified) -> Vec<u8> {
    verified.signature().as_bytes().to_vec()
}
