//! The queue of deliveries to be polled: what a commit puts into it, and the turns in which it is worked off.

use sqlx::{PgConnection, QueryBuilder, postgres::types::PgInterval};

use super::{Postgres, rows, write::Work};
use crate::{
    batch::FoldedEvent,
    delivery::{GIVEN_UP_HOURS, Status},
    store::{
        StoreError,
        polls::{LONGEST_PAUSE, TAKEN_OUT, Turn, Turned, micros},
    },
};

/// In the batch's order, as all rows are locked.
const QUEUE: &str = "
INSERT INTO polls (delivery_id, listed_at, attempts) SELECT id, listed_at, 0
FROM UNNEST($1::uuid[], $2::timestamptz[]) AS sent (id, listed_at) ON CONFLICT (delivery_id) DO NOTHING";

/// Whether these have one that the provider may have to be asked for.
pub(super) fn any_sent<'a>(mut leaders: impl Iterator<Item = &'a FoldedEvent>) -> bool {
    leaders.any(|leader| leader.event.told.status == Status::Sent)
}

/// Queues those that are still on their way, as far as these events tell. One that is known to be settled leaves the
/// queue when it is due.
pub(super) async fn queue(
    connection: &mut PgConnection,
    leaders: &[&FoldedEvent],
    named: bool,
) -> Result<(), sqlx::Error> {
    let told = leaders.iter().map(|leader| &leader.event.told).filter(|told| told.status == Status::Sent);
    let (ids, listed): (Vec<_>, Vec<_>) =
        told.map(|told| (told.id.key().uuid(), told.listed_at().date_time())).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(QUEUE).bind(ids).bind(listed).persistent(named).execute(connection).await.map(drop)
}

impl Postgres {
    /// See [`crate::store::Store::take_turn`]. Most looks find nothing, and write nothing.
    pub(super) async fn write_turn(&self, turn: &Turn) -> Result<Turned, StoreError> {
        match self.ask(QueryBuilder::new(due(turn, 1))).await?.is_empty() {
            true => Ok(Turned::default()),
            false => self.write(&self.aside, turn).await,
        }
    }
}

/// The first that are due, those that were never asked for and the others alike.
fn due(turn: &Turn, most: u32) -> String {
    let after = micros(turn.after);
    format!(
        "SELECT delivery_id FROM (
            (SELECT delivery_id, listed_at AS due_at FROM polls WHERE next_at IS NULL
                AND listed_at <= now() - interval '{after} microseconds' ORDER BY listed_at LIMIT {most})
            UNION ALL
            (SELECT delivery_id, next_at FROM polls WHERE next_at <= now() ORDER BY next_at LIMIT {most})
        ) AS first ORDER BY due_at LIMIT {most}"
    )
}

impl Work for Turn {
    type Done = Turned;

    /// It would find the turn taken, by itself; what was in that comes again, as after the end of a replica.
    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<Turned, sqlx::Error> {
        // Whoever comes second waits for the row, and then finds it taken.
        let take = "UPDATE poll_turn SET free_at = now() + $1 * $2 WHERE id = 1 AND free_at <= now()";
        let taken = sqlx::query(take)
            .bind(i64::from(self.most))
            .bind(interval(micros(self.pace)))
            .persistent(named)
            .execute(&mut *connection)
            .await?;
        if taken.rows_affected() == 0 {
            return Ok(Turned::default());
        }
        let mut turned = Turned::default();
        let take_out = format!(
            "WITH due AS ({}) DELETE FROM polls USING due, deliveries
            WHERE polls.delivery_id = due.delivery_id AND deliveries.id = due.delivery_id
            AND (deliveries.status <> 'sent' OR polls.listed_at <= now() - interval '{GIVEN_UP_HOURS} hours')
            RETURNING deliveries.status",
            due(self, TAKEN_OUT)
        );
        for row in
            sqlx::query(sqlx::AssertSqlSafe(take_out)).persistent(named).fetch_all(&mut *connection).await?
        {
            match rows::status(&row, "status")? {
                Status::Sent => turned.given_up += 1,
                Status::Delivered | Status::Failed => turned.settled += 1,
            }
        }
        let claim = format!(
            "WITH due AS ({}) UPDATE polls SET attempts = attempts + 1, next_at = now() + GREATEST($2,
                LEAST($1 * power(2, LEAST(attempts, 20)), $3) * (0.75 + random() / 2))
            FROM due JOIN deliveries ON deliveries.id = due.delivery_id
            WHERE polls.delivery_id = due.delivery_id RETURNING deliveries.id, deliveries.text_id",
            due(self, self.most)
        );
        for row in sqlx::query(sqlx::AssertSqlSafe(claim))
            .bind(interval(micros(self.after)))
            .bind(interval(micros(self.lease)))
            .bind(interval(micros(LONGEST_PAUSE)))
            .persistent(named)
            .fetch_all(&mut *connection)
            .await?
        {
            // One that cannot be read is nobody else's trouble; it is named where it is listed.
            turned.polls.extend(rows::id(&row));
        }
        let calls = i64::try_from(turned.polls.len()).unwrap_or(i64::MAX);
        sqlx::query("UPDATE poll_turn SET free_at = now() + $1 * $2 WHERE id = 1")
            .bind(calls)
            .bind(interval(micros(self.pace)))
            .persistent(named)
            .execute(connection)
            .await?;
        Ok(turned)
    }
}

fn interval(microseconds: i64) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds }
}
