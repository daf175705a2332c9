//! What changed: noted by commits, read by those who follow, announced to other replicas.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{
    Executor as _, PgConnection, Postgres as Db, QueryBuilder, Row,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgRow},
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    Postgres,
    doubt::{TRUSTED_IDLE, is_dead},
    epoch::position,
    meaning, rows,
    write::Work,
};
use crate::{
    delivery::DeliveryId,
    store::{
        StoreError,
        changes::{Change, ChangePage, Notices, PAGE_BYTES, PAGE_CHANGES, Position},
        unreadable::{Table, read},
    },
};

/// How long a change waits for an older transaction before it is looked up whether that is one of this database.
const PATIENT: Duration = Duration::from_secs(1);

/// What replicas of one database tell each other.
const CHANNEL: &str = "nexo_receiver_changes";

/// Notes changes beside what the transaction has noted before.
const NOTE: &str = concat!(
    "INSERT INTO changes AS known (position, ids, noted_at) SELECT ",
    position!(),
    ", $1::uuid[], now() ON CONFLICT (position) DO UPDATE SET ids = known.ids || EXCLUDED.ids"
);

/// Notes what of these rows is shown otherwise now.
pub(super) async fn note(
    connection: &mut PgConnection,
    ids: &[DeliveryId],
    named: bool,
) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = ids.iter().map(|id| id.key().uuid()).collect();
    sqlx::query(NOTE).bind(ids).persistent(named).execute(connection).await.map(drop)
}

impl Postgres {
    /// See [`crate::store::Store::latest_change`].
    pub(super) async fn read_latest(&self) -> Result<Position, StoreError> {
        let rows = self.ask(QueryBuilder::new(LATEST)).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("no epoch of positions".into()))?;
        let latest = || Ok(Position::after(row.try_get("epoch")?, row.try_get("latest")?));
        latest().map_err(meaning)
    }

    /// See [`crate::store::Store::changes`].
    pub(super) async fn read_changes(&self, after: Position) -> Result<Option<ChangePage>, StoreError> {
        let page = self.page(&self.ask(page_after(after, OLDEST)).await?, after).map_err(meaning)?;
        match page {
            // Something waits: it is worth asking whose the oldest transaction is.
            Some(page) if page.changes.is_empty() && page.held_for >= PATIENT => {
                self.page(&self.ask(page_after(after, OLDEST_OF_OURS)).await?, after).map_err(meaning)
            }
            page => Ok(page),
        }
    }

    /// See [`crate::store::Store::holder_of_changes`].
    pub(super) async fn read_holder(&self) -> Result<Option<String>, StoreError> {
        let rows = self.ask(QueryBuilder::new(HOLDER)).await?;
        rows.first().map(|row| row.try_get("holder")).transpose().map_err(meaning)
    }

    /// See [`crate::store::Store::announce`].
    pub(super) async fn write_announcement(&self, who: &str) -> Result<(), StoreError> {
        self.write(&self.aside, &Announcement(who)).await
    }

    /// See [`crate::store::Store::listen`].
    pub(super) async fn open_listener(&self, who: &str) -> Result<Box<dyn Notices>, StoreError> {
        if self.options.pgbouncer {
            return Err(StoreError::Unavailable("behind pgbouncer nobody can listen".into()));
        }
        let listener = self.in_time(listening(&self.to)).await?;
        let (to, limit, who) = (self.to.clone(), self.options.connect_timeout, who.to_owned());
        Ok(Box::new(Listener { listener, opened: Instant::now(), to, limit, who }))
    }
}

