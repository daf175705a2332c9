//! What changed: noted by commits, read by those who follow, announced to other replicas.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{
    Executor as _, PgConnection, Postgres as Db, QueryBuilder, Row,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    Postgres,
    doubt::{TRUSTED_IDLE, is_dead},
    meaning,
    read::of,
    rows,
    write::Work,
};
use crate::{
    delivery::{DeliveryId, DeliveryKey},
    store::{
        StoreError,
        changes::{Change, Noted, Notices, Position},
    },
};

/// What replicas of one database tell each other.
const CHANNEL: &str = "nexo_receiver_changes";

/// Commits that are read at one time.
const MOST_COMMITS: i64 = 256;

/// Notes changes beside what the transaction has noted before.
const NOTE: &str = "
INSERT INTO changes AS known (position, ids, noted_at)
SELECT pg_current_xact_id()::text::bigint, $1::uuid[], now()
ON CONFLICT (position) DO UPDATE SET ids = known.ids || EXCLUDED.ids";

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
        let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 AS latest";
        let rows = self.ask(QueryBuilder::new(sql)).await?;
        let latest = rows.first().map(|row| row.try_get("latest")).transpose().map_err(meaning)?;
        Ok(Position::after(latest.unwrap_or_default()))
    }

    /// See [`crate::store::Store::is_kept`].
    pub(super) async fn read_is_kept(&self, position: Position) -> Result<bool, StoreError> {
        let mut sql = QueryBuilder::new("SELECT position <= ");
        sql.push_bind(position.commit).push(" AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint > ");
        sql.push_bind(position.commit).push(" AS kept FROM changes_forgotten");
        let rows = self.ask(sql).await?;
        rows.first().map_or(Ok(false), |row| row.try_get("kept")).map_err(meaning)
    }

    /// See [`crate::store::Store::changes`].
    pub(super) async fn read_changes(&self, after: Position) -> Result<Vec<Change>, StoreError> {
        let mut noted = Noted::nothing();
        for row in self.ask(noted_since(after)).await? {
            let position = row.try_get("position").map_err(meaning)?;
            let ids: Vec<Uuid> = row.try_get("ids").map_err(meaning)?;
            noted.add(position, ids.into_iter().map(DeliveryKey::from_uuid), after);
        }
        let ids = noted.ids();
        let mut deliveries = Vec::with_capacity(ids.len());
        if !ids.is_empty() {
            for row in self.ask(of(&ids)).await? {
                deliveries.push(rows::delivery(&row).map_err(meaning)?);
            }
        }
        Ok(noted.with(deliveries, |delivery| delivery.id.key()))
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

/// Below every transaction that is under way.
pub(super) fn noted_since(after: Position) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new("SELECT position, ids FROM changes WHERE position >= ");
    sql.push_bind(after.commit);
    sql.push(
        " AND position < pg_snapshot_xmin(pg_current_snapshot())::text::bigint ORDER BY position LIMIT ",
    );
    sql.push_bind(MOST_COMMITS);
    sql
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
