//! Sends on record: written before the provider is called, and when it has answered.

use sqlx::{Error, Row, SqliteConnection};

use super::{Sqlite, rows, write::Work};
use crate::store::{
    StoreError,
    sends::{Begun, KEPT_HOURS, SendKey, SendOutcome, SendRecord, outcome, word},
};

impl Sqlite {
    /// See [`crate::store::Store::begin_send`].
    pub(super) async fn write_send(&self, send: &SendRecord) -> Result<Begun, StoreError> {
        self.write(Begin(send.clone())).await
    }

    /// See [`crate::store::Store::end_send`].
    pub(super) async fn write_end_of_send(
        &self,
        key: &SendKey,
        outcome: Option<&SendOutcome>,
    ) -> Result<(), StoreError> {
        self.write(End(key.clone(), outcome.cloned())).await
    }
}

struct Begin(SendRecord);

/// One that is answered for longer than it counts makes room; one whose outcome is not known never does.
const BEGIN: &str = "
INSERT INTO sends AS known (key, fingerprint, phone, began_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = excluded.fingerprint, phone = excluded.phone, began_at = excluded.began_at,
    outcome = NULL, answer = NULL, deposit_url = NULL
WHERE known.outcome IN ('accepted', 'refused') AND known.began_at < ?5";

impl Work for Begin {
    type Done = Begun;

    async fn run(&self, connection: &mut SqliteConnection) -> Result<Begun, Error> {
        let SendRecord { key, fingerprint, phone, began_at } = &self.0;
        let begun = sqlx::query(BEGIN)
            .bind(key.as_str())
            .bind(fingerprint.as_bytes().as_slice())
            .bind(phone.reveal())
            .bind(began_at.micros())
            .bind(began_at.hours_before(KEPT_HOURS).micros())
            .execute(&mut *connection)
            .await?;
        if begun.rows_affected() == 1 {
            return Ok(Begun::Now);
        }
        let known = "SELECT fingerprint, began_at, outcome, answer, deposit_url FROM sends WHERE key = ?";
        let row = sqlx::query(known).bind(key.as_str()).fetch_one(connection).await?;
        if row.try_get::<&[u8], _>("fingerprint")? != fingerprint.as_bytes() {
            return Ok(Begun::OtherRequest);
        }
        Ok(match outcome(row.try_get("outcome")?, row.try_get("answer")?, row.try_get("deposit_url")?) {
            Some(outcome) => Begun::Ended(outcome),
            None => Begun::UnderWay(rows::time(&row, "began_at")?),
        })
    }

    fn pages(&self) -> usize {
        4
    }
}

struct End(SendKey, Option<SendOutcome>);

impl Work for End {
    type Done = ();

    async fn run(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let Self(key, outcome) = self;
        let Some(outcome) = outcome else {
            let delete = "DELETE FROM sends WHERE key = ? AND outcome IS NULL";
            return sqlx::query(delete).bind(key.as_str()).execute(connection).await.map(drop);
        };
        let (answer, deposit_url) = word(outcome);
        sqlx::query(
            "UPDATE sends SET outcome = ?, answer = ?, deposit_url = ? WHERE key = ? AND outcome IS NULL",
        )
        .bind(outcome.as_str())
        .bind(answer)
        .bind(deposit_url)
        .bind(key.as_str())
        .execute(connection)
        .await
        .map(drop)
    }

    fn pages(&self) -> usize {
        4
    }
}
