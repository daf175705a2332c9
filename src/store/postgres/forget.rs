//! What is kept for a time only: deleted when that is over, a part at a time.

use sqlx::PgConnection;

use super::{Postgres, write::Work};
use crate::{
    clock::Timestamp,
    delivery::GIVEN_UP_HOURS,
    store::{StoreError, sends::KEPT_HOURS},
};

impl Postgres {
    /// See [`crate::store::Store::forget`].
    pub(super) async fn write_forget(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(&self.aside, &Forget(now)).await
    }
}

struct Forget(Timestamp);

/// A part of them, so that no lock is held for long.
const FORGET_SENDS: &str = "
DELETE FROM sends WHERE key IN (
    SELECT key FROM sends WHERE outcome IN ('accepted', 'refused') AND began_at < $1 ORDER BY began_at LIMIT 1000)";

/// Where nobody asks the provider, nobody takes them out of the queue either.
const FORGET_POLLS: &str = "
DELETE FROM polls WHERE delivery_id IN (
    SELECT delivery_id FROM polls WHERE next_at IS NULL AND listed_at < $1 ORDER BY listed_at LIMIT 1000)";

impl Work for Forget {
    type Done = u64;

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<u64, sqlx::Error> {
        let sends = self.0.hours_before(KEPT_HOURS).date_time();
        let polls = self.0.hours_before(2 * GIVEN_UP_HOURS).date_time();
        let mut forgotten = 0;
        for (delete, before) in [(FORGET_SENDS, sends), (FORGET_POLLS, polls)] {
            let deleted =
                sqlx::query(delete).bind(before).persistent(named).execute(&mut *connection).await?;
            forgotten += deleted.rows_affected();
        }
        Ok(forgotten)
    }
}
