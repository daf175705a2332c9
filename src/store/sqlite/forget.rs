//! What is kept for a time only: deleted when that is over, a part at a time.

use sqlx::{Error, SqliteConnection};

use super::{Sqlite, write::Work};
use crate::{
    clock::Timestamp,
    delivery::GIVEN_UP_HOURS,
    store::{StoreError, sends::KEPT_HOURS},
};

impl Sqlite {
    /// See [`crate::store::Store::forget`].
    pub(super) async fn write_forget(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(&Forget(now)).await
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

impl Work for Forget {
    type Done = u64;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<u64, Error> {
        let sends = self.0.hours_before(KEPT_HOURS).micros();
        let polls = self.0.hours_before(2 * GIVEN_UP_HOURS).micros();
        let mut forgotten = 0;
        for (delete, before) in [(FORGET_SENDS, sends), (FORGET_POLLS, polls)] {
            forgotten += sqlx::query(delete).bind(before).execute(&mut *connection).await?.rows_affected();
        }
        Ok(forgotten)
    }

    fn pages(&self) -> usize {
        50
    }
}
