//! The record of every answer that was given, against which a store is judged.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use nexo_receiver::{
    delivery::DeliveryId,
    signature::Digest,
    store::{Store, StoreError},
};
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use super::{evidence::EveryEvent as _, provider::event, until::until};

/// One event: which delivery, and what is told of it.
pub type Event = (String, &'static str);

/// Its bytes. Each id has a time of its own within the guide's second: where all have one, each page of a list would put
/// all of them in order.
pub fn body(id: &str, status: &str) -> Vec<u8> {
    let digest = Digest::of(id.as_bytes());
    let micros =
        digest.as_bytes().iter().fold(0, |sum: u32, byte| (sum * 256 + u32::from(*byte)) % 1_000_000);
    let guides = String::from_utf8(event(id, status)).unwrap();
    guides.replace("10:00:00Z", &format!("10:00:00.{micros:06}Z")).into_bytes()
}

/// What became of one event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers {
    /// How often it was sent.
    pub sent: u64,
    /// When it first was: nanoseconds of the system's monotonic clock.
    pub sent_at: u64,
    /// How often it was answered 200.
    pub kept: u64,
    /// When it first was.
    pub kept_at: u64,
}

/// What was answered, by all senders together.
#[derive(Default)]
pub struct Ledger {
    events: Mutex<HashMap<Event, Answers>>,
    recent: Mutex<Vec<Event>>,
    kept: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
    deaf: AtomicBool,
    pub ended: AtomicBool,
}

/// Of so many last events one is sent again now and then.
const RECENT: usize = 512;

impl Ledger {
    /// What is to be sent next: something new mostly, or an event again, or another one of the same delivery.
    pub fn next(&self, rng: &mut Rng) -> Event {
        let mut recent = self.recent.lock().unwrap();
        let again = (!recent.is_empty()).then(|| recent[rng.usize(..recent.len())].clone());
        let event = match (rng.u8(..10), again) {
            (0..2, Some(event)) => event,
            (2, Some((id, status))) => (id, if status == "failed" { "delivered" } else { "failed" }),
            _ => {
                let id = Uuid::from_u128(rng.u128(..));
                // Ids are UUIDs today, and nobody has promised that they stay so.
                let id = if rng.bool() { id.to_string() } else { format!("otp_{}", id.simple()) };
                (id, "delivered")
            }
        };
        if recent.len() < RECENT {
            recent.push(event.clone());
        } else {
            recent[rng.usize(..RECENT)] = event.clone();
        }
        let mut events = self.events.lock().unwrap();
        let answers = events.entry(event.clone()).or_default();
        if answers.sent == 0 {
            answers.sent_at = monotonic();
        }
        answers.sent += 1;
        event
    }

    /// From now on nobody hears an answer: the power goes with which it would have come.
    pub fn hear_no_more(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// It was answered 200.
    pub fn keep(&self, event: &Event) {
        if self.deaf.load(Ordering::SeqCst) {
            return self.miss();
        }
        {
            let mut events = self.events.lock().unwrap();
            let answers = events.get_mut(event).expect("it was sent");
            if answers.kept == 0 {
                answers.kept_at = monotonic();
            }
            answers.kept += 1;
        }
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// It was answered 503.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// No answer came.
    pub fn miss(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were answered 200.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// How many were answered 503.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many were not answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Every event with its answers.
    pub fn events(&self) -> Vec<(Event, Answers)> {
        self.events.lock().unwrap().iter().map(|(event, answers)| (event.clone(), *answers)).collect()
    }

    /// Waits until so many more have been answered 200.
    pub async fn until_more(&self, more: usize) {
        let before = self.kept();
        until(async || self.kept() >= before + more).await;
    }

    /// Waits until so many more have been answered 503.
    pub async fn until_more_refused(&self, more: usize) {
        let before = self.refused();
        until(async || self.refused() >= before + more).await;
    }

    /// Every event that was answered 200 is in the store, once, and counted at least as often as it was answered 200
    /// and at most as often as it was sent. Answers how many there are.
    pub async fn holds_in(&self, store: &dyn Store) -> usize {
        const AT_ONCE: usize = 8;
        let mut by_id: BTreeMap<String, Vec<(&'static str, Answers)>> = BTreeMap::new();
        for ((id, status), answers) in self.events() {
            by_id.entry(id).or_default().push((status, answers));
        }
        // Of the others nothing was promised, and a long outage leaves millions of them.
        by_id.retain(|_, events| events.iter().any(|(_, answers)| answers.kept > 0));
        let looks = by_id.into_iter().map(|(id, events)| look(store, id, events));
        stream::iter(looks).buffer_unordered(AT_ONCE).fold(0, async |sum, kept| sum + kept).await
    }
}

/// The time, in nanoseconds of the system's monotonic clock.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

async fn look(store: &dyn Store, id: String, events: Vec<(&'static str, Answers)>) -> usize {
    let delivery = DeliveryId::parse(id.clone()).unwrap();
    let mut evidence = Vec::new();
    // A busy machine may be late with an answer.
    until(async || match store.events(&delivery).await {
        Ok(found) => {
            evidence = found;
            true
        }
        Err(StoreError::Unavailable(_)) => false,
        Err(error) => panic!("{error}"),
    })
    .await;
    let mut kept = 0;
    for (status, answers) in events {
        let body = body(&id, status);
        let times: Vec<_> =
            evidence.iter().filter(|it| it.proof.body()[..] == body[..]).map(|it| it.times).collect();
        assert!(times.len() <= 1, "{id} {status} is there twice");
        let times = times.first().copied().unwrap_or_default();
        assert!(
            times >= answers.kept,
            "{id} {status} was answered 200 and is lost: {answers:?}, {times} there"
        );
        assert!(times <= answers.sent, "{id} {status} is counted twice: {answers:?}, {times} there");
        kept += usize::from(answers.kept > 0);
    }
    kept
}
