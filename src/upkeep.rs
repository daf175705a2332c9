//! What is kept for a time only is deleted in the background when that time is over.
//!
//! Lives here: how often. Does not: what, and for how long (`store`). Every replica does it, and nothing depends on it.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    background::told_within,
    store::{Store, StoreError},
};

/// After a round that found nothing more.
const EVERY: Duration = Duration::from_secs(60);

/// After a part of it: the database has most of its time for others.
const PAUSE: Duration = Duration::from_millis(200);

/// Deletes, part by part, until it is told to stop or nobody is left to tell.
pub async fn run(store: Arc<dyn Store>, mut stop: watch::Receiver<()>) {
    let mut pause = EVERY;
    while !told_within(pause, &mut stop).await {
        pause = match forget(&*store).await {
            Ok(0) => EVERY,
            Ok(forgotten) => {
                tracing::debug!(forgotten, "what was kept long enough");
                PAUSE
            }
            Err(error) => {
                tracing::debug!(%error, "what was kept long enough could not be deleted");
                EVERY
            }
        };
    }
}

async fn forget(store: &dyn Store) -> Result<u64, StoreError> {
    store.forget(store.now().await?).await
}
