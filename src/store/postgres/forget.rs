//! What is kept for a time only: deleted when that is over, a part at a time.

use sqlx::PgConnection;

use super::{Postgres, write::Work};
use crate::{
    clock::Timestamp,
    delivery::GIVEN_UP_HOURS,
    store::{StoreError, changes, sends::KEPT_HOURS},
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

/// Whoever comes back to a place before these is told that they are gone.
const FORGET_CHANGES: &str = "
WITH oldest AS (SELECT position, noted_at FROM changes ORDER BY position LIMIT 1000),
    forgotten AS (
        UPDATE changes_forgotten SET position = GREATEST(position, oldest.last)
        FROM (SELECT MAX(position) AS last FROM oldest WHERE noted_at < $1) AS oldest WHERE oldest.last IS NOT NULL)
DELETE FROM changes WHERE position IN (SELECT position FROM oldest WHERE noted_at < $1)";

impl Work for Forget {
    type Done = u64;

    /// What is deleted is not there any more.
    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<u64, sqlx::Error> {
        let sends = self.0.hours_before(KEPT_HOURS).date_time();
        let polls = self.0.hours_before(2 * GIVEN_UP_HOURS).date_time();
        let mut forgotten = 0;
        for (delete, before) in [(FORGET_SENDS, sends), (FORGET_POLLS, polls)] {
            let deleted =
                sqlx::query(delete).bind(before).persistent(named).execute(&mut *connection).await?;
            forgotten += deleted.rows_affected();
        }
        let changes = self.0.hours_before(changes::KEPT_HOURS).date_time();
        let deleted = sqlx::query(FORGET_CHANGES).bind(changes).persistent(named).execute(connection).await?;
        Ok(forgotten + deleted.rows_affected())
    }
}
