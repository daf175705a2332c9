//! What changed: noted by commits, read by those who follow, announced to other replicas.

use async_trait::async_trait;
use sqlx::{
    PgConnection, Postgres as Db, QueryBuilder, Row,
    postgres::{PgListener, PgPoolOptions},
};
use uuid::Uuid;

use super::{Postgres, meaning, read::of, rows, write::Work};
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
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.to.clone());
        let mut listener = self.in_time(PgListener::connect_with(&pool)).await?;
        // What was missed meanwhile would not be told.
        listener.eager_reconnect(false);
        self.in_time(listener.listen(CHANNEL)).await?;
        Ok(Box::new(Listener { listener, who: who.to_owned() }))
    }
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

    fn is_one_statement(&self) -> bool {
        true
    }

    /// Not in the transactions that change something: those would commit one after another then.
    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<(), sqlx::Error> {
        let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(self.0);
        notify.persistent(named).execute(connection).await.map(drop)
    }
}

struct Listener {
    listener: PgListener,
    who: String,
}

#[async_trait]
impl Notices for Listener {
    async fn next(&mut self) -> Result<(), StoreError> {
        loop {
            match self.listener.try_recv().await.map_err(meaning)? {
                Some(notice) if notice.payload() == self.who => {}
                Some(_) => return Ok(()),
                None => return Err(StoreError::Unavailable("the connection that listens was lost".into())),
            }
        }
    }
}
