//! The queue of deliveries to be polled: what a commit puts into it, and the turns in which it is worked off.

use sqlx::{AssertSqlSafe, Error, QueryBuilder, Row, Sqlite as Db, SqliteConnection};

use super::{Sqlite, rows, statements::chunks, write::Work};
use crate::{
    batch::FoldedEvent,
    delivery::{GIVEN_UP_HOURS, Status},
    store::{
        StoreError,
        polls::{LONGEST_PAUSE, TAKEN_OUT, Turn, Turned, micros},
    },
};

/// The database's clock, in microseconds.
const NOW: &str = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";

/// Queues those that are still on their way.
pub(super) async fn queue(connection: &mut SqliteConnection, fresh: &[&FoldedEvent]) -> Result<(), Error> {
    let sent: Vec<_> =
        fresh.iter().map(|row| &row.event.told).filter(|told| told.status == Status::Sent).collect();
    for sent in chunks(&sent) {
        let mut sql = QueryBuilder::<Db>::new("INSERT INTO polls (delivery_id, listed_at, attempts) ");
        sql.push_values(sent, |mut row, told| {
            row.push_bind(told.id.as_str()).push_bind(told.listed_at().micros()).push("0");
        });
        sql.push(" ON CONFLICT (delivery_id) DO NOTHING").build().execute(&mut *connection).await?;
    }
    Ok(())
}

impl Sqlite {
    /// See [`crate::store::Store::take_turn`]. Most looks find nothing, and write nothing.
    pub(super) async fn write_turn(&self, turn: &Turn) -> Result<Turned, StoreError> {
        match self.ask(QueryBuilder::new(due(turn, 1))).await?.is_empty() {
            true => Ok(Turned::default()),
            false => self.write(*turn).await,
        }
    }
}

/// The first that are due, those that were never asked for and the others alike.
fn due(turn: &Turn, most: u32) -> String {
    let after = micros(turn.after);
    format!(
        "SELECT delivery_id FROM (
            SELECT * FROM (SELECT delivery_id, listed_at AS due_at FROM polls
                WHERE next_at IS NULL AND listed_at <= {NOW} - {after} ORDER BY listed_at LIMIT {most})
            UNION ALL
            SELECT * FROM (SELECT delivery_id, next_at FROM polls WHERE next_at <= {NOW} ORDER BY next_at LIMIT {most})
        ) ORDER BY due_at LIMIT {most}"
    )
}

impl Work for Turn {
    type Done = Turned;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<Turned, Error> {
        let free = format!("SELECT 1 FROM poll_turn WHERE free_at <= {NOW}");
        if sqlx::query(AssertSqlSafe(free)).fetch_optional(&mut *connection).await?.is_none() {
            return Ok(Turned::default());
        }
        let mut turned = Turned::default();
        let over = format!(
            "SELECT polls.delivery_id, status FROM polls JOIN deliveries ON id = polls.delivery_id
            WHERE polls.delivery_id IN ({})
            AND (status <> 'sent' OR polls.listed_at <= {NOW} - {GIVEN_UP_HOURS} * 3600000000)",
            due(self, TAKEN_OUT)
        );
        for row in sqlx::query(AssertSqlSafe(over)).fetch_all(&mut *connection).await? {
            match rows::status(&row, "status")? {
                Status::Sent => turned.given_up += 1,
                Status::Delivered | Status::Failed => turned.settled += 1,
            }
            let delete = sqlx::query("DELETE FROM polls WHERE delivery_id = ?");
            delete.bind(row.try_get::<&str, _>("delivery_id")?).execute(&mut *connection).await?;
        }
        let (after, lease, longest) = (micros(self.after), micros(self.lease), micros(LONGEST_PAUSE));
        let claim = format!(
            "UPDATE polls SET attempts = attempts + 1, next_at = {NOW} + MAX({lease},
                CAST(MIN({after} * (1 << MIN(attempts, 20)), {longest}) * (75 + abs(random() % 50)) / 100 AS INTEGER))
            WHERE delivery_id IN ({}) RETURNING delivery_id",
            due(self, self.most)
        );
        for row in sqlx::query(AssertSqlSafe(claim)).fetch_all(&mut *connection).await? {
            // One that cannot be read is nobody else's trouble; it is named where it is listed.
            turned.polls.extend(rows::id(&row, "delivery_id"));
        }
        let time = micros(self.pace) * i64::try_from(turned.polls.len()).unwrap_or(i64::MAX);
        let take = format!("UPDATE poll_turn SET free_at = {NOW} + {time}");
        sqlx::query(AssertSqlSafe(take)).execute(connection).await?;
        Ok(turned)
    }

    fn pages(&self) -> usize {
        100
    }
}
