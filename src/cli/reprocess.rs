//! `reprocess`: reads everything in quarantine again and takes out what this version understands.

use std::{collections::BTreeMap, fmt};

use super::Answer;
use crate::{
    event::{Arrival, Meaning},
    settings::Settings,
    store::{
        Quarantined, Store, StoreError, open,
        query::{ListQuarantine, PageSize},
        unreadable::UnreadableRow,
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
    /// Rows that cannot be read, which stay too.
    pub unreadable: Vec<UnreadableRow>,
}

impl fmt::Display for Reprocessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.unreadable {
            writeln!(f, "{row}")?;
        }
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
        let next = page.after()?;
        reprocessed.unreadable.extend(page.unreadable);
        let mut understood = Vec::new();
        for quarantined in page.entries {
            let arrival = read_again(quarantined);
            match &arrival.meaning {
                Meaning::Event(..) => understood.push(arrival),
                Meaning::NotUnderstood(reason, _) => *reprocessed.stay.entry(reason.code()).or_default() += 1,
            }
        }
        release(store, understood, &mut reprocessed).await?;
        let Some(next) = next else { return Ok(reprocessed) };
        question.after = Some(next);
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
        Err(StoreError::Refused(_) | StoreError::Corrupt(_)) => {
            for arrival in understood {
                match store.release(vec![arrival]).await {
                    Ok(()) => reprocessed.released += 1,
                    Err(StoreError::Refused(_) | StoreError::Corrupt(_)) => {
                        let reason = crate::event::NotUnderstood::REFUSED_BY_STORE;
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
    let store = open::open_existing(&settings.location).await?;
    let reprocessed = reprocess(&*store).await;
    store.close().await;
    Ok(Answer::good(format!("{}\n", reprocessed?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::{
        batch::Batch,
        clock::Timestamp,
        delivery::{Delivery, DeliveryId},
        signature::{Digest, Signature, Verified},
        store::{
            Evidence, Kept,
            changes::{ChangePage, Notices, Position},
            hours::Due,
            polls::{Turn, Turned},
            query::{Cursor, ListDeliveries, ListEvents, Page, RawDigest, Stats, StatsQuestion},
            sends::{Begun, Claim, SendKey, SendOutcome, SendRecord},
        },
    };

    /// A store that is only a quarantine, and refuses the id `poison`.
    #[derive(Default)]
    struct Quarantine {
        entries: Vec<Quarantined>,
        released: Mutex<Vec<Arrival>>,
    }

    impl Quarantine {
        fn add(&mut self, body: String) {
            let digest = Digest::of(body.as_bytes());
            self.entries.push(Quarantined {
                verified: Verified::from_evidence(body.into(), digest, Signature::from_bytes([0; 32])),
                reason: "unknown_status".into(),
                detail: String::new(),
                received_at: Timestamp::from_micros(self.entries.len() as i64).unwrap(),
                times: 3,
            });
        }
    }

    #[async_trait]
    impl Store for Quarantine {
        async fn quarantine(&self, question: &ListQuarantine) -> Result<Page<Quarantined>, StoreError> {
            let after = question.after.as_ref().map(|cursor| cursor.time);
            let older =
                self.entries.iter().rev().filter(|entry| after.is_none_or(|after| entry.received_at < after));
            let entry = |entry: &Quarantined| {
                let key = RawDigest::new(entry.verified.digest().as_bytes());
                (Ok(entry.clone()), Cursor { time: entry.received_at, key })
            };
            Ok(Page::of(older.take(question.size.get() + 1).map(entry).collect(), question.size))
        }

        async fn release(&self, understood: Vec<Arrival>) -> Result<(), StoreError> {
            let is_poison = |arrival: &Arrival| arrival.event().unwrap().told.id.as_str() == "poison";
            if understood.iter().any(is_poison) {
                return Err(StoreError::Refused("poison".into()));
            }
            self.released.lock().unwrap().extend(understood);
            Ok(())
        }

        async fn commit(&self, _: &Batch) -> Result<Vec<Kept>, StoreError> {
            unreachable!()
        }
        async fn delivery(&self, _: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
            unreachable!()
        }
        async fn settled_among(&self, _: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
            unreachable!()
        }
        async fn deliveries(&self, _: &ListDeliveries) -> Result<Page<Delivery>, StoreError> {
            unreachable!()
        }
        async fn list_events(&self, _: &ListEvents) -> Result<Page<Evidence>, StoreError> {
            unreachable!()
        }
        async fn stats(&self, _: &StatsQuestion) -> Result<Stats, StoreError> {
            unreachable!()
        }
        async fn sum_up(&self, _: &Due) -> Result<Option<Timestamp>, StoreError> {
            unreachable!()
        }
        async fn latest_change(&self) -> Result<Position, StoreError> {
            unreachable!()
        }
        async fn changes(&self, _: Position) -> Result<Option<ChangePage>, StoreError> {
            unreachable!()
        }
        async fn announce(&self, _: &str) -> Result<(), StoreError> {
            unreachable!()
        }
        async fn listen(&self, _: &str) -> Result<Box<dyn Notices>, StoreError> {
            unreachable!()
        }
        async fn now(&self) -> Result<Timestamp, StoreError> {
            unreachable!()
        }
        async fn begin_send(&self, _: &SendRecord) -> Result<Begun, StoreError> {
            unreachable!()
        }
        async fn call_send(&self, _: &SendKey, _: Claim) -> Result<bool, StoreError> {
            unreachable!()
        }
        async fn end_send(&self, _: &SendKey, _: Claim, _: Option<&SendOutcome>) -> Result<(), StoreError> {
            unreachable!()
        }
        async fn take_turn(&self, _: &Turn) -> Result<Turned, StoreError> {
            unreachable!()
        }
        async fn forget(&self, _: Timestamp) -> Result<u64, StoreError> {
            unreachable!()
        }
        async fn ready(&self) -> Result<(), StoreError> {
            unreachable!()
        }
        async fn migrate(&self) -> Result<usize, StoreError> {
            unreachable!()
        }
        async fn close(&self) {}
    }

    fn event(id: &str) -> String {
        format!(
            r#"{{"type":"otp","id":"{id}","phone":"+84981234567","carrier":"viettel","status":"sent","cost":0}}"#
        )
    }

    #[tokio::test]
    async fn what_is_understood_now_is_released_as_it_came_and_the_rest_stays() {
        let mut store = Quarantine::default();
        for number in 0..u32::from(PAGE) + 10 {
            store.add(event(&number.to_string()));
        }
        store.add(event("poison"));
        store.add(event("test"));
        store.add("{".into());
        let reprocessed = reprocess(&store).await.unwrap();
        assert_eq!(
            reprocessed.to_string(),
            "looked at 63 in quarantine: 60 released as events, 3 stay: 1 not_json, 1 refused_by_store, 1 test_ping"
        );
        let released = store.released.into_inner().unwrap();
        let first = released.iter().find(|arrival| arrival.body() == &Bytes::from(event("0"))).unwrap();
        assert_eq!((first.times, first.received_at.micros()), (3, 0));
        assert_eq!(released.len(), 60);
    }

    #[tokio::test]
    async fn an_empty_quarantine_is_no_error() {
        let reprocessed = reprocess(&Quarantine::default()).await.unwrap();
        assert_eq!(reprocessed.to_string(), "looked at 0 in quarantine: 0 released as events, 0 stay");
    }
}
