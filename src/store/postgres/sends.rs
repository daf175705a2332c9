//! Sends on record: written before the provider is called, and when it has answered.

use sqlx::{PgConnection, Row};

use super::{Postgres, rows, write::Work};
use crate::store::{
    StoreError,
    sends::{Begun, KEPT_HOURS, SendKey, SendOutcome, SendRecord, outcome, word},
};

impl Postgres {
    /// See [`crate::store::Store::begin_send`].
    pub(super) async fn write_send(&self, send: &SendRecord) -> Result<Begun, StoreError> {
        self.write(&self.aside, &Begin(send)).await
    }

    /// See [`crate::store::Store::end_send`].
    pub(super) async fn write_end_of_send(
        &self,
        key: &SendKey,
        outcome: Option<&SendOutcome>,
    ) -> Result<(), StoreError> {
        self.write(&self.aside, &End(key, outcome)).await
    }
}

struct Begin<'a>(&'a SendRecord);

/// One that is answered for longer than it counts makes room; one whose outcome is not known never does.
const BEGIN: &str = "
INSERT INTO sends AS known (key, fingerprint, phone, began_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = EXCLUDED.fingerprint, phone = EXCLUDED.phone, began_at = EXCLUDED.began_at,
    outcome = NULL, answer = NULL, deposit_url = NULL
WHERE known.outcome IN ('accepted', 'refused') AND known.began_at < $5";

impl Work for Begin<'_> {
    type Done = Begun;

    /// It would find its own record, and take it for another request's.
    fn is_repeatable(&self) -> bool {
        false
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<Begun, sqlx::Error> {
        let SendRecord { key, fingerprint, phone, began_at } = self.0;
        let begun = sqlx::query(BEGIN)
            .bind(key.as_str())
            .bind(fingerprint.as_bytes().as_slice())
            .bind(phone.reveal())
            .bind(began_at.date_time())
            .bind(began_at.hours_before(KEPT_HOURS).date_time())
            .persistent(named)
            .execute(&mut *connection)
            .await?;
        if begun.rows_affected() == 1 {
            return Ok(Begun::Now);
        }
        let known = "SELECT fingerprint, began_at, outcome, answer, deposit_url FROM sends WHERE key = $1";
        let known =
            sqlx::query(known).bind(key.as_str()).persistent(named).fetch_optional(connection).await?;
        match known {
            Some(row) if row.try_get::<&[u8], _>("fingerprint")? != fingerprint.as_bytes() => {
                Ok(Begun::OtherRequest)
            }
            Some(row) => Ok(
                match outcome(row.try_get("outcome")?, row.try_get("answer")?, row.try_get("deposit_url")?) {
                    Some(outcome) => Begun::Ended(outcome),
                    None => Begun::UnderWay(rows::time(&row, "began_at")?),
                },
            ),
            // Whoever had begun it has taken it back a moment ago.
            None => Ok(Begun::UnderWay(*began_at)),
        }
    }
}

struct End<'a>(&'a SendKey, Option<&'a SendOutcome>);

impl Work for End<'_> {
    type Done = ();

    /// The first outcome stays.
    fn is_repeatable(&self) -> bool {
        true
    }

    fn is_one_statement(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<(), sqlx::Error> {
        let Self(key, outcome) = self;
        let Some(outcome) = outcome else {
            let delete = "DELETE FROM sends WHERE key = $1 AND outcome IS NULL";
            return sqlx::query(delete)
                .bind(key.as_str())
                .persistent(named)
                .execute(connection)
                .await
                .map(drop);
        };
        let (answer, deposit_url) = word(outcome);
        sqlx::query(
            "UPDATE sends SET outcome = $2, answer = $3, deposit_url = $4 WHERE key = $1 AND outcome IS NULL",
        )
        .bind(key.as_str())
        .bind(outcome.as_str())
        .bind(answer)
        .bind(deposit_url)
        .persistent(named)
        .execute(connection)
        .await
        .map(drop)
    }
}