/// A new connection that listens.
async fn listening(to: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(to.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // What was missed meanwhile would not be told.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// The last change below every transaction that is under way. A number that no committed transaction has would be given
/// again after a crash, and what it then notes would be skipped.
const LATEST: &str = "
SELECT epoch, GREATEST(forgotten.position, (
    SELECT position FROM changes
    WHERE position < pg_snapshot_xmin(pg_current_snapshot())::text::bigint + shift
    ORDER BY position DESC LIMIT 1)) AS latest
FROM change_epoch, changes_forgotten AS forgotten WHERE change_epoch.id = 1 AND forgotten.id = 1";

/// The oldest transaction that is under way in any database of the server.
const OLDEST: &str = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint";

/// The oldest transaction that may still note something here. Those of other databases of the server have numbers of the
/// same line; whose a number is, is looked up after the snapshot was taken, so that one which is not found may be ours.
macro_rules! oldest_of_ours {
    () => {
        "(SELECT MIN(id::text::bigint) FROM pg_snapshot_xip(pg_current_snapshot()) AS id
            WHERE NOT EXISTS (
                SELECT FROM pg_stat_activity WHERE backend_xid = id::xid
                AND datid <> (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND NOT EXISTS (
                SELECT FROM pg_prepared_xacts WHERE transaction = id::xid AND database <> current_database()))"
    };
}

/// Whose transaction that is, as far as this role may see it.
const HOLDER: &str = concat!(
    "SELECT COALESCE(
        (SELECT format('process %s, application %L, state %s, for %s s', pid, application_name,
            COALESCE(state, 'hidden'), COALESCE(EXTRACT(EPOCH FROM now() - xact_start)::bigint::text, 'an unknown number of'))
        FROM pg_stat_activity WHERE backend_xid::text::bigint = oldest & 4294967295 LIMIT 1),
        (SELECT format('prepared transaction %L since %s', gid, prepared)
        FROM pg_prepared_xacts WHERE transaction::text::bigint = oldest & 4294967295),
        'unknown') AS holder
    FROM ",
    oldest_of_ours!(),
    " AS ours (oldest) WHERE oldest IS NOT NULL"
);

/// The number below which no transaction of this database is under way.
const OLDEST_OF_OURS: &str =
    concat!("COALESCE(", oldest_of_ours!(), ", pg_snapshot_xmax(pg_current_snapshot())::text::bigint)");

/// Everything about a page in one snapshot: whether all since the position is kept, the changes below the bound, and
/// their deliveries. The first commit goes on after those of its changes that were seen.
fn page_after(after: Position, oldest: &'static str) -> QueryBuilder<Db> {
    let most = i64::try_from(PAGE_CHANGES).unwrap_or(i64::MAX);
    let mut sql =
        QueryBuilder::new("WITH bound AS MATERIALIZED (SELECT epoch, forgotten.position AS forgotten, ");
    sql.push(oldest).push(
        " + shift AS below FROM change_epoch, changes_forgotten AS forgotten
            WHERE change_epoch.id = 1 AND forgotten.id = 1)",
    );
    sql.push(
        ", noted AS (SELECT position, unnest(rest) AS changed, generate_subscripts(rest, 1) AS nth FROM (",
    );
    sql.push("SELECT position, CASE WHEN position = ").push_bind(after.commit).push(" THEN ids[");
    sql.push_bind(after.seen()).push(" + 1:] ELSE ids END AS rest FROM changes WHERE position >= ");
    sql.push_bind(after.commit).push(" ORDER BY position LIMIT ").push_bind(most);
    sql.push(") AS commits ORDER BY position LIMIT ").push_bind(most);
    sql.push("), kept AS MATERIALIZED (SELECT *, COALESCE(").push_bind(after.commit);
    sql.push(" BETWEEN forgotten AND CASE WHEN epoch = ").push_bind(after.epoch);
    sql.push(
        " THEN GREATEST(forgotten, (SELECT MAX(position) FROM changes)) ELSE (
            SELECT position FROM change_epochs_ended AS ended WHERE ended.epoch = ",
    );
    sql.push_bind(after.epoch).push(") END, FALSE) AS kept, ").push(HELD).push(" AS held FROM bound)");
    sql.push(", page AS (SELECT epoch, kept, held, position, changed, nth + CASE WHEN position = ");
    sql.push_bind(after.commit).push(" THEN ").push_bind(after.seen()).push(" ELSE 0 END AS seen, ");
    sql.push(rows::DELIVERY).push(", ").push(BYTES_BEFORE);
    sql.push(" AS before FROM kept LEFT JOIN noted ON kept AND position < below LEFT JOIN LATERAL (SELECT ");
    sql.push(rows::DELIVERY);
    sql.push(" FROM deliveries WHERE id = changed LIMIT 1) AS delivery ON TRUE)");
    sql.push(" SELECT * FROM page WHERE COALESCE(before, 0) < ");
    sql.push_bind(i64::try_from(PAGE_BYTES).unwrap_or(i64::MAX)).push(" ORDER BY position, seen");
    sql
}

/// For how many seconds the oldest change has waited that can't be read yet.
const HELD: &str = "COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - (
    SELECT noted_at FROM changes WHERE position >= below ORDER BY position LIMIT 1)), 0)::float8";

