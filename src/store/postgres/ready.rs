//! Readiness: whether a commit would be kept now.

use sqlx::{Error, PgConnection, Row};

use bytes::Bytes;
use uuid::Uuid;

use super::{Postgres, connect::READ_ONLY_SERVER, statements, write::Work};
use crate::{
    batch::Batch,
    clock::Timestamp,
    event::Arrival,
    signature::{Digest, Signature, Verified},
    store::{
        StoreError,
        readiness::{DISK_FULL, READ_ONLY, TRIAL_FAILED},
    },
};

impl Postgres {
    /// See [`crate::store::Store::ready`].
    pub(super) async fn check_ready(&self) -> Result<(), StoreError> {
        let found = self.look().await;
        self.last_commit.report(found, public)
    }

    async fn look(&self) -> Result<(), StoreError> {
        self.require_migrations().await?;
        if self.last_commit.is_fresh() {
            return Ok(());
        }
        let trial = Trial { event: self.last_commit.has_failed().then(event), noting: self.options.changes };
        self.write(&self.aside, &trial).await?;
        if trial.event.is_some() {
            self.last_commit.is_kept();
        }
        Ok(())
    }
}

/// Asks whether it could write, and after a commit that failed writes an event, and takes that back.
struct Trial {
    event: Option<Batch>,
    noting: bool,
}

impl Work for Trial {
    type Done = ();

    /// It takes back what it writes.
    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection, named: bool) -> Result<(), Error> {
        let read_only = "SELECT current_setting('transaction_read_only') AS read_only";
        let row = sqlx::query(read_only).persistent(named).fetch_one(&mut *connection).await?;
        if row.try_get::<&str, _>("read_only")? == "on" {
            return Err(Error::Protocol(READ_ONLY_SERVER.into()));
        }
        let Some(event) = &self.event else { return Ok(()) };
        sqlx::raw_sql("SAVEPOINT trial").execute(&mut *connection).await?;
        let leaders: Vec<_> = event.leaders().collect();
        let insert = statements::upsert(&leaders, self.noting).persistent(named);
        insert.fetch_all(&mut *connection).await?;
        sqlx::raw_sql("ROLLBACK TO trial").execute(connection).await.map(drop)
    }
}

/// An event of no delivery, as long as one may be, so that a table on a full disk has to grow for it.
fn event() -> Batch {
    const LENGTH: usize = 65_536;
    let padding: String = std::iter::repeat_with(fastrand::alphanumeric).take(LENGTH).collect();
    let id = Uuid::new_v4();
    let body = Bytes::from(format!(
        r#"{{"type":"otp.delivered","id":"{id}","phone":"+84981234567","carrier":"none","status":"delivered","cost":0,"padding":"{padding}"}}"#
    ));
    let verified = Verified::from_evidence(body.clone(), Digest::of(&body), Signature::from_bytes([0; 32]));
    Batch::fold(vec![Arrival::understand(verified, Timestamp::now())]).0
}

fn public(why: &str) -> &'static str {
    match why {
        _ if why.ends_with(READ_ONLY_SERVER) || why.starts_with("SQLSTATE 25006") => READ_ONLY,
        _ if why.starts_with("SQLSTATE 53100") => DISK_FULL,
        _ => TRIAL_FAILED,
    }
}
