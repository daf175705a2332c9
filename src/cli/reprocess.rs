//! `reprocess`: reads everything in quarantine again and takes out what this version understands.

use std::{collections::BTreeMap, fmt};

use super::Answer;
use crate::{
    event::Arrival,
    settings::Settings,
    store::{
        Quarantined, Store, StoreError, open,
        query::{Cursor, ListQuarantine, PageSize},
    },
};

/// Bodies that are read at one time: a few megabytes.
const PAGE: u16 = 50;

/// What became of everything in quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reprocessed {
    /// Those that are events now.
    pub released: u64,
    /// Those that stay, by [`crate::event::NotUnderstood::code`].
    pub stay: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Reprocessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stay: u64 = self.stay.values().sum();
        let looked_at = self.released + stay;
        write!(f, "looked at {looked_at} in quarantine: {} released as events, {stay} stay", self.released)?;
        let mut separator = ": ";
        for (reason, count) in &self.stay {
            write!(f, "{separator}{count} {reason}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Reads everything in quarantine again, newest first, page by page. What comes into quarantine meanwhile is left
/// for the next time; harmless beside a running service, and when it is done twice.
///
/// # Errors
/// [`StoreError`]; what was released before stays released.
pub async fn reprocess(store: &dyn Store) -> Result<Reprocessed, StoreError> {
    let mut reprocessed = Reprocessed::default();
    let size = PageSize::new(PAGE).expect("it is a page's size");
    let mut question = ListQuarantine { size, after: None };
    loop {
        let page = store.quarantine(&question).await?;
        let mut understood = Vec::new();
        for quarantined in page.entries {
            let arrival = read_again(quarantined);
            match &arrival.meaning {
                Ok(_) => understood.push(arrival),
                Err(reason) => *reprocessed.stay.entry(reason.code()).or_default() += 1,
            }
        }
        release(store, understood, &mut reprocessed).await?;
        let Some(next) = page.next else { return Ok(reprocessed) };
        let after = Cursor::decode(&next).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        question.after = Some(after);
    }
}

fn read_again(quarantined: Quarantined) -> Arrival {
    let Quarantined { verified, received_at, times, .. } = quarantined;
    Arrival { times, ..Arrival::understand(verified, received_at) }
}

/// Releases events; when the database refuses something of them, one by one, so that only that one stays.
async fn release(
    store: &dyn Store,
    understood: Vec<Arrival>,
    reprocessed: &mut Reprocessed,
) -> Result<(), StoreError> {
    let count = understood.len() as u64;
    if count == 0 {
        return Ok(());
    }
    match store.release(understood.clone()).await {
        Ok(()) => reprocessed.released += count,
        Err(StoreError::Refused(_)) => {
            for arrival in understood {
                match store.release(vec![arrival]).await {
                    Ok(()) => reprocessed.released += 1,
                    Err(StoreError::Refused(_)) => {
                        let reason = crate::event::NotUnderstood::RefusedByStore.code();
                        *reprocessed.stay.entry(reason).or_default() += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Reprocesses the configured store.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<Answer> {
    let store = open::open(&settings.location).await?;
    let reprocessed = async {
        store.ready().await?;
        reprocess(&*store).await
    };
    let reprocessed = reprocessed.await;
    store.close().await;
    Ok(Answer::good(format!("{}\n", reprocessed?)))
}