/// The text of the page's deliveries before this one.
const BYTES_BEFORE: &str = "SUM(octet_length(concat(text_id, carrier, error_code)))
    OVER (ORDER BY position, nth ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)";

impl Postgres {
    fn page(&self, rows: &[PgRow], after: Position) -> Result<Option<ChangePage>, sqlx::Error> {
        let Some(first) = rows.first() else { return Ok(None) };
        let epoch = first.try_get("epoch")?;
        if !first.try_get::<bool, _>("kept")? {
            return Ok(None);
        }
        let held_for = Duration::try_from_secs_f64(first.try_get("held")?).unwrap_or_default();
        let mut page = ChangePage::empty(Position::after(epoch, after.commit), held_for);
        for row in rows {
            let Some(commit) = row.try_get("position")? else { break };
            let seen = rows::value("seen", row, |seen: i32| u32::try_from(seen).ok())?;
            page.end = Position::within(epoch, commit, seen);
            // One that was deleted since is nobody's any more.
            if row.try_get::<Option<Uuid>, _>("id")?.is_some() {
                let change = read(Table::Deliveries, change(row, page.end), || rows::raw_id(row))?;
                page.changes.extend(self.left_out.readable([change]));
            }
        }
        Ok(Some(page))
    }
}

fn change(row: &PgRow, position: Position) -> Result<Change, sqlx::Error> {
    Ok(Change { position, listed_at: rows::time(row, "listed_at")?, delivery: rows::delivery(row)? })
}

struct Announcement<'a>(&'a str);

impl Work for Announcement<'_> {
    type Done = ();

    /// Whoever hears it twice looks twice.
    fn is_repeatable(&self) -> bool {
        true
    }

    fn is_one_statement(&self) -> bool {
        true
    }

    /// Not in the transactions that change something: those would commit one after another then.
    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<(), sqlx::Error> {
        let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(self.0);
        notify.persistent(named).execute(connection).await.map(drop)
    }
}

/// A connection that listens and has lived for less is not opened again at once.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

struct Listener {
    listener: PgListener,
    opened: Instant,
    to: PgConnectOptions,
    /// How long opening a connection may take.
    limit: Duration,
    who: String,
}

#[async_trait]
impl Notices for Listener {
    async fn next(&mut self) -> Result<(), StoreError> {
        loop {
            match timeout(TRUSTED_IDLE, self.listener.try_recv()).await {
                Ok(Ok(Some(notice))) if notice.payload() == self.who => {}
                Ok(Ok(Some(_))) => return Ok(()),
                Ok(Err(error)) if !is_dead(&error) => return Err(meaning(error)),
                // It has ended.
                Ok(Ok(None) | Err(_)) => return self.reopen().await,
                Err(_) if self.is_well().await => {}
                Err(_) => return self.reopen().await,
            }
        }
    }
}

impl Listener {
    /// Whether the other end still answers, and takes writes: nobody announces anything to a server that doesn't.
    async fn is_well(&mut self) -> bool {
        let asked = (&mut self.listener).fetch_one("SELECT current_setting('transaction_read_only') = 'off'");
        let answer = timeout(self.limit, asked).await;
        answer.is_ok_and(|row| row.and_then(|row| row.try_get(0)).unwrap_or(false))
    }

    /// Listens over a new connection. What was announced meanwhile was not heard, so that this counts as a notice.
    async fn reopen(&mut self) -> Result<(), StoreError> {
        let lost = || StoreError::Unavailable("the connection that listens was lost".into());
        if self.opened.elapsed() < SHORTEST_LIFE {
            return Err(lost());
        }
        let listener = timeout(self.limit, listening(&self.to)).await.map_err(|_| lost())?;
        self.listener = listener.map_err(meaning)?;
        self.opened = Instant::now();
        Ok(())
    }
}
