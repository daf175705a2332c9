//! Sends on record: written before the provider is called, and when it has answered.

use sqlx::{PgConnection, Row};

use super::{Postgres, rows, write::Work};
use crate::store::{
    StoreError,
    sends::{Begun, Claim, Recorded, SendKey, SendOutcome, SendRecord, SendState, state},
};

impl Postgres {
    /// See [`crate::store::Store::begin_send`].
    pub(super) async fn write_send(&self, send: &SendRecord) -> Result<Begun, StoreError> {
        self.write(&self.aside, &Begin(send)).await
    }

    /// See [`crate::store::Store::call_send`].
    pub(super) async fn write_call_of_send(&self, key: &SendKey, claim: Claim) -> Result<bool, StoreError> {
        self.write(&self.aside, &Call(key, claim)).await
    }

    /// See [`crate::store::Store::end_send`].
    pub(super) async fn write_end_of_send(
        &self,
        key: &SendKey,
        claim: Claim,
        outcome: Option<&SendOutcome>,
    ) -> Result<(), StoreError> {
        self.write(&self.aside, &End(key, claim, outcome)).await
    }
}

struct Begin<'a>(&'a SendRecord);

/// A record makes room when it is answered for longer than it counts, was refused (as earlier versions have kept), or
/// was begun and not called: by this claim, or so long ago that nobody is about to. One that may have been sent never
/// does. A record that does not is only looked at: locking its row would be a commit for each look of each waiter.
const BEGIN: &str = "
INSERT INTO sends AS known (key, fingerprint, phone, began_at, claim, called)
SELECT $1::text, $2::bytea, $3::text, $4::timestamptz, $5::bytea, false WHERE NOT EXISTS (
    SELECT FROM sends AS known WHERE key = $1
    AND (known.outcome = 'refused' OR (known.outcome = 'accepted' AND known.began_at < $6)
        OR (known.outcome IS NULL AND NOT known.called AND (known.claim = $5 OR known.began_at < $7))) IS NOT TRUE)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = EXCLUDED.fingerprint, phone = EXCLUDED.phone, began_at = EXCLUDED.began_at,
    claim = EXCLUDED.claim, called = false, outcome = NULL, answer = NULL, deposit_url = NULL
WHERE known.outcome = 'refused' OR (known.outcome = 'accepted' AND known.began_at < $6)
    OR (known.outcome IS NULL AND NOT known.called AND (known.claim = $5 OR known.began_at < $7))";

impl Work for Begin<'_> {
    type Done = Begun;

    /// A claim recognizes its own record.
    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<Begun, sqlx::Error> {
        let SendRecord { key, claim, fingerprint, phone, began_at } = self.0;
        let begun = sqlx::query(BEGIN)
            .bind(key.as_str())
            .bind(fingerprint.as_bytes())
            .bind(phone.reveal())
            .bind(began_at.date_time())
            .bind(claim.as_bytes())
            .bind(self.0.expired_before().date_time())
            .bind(self.0.taken_over_before().date_time())
            .persistent(named)
            .execute(&mut *connection)
            .await?;
        if begun.rows_affected() == 1 {
            return Ok(Begun::Now);
        }
        let known = "SELECT fingerprint, phone, began_at, outcome, answer FROM sends WHERE key = $1";
        let known =
            sqlx::query(known).bind(key.as_str()).persistent(named).fetch_optional(connection).await?;
        Ok(Begun::Known(match known {
            Some(row) => Recorded {
                fingerprint: row.try_get("fingerprint")?,
                phone: row.try_get("phone")?,
                state: state(rows::time(&row, "began_at")?, row.try_get("outcome")?, row.try_get("answer")?),
            },
            // Whoever had begun it has taken it back a moment ago.
            None => Recorded {
                fingerprint: fingerprint.as_bytes().to_vec(),
                phone: phone.reveal().to_owned(),
                state: SendState::UnderWay(*began_at),
            },
        }))
    }
}

struct Call<'a>(&'a SendKey, Claim);

impl Work for Call<'_> {
    type Done = bool;

    fn is_repeatable(&self) -> bool {
        true
    }

    fn is_one_statement(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<bool, sqlx::Error> {
        let call = "UPDATE sends SET called = true WHERE key = $1 AND claim = $2 AND outcome IS NULL";
        let Self(key, claim) = self;
        let called = sqlx::query(call).bind(key.as_str()).bind(claim.as_bytes()).persistent(named);
        Ok(called.execute(connection).await?.rows_affected() == 1)
    }
}

struct End<'a>(&'a SendKey, Claim, Option<&'a SendOutcome>);

impl Work for End<'_> {
    type Done = ();

    /// The first outcome stays, and another claim's record is left alone.
    fn is_repeatable(&self) -> bool {
        true
    }

    fn is_one_statement(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<(), sqlx::Error> {
        let Self(key, claim, outcome) = self;
        let end = match outcome {
            None => "DELETE FROM sends WHERE key = $1 AND claim = $2 AND outcome IS NULL",
            Some(_) => {
                "UPDATE sends SET outcome = $3, answer = $4 WHERE key = $1 AND claim = $2 AND outcome IS NULL"
            }
        };
        let mut end = sqlx::query(end).bind(key.as_str()).bind(claim.as_bytes());
        if let Some(outcome) = outcome {
            end = end.bind(outcome.as_str()).bind(outcome.answer());
        }
        end.persistent(named).execute(connection).await.map(drop)
    }
}
