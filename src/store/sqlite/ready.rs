//! Readiness: whether a commit would be kept now, found out by making a small one.

use sqlx::{Error, SqliteConnection};

use super::{Sqlite, write::Work};
use crate::store::{
    StoreError,
    readiness::{DISK_FULL, READ_ONLY, TRIAL_FAILED},
};

/// So many bytes must be free after a commit has failed: a trial changes one page, and may find room for that at the end
/// of the log where the next commit finds none.
const ROOM: u64 = 1 << 20;

/// As SQLite has it.
const FULL: &str = "SQLite (code: 13) the disk is full";

impl Sqlite {
    /// See [`crate::store::Store::ready`].
    pub(super) async fn check_ready(&self) -> Result<(), StoreError> {
        let found = self.look().await;
        self.last_commit.report(found, public)
    }

    async fn look(&self) -> Result<(), StoreError> {
        self.trust.require()?;
        self.require_migrations().await?;
        if self.last_commit.is_fresh() {
            return Ok(());
        }
        if self.last_commit.has_failed() {
            self.require_room()?;
        }
        self.write(Trial).await?;
        self.last_commit.is_kept();
        Ok(())
    }

    fn require_room(&self) -> Result<(), StoreError> {
        let found = rustix::fs::statvfs(&self.options.folder);
        let found = found.map_err(|error| StoreError::Unavailable(format!("the folder's disk: {error}")))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < ROOM {
            return Err(StoreError::Unavailable(format!("{FULL}: {free} bytes are free")));
        }
        Ok(())
    }
}

/// Writes a page, and changes nothing: the version is ours to set, and nobody reads it.
struct Trial;

impl Work for Trial {
    type Done = ();

    async fn run(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        sqlx::query("PRAGMA user_version = 0").execute(connection).await.map(drop)
    }

    fn pages(&self) -> usize {
        1
    }
}

fn public(why: &str) -> &'static str {
    // The lower byte of a code is its kind.
    let code = why.split_once("(code: ").and_then(|(_, code)| code.split_once(')')?.0.parse::<i32>().ok());
    match code.map(|code| code & 0xff) {
        Some(8) => READ_ONLY,
        Some(13) => DISK_FULL,
        _ => TRIAL_FAILED,
    }
}
