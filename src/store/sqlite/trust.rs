//! Whether the disk can be trusted: not after a sync has failed, whoever has met it.

use tokio::sync::watch;

use super::{meaning, message, result_code};
use crate::store::StoreError;

const IOERR_FSYNC: i32 = 1034;
const IOERR_DIR_FSYNC: i32 = 1290;

/// Trust in the disk, shared by all connections that write. Once lost it never comes back: after a failed sync the
/// system's cache may differ from the disk.
pub(super) struct Trust(watch::Sender<bool>);

impl Trust {
    /// At the start.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(true))
    }

    /// Refuses once a sync has failed.
    pub(super) fn require(&self) -> Result<(), StoreError> {
        if *self.0.borrow() {
            return Ok(());
        }
        Err(StoreError::Broken("a sync failed: check the disk before the next start".into()))
    }

    /// What an error of a connection that writes means. A failed sync ends all trust, and is logged here, since
    /// nobody may be waiting for the answer any more.
    pub(super) fn judge(&self, error: sqlx::Error) -> StoreError {
        if !matches!(result_code(&error), Some(IOERR_FSYNC | IOERR_DIR_FSYNC)) {
            return meaning(error);
        }
        let reason = message(&error);
        if self.0.send_replace(false) {
            tracing::error!(reason, "a sync of the embedded store failed: the process must end");
        }
        StoreError::Broken(format!("a sync failed: {reason}"))
    }

    /// Waits until a sync has failed.
    pub(super) async fn lost(&self) {
        // The sender is `self`, so that the channel cannot be closed.
        let _ = self.0.subscribe().wait_for(|trusted| !trusted).await;
    }
}
