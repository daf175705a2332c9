//! Hours that are over are summed up in the background, so that statistics are fast however many deliveries there are.
//!
//! Lives here: when, and for how much of the time. Does not: which hours, and how (`store`). Every replica does it, and
//! statistics are right whether or not it is done.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    background::told_within,
    clock::Timestamp,
    store::{Store, StoreError, hours::Due},
};

/// How long after a round the next begins. An hour is due half an hour after its end: no minute matters.
const EVERY: Duration = Duration::from_secs(60);

/// Sums up, round after round, until it is told to stop or nobody is left to tell.
pub async fn run(store: Arc<dyn Store>, mut stop: watch::Receiver<()>) {
    let (mut noted, mut failing) = (Timestamp::EARLIEST, false);
    while !told_within(EVERY, &mut stop).await {
        match all_due(&*store, noted, &mut stop).await {
            Ok(Some(until)) => (noted, failing) = (until, false),
            Ok(None) => return,
            Err(error) if failing => tracing::debug!(%error, "still no hour can be summed up"),
            Err(error) => {
                tracing::warn!(%error, "an hour could not be summed up: statistics may be slow until it is");
                failing = true;
            }
        }
    }
}

/// Sums up all that is due by the clock that all replicas share; answers until when, unless it was told to stop.
async fn all_due(
    store: &dyn Store,
    noted: Timestamp,
    stop: &mut watch::Receiver<()>,
) -> Result<Option<Timestamp>, StoreError> {
    let due = Due::at(store.now().await?, noted);
    Ok(round(store, due, stop).await?.then_some(due.until))
}

/// Sums up each hour that is due; answers whether it came to the end before it was told to stop.
///
/// # Errors
/// [`StoreError`]; the hours before that one are summed up.
pub async fn round(
    store: &dyn Store,
    mut due: Due,
    stop: &mut watch::Receiver<()>,
) -> Result<bool, StoreError> {
    loop {
        let begun = Instant::now();
        let Some(hour) = store.sum_up(&due).await? else { return Ok(true) };
        let took = begun.elapsed();
        tracing::debug!(%hour, seconds = took.as_secs_f64(), "an hour was summed up");
        due = due.after(hour);
        // As long as it took: the database has half its time for others, also where there are years to sum up.
        if told_within(took, stop).await {
            return Ok(false);
        }
    }
}
