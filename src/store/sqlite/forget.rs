//! What is kept for a time only: deleted when that is over, a part at a time.

use sqlx::{Error, SqliteConnection};

use super::{Sqlite, write::Work};
use crate::{
    clock::Timestamp,
    delivery::GIVEN_UP_HOURS,
    store::{StoreError, changes, sends::KEPT_HOURS},
};

impl Sqlite {
    /// See [`crate::store::Store::forget`].
    pub(super) async fn write_forget(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(Forget(now)).await
    }
}

struct Forget(Timestamp);

/// A part of them, so that the writer is not held for long.
const FORGET_SENDS: &str = "
DELETE FROM sends WHERE key IN (
    SELECT key FROM sends WHERE outcome IN ('accepted', 'refused') AND began_at < ? ORDER BY began_at LIMIT 1000)";

/// Where nobody asks the provider, nobody takes them out of the queue either.
const FORGET_POLLS: &str = "
DELETE FROM polls WHERE delivery_id IN (
    SELECT delivery_id FROM polls WHERE next_at IS NULL AND listed_at < ? ORDER BY listed_at LIMIT 1000)";

/// Whoever comes back to a place before these is told that they are gone.
const FORGOTTEN_CHANGES: &str = "
UPDATE changes_forgotten SET position = MAX(position, COALESCE((SELECT MAX(position) FROM
    (SELECT position, noted_at FROM changes ORDER BY position LIMIT 1000) WHERE noted_at < ?), 0))";

const FORGET_CHANGES: &str = "
DELETE FROM changes WHERE position IN (SELECT position FROM
    (SELECT position, noted_at FROM changes ORDER BY position LIMIT 1000) WHERE noted_at < ?)";

impl Work for Forget {
    type Done = u64;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<u64, Error> {
        let sends = self.0.hours_before(KEPT_HOURS).micros();
        let polls = self.0.hours_before(2 * GIVEN_UP_HOURS).micros();
        let mut forgotten = 0;
        for (delete, before) in [(FORGET_SENDS, sends), (FORGET_POLLS, polls)] {
            forgotten += sqlx::query(delete).bind(before).execute(&mut *connection).await?.rows_affected();
        }
        let changes = self.0.hours_before(changes::KEPT_HOURS).micros();
        sqlx::query(FORGOTTEN_CHANGES).bind(changes).execute(&mut *connection).await?;
        let deleted = sqlx::query(FORGET_CHANGES).bind(changes).execute(connection).await?;
        Ok(forgotten + deleted.rows_affected())
    }

    fn pages(&self) -> usize {
        50
    }
}
