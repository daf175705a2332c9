//! Sends on record: written before the provider is called, and when it has answered.

use sqlx::{Error, Row, SqliteConnection};

use super::{Sqlite, rows, write::Work};
use crate::store::{
    StoreError,
    sends::{Begun, Claim, Recorded, SendKey, SendOutcome, SendRecord, state},
};

impl Sqlite {
    /// See [`crate::store::Store::begin_send`].
    pub(super) async fn write_send(&self, send: &SendRecord) -> Result<Begun, StoreError> {
        self.write(Begin(send.clone())).await
    }

    /// See [`crate::store::Store::call_send`].
    pub(super) async fn write_call_of_send(&self, key: &SendKey, claim: Claim) -> Result<bool, StoreError> {
        self.write(Call(key.clone(), claim)).await
    }

    /// See [`crate::store::Store::end_send`].
    pub(super) async fn write_end_of_send(
        &self,
        key: &SendKey,
        claim: Claim,
        outcome: Option<&SendOutcome>,
    ) -> Result<(), StoreError> {
        self.write(End(key.clone(), claim, outcome.cloned())).await
    }
}

struct Begin(SendRecord);

/// A record makes room when it is answered for longer than it counts, was refused (as earlier versions have kept), or
/// was begun and not called: by this claim, or so long ago that nobody is about to. One that may have been sent never
/// does.
const BEGIN: &str = "
INSERT INTO sends AS known (key, fingerprint, phone, began_at, claim, called) VALUES (?1, ?2, ?3, ?4, ?5, 0)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = excluded.fingerprint, phone = excluded.phone, began_at = excluded.began_at,
    claim = excluded.claim, called = 0, outcome = NULL, answer = NULL, deposit_url = NULL
WHERE known.outcome = 'refused' OR (known.outcome = 'accepted' AND known.began_at < ?6)
    OR (known.outcome IS NULL AND NOT known.called AND (known.claim = excluded.claim OR known.began_at < ?7))";

impl Work for Begin {
    type Done = Begun;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<Begun, Error> {
        let SendRecord { key, claim, fingerprint, phone, began_at } = &self.0;
        let begun = sqlx::query(BEGIN)
            .bind(key.as_str())
            .bind(fingerprint.as_bytes())
            .bind(phone.reveal())
            .bind(began_at.micros())
            .bind(claim.as_bytes())
            .bind(self.0.expired_before().micros())
            .bind(self.0.taken_over_before().micros())
            .execute(&mut *connection)
            .await?;
        if begun.rows_affected() == 1 {
            return Ok(Begun::Now);
        }
        let known = "SELECT fingerprint, phone, began_at, outcome, answer FROM sends WHERE key = ?";
        let row = sqlx::query(known).bind(key.as_str()).fetch_one(connection).await?;
        Ok(Begun::Known(Recorded {
            fingerprint: row.try_get("fingerprint")?,
            phone: row.try_get("phone")?,
            state: state(rows::time(&row, "began_at")?, row.try_get("outcome")?, row.try_get("answer")?),
        }))
    }

    fn pages(&self) -> usize {
        4
    }
}

struct Call(SendKey, Claim);

impl Work for Call {
    type Done = bool;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<bool, Error> {
        let call = "UPDATE sends SET called = 1 WHERE key = ? AND claim = ? AND outcome IS NULL";
        let Self(key, claim) = self;
        let called = sqlx::query(call).bind(key.as_str()).bind(claim.as_bytes());
        Ok(called.execute(connection).await?.rows_affected() == 1)
    }

    fn pages(&self) -> usize {
        1
    }
}

struct End(SendKey, Claim, Option<SendOutcome>);

impl Work for End {
    type Done = ();

    async fn run(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let Self(key, claim, outcome) = self;
        let end = match outcome {
            None => "DELETE FROM sends WHERE key = ?1 AND claim = ?2 AND outcome IS NULL",
            Some(_) => {
                "UPDATE sends SET outcome = ?3, answer = ?4 WHERE key = ?1 AND claim = ?2 AND outcome IS NULL"
            }
        };
        let mut end = sqlx::query(end).bind(key.as_str()).bind(claim.as_bytes());
        if let Some(outcome) = outcome {
            end = end.bind(outcome.as_str()).bind(outcome.answer());
        }
        end.execute(connection).await.map(drop)
    }

    fn pages(&self) -> usize {
        4
    }
}
