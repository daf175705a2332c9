//! What a panic in the background comes to: over a store whose every method panics once.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use nexo_receiver::{
    background::{Background, restarts},
    batch::Batch,
    clock::Timestamp,
    delivery::{Delivery, DeliveryId},
    event::Arrival,
    feed::{self, Feed},
    logs::Events as LogEvents,
    metrics::Metrics,
    news::{self, News},
    store::{
        Evidence, Kept, Quarantined, Store, StoreError,
        changes::{ChangePage, Notices, Position},
        hours::Due,
        polls::{Turn, Turned},
        query::{ListDeliveries, ListEvents, ListQuarantine, Page, Stats, StatsQuestion},
        sends::{Begun, Claim, SendKey, SendOutcome, SendRecord},
    },
    summary, upkeep,
    waiting::{self, Waiters},
    writer::{Options, Writer},
};
use tokio::{sync::watch, time::Instant};

use crate::support::{
    provider::{WEBHOOK_SECRET, event, verified},
    until::look_again,
};

/// Panics the first time that each of its methods is called, and is away from then on.
#[derive(Default)]
struct Panicking(Mutex<HashSet<&'static str>>, Mutex<HashSet<&'static str>>);

impl Panicking {
    fn call<T>(&self, method: &'static str) -> Result<T, StoreError> {
        let is_first = self.0.lock().unwrap().insert(method);
        assert!(!is_first, "injected in {method}");
        self.1.lock().unwrap().insert(method);
        Err(StoreError::Unavailable("away".to_owned()))
    }

    /// Whether a method was called again after it had panicked.
    fn is_called_again(&self, method: &str) -> bool {
        self.1.lock().unwrap().contains(method)
    }
}

/// Waits, in a time that passes by itself, until something is true.
async fn in_time(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(3_600);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        look_again().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_background_task_starts_again_after_a_panic() {
    let store = Arc::<Panicking>::default();
    let (news, waiters) = (News::new(), Waiters::new());
    let feed = Feed::new(store.clone(), Arc::clone(&news), Arc::new(Metrics::new()));
    let _waiter = waiters.begin(DeliveryId::parse("a".to_owned()).unwrap());
    let parts = || (store.clone(), Arc::clone(&news), Arc::clone(&waiters), Arc::clone(&feed));
    type Told = watch::Receiver<()>;
    let (one, two, three, four, five) = (parts(), parts(), parts(), parts(), parts());
    let tasks = [
        ("now", Background::start("test summary", move |told: Told| summary::run(one.0.clone(), told))),
        (
            "announce",
            Background::start("test announcing", move |told: Told| {
                news::announce(two.1.clone(), two.0.clone(), told)
            }),
        ),
        (
            "listen",
            Background::start("test listening", move |told: Told| {
                news::listen(three.1.clone(), three.0.clone(), told)
            }),
        ),
        (
            "settled_among",
            Background::start("test waiting", move |told: Told| {
                waiting::follow(four.2.clone(), four.1.clone(), four.0.clone(), told)
            }),
        ),
        ("feed", Background::start("test feed", move |told: Told| feed::run(five.3.clone(), told))),
    ];
    for (method, _) in tasks.iter().filter(|(method, _)| *method != "feed") {
        in_time(method, || {
            // Until it is announced again.
            news.committed();
            store.is_called_again(method)
        })
        .await;
    }
    let restarts = restarts();
    for task in ["test summary", "test announcing", "test listening", "test waiting"] {
        assert_eq!(restarts[task], 1, "{task}");
    }
    // Nobody follows, so that nothing is asked for.
    assert_eq!(restarts["test feed"], 0);
    for (_, task) in tasks {
        task.stop(Instant::now() + Duration::from_secs(1)).await;
    }
    let store = Arc::<Panicking>::default();
    let forgetful = store.clone();
    let upkeep = Background::start("test upkeep", move |told: Told| upkeep::run(forgetful.clone(), told));
    in_time("upkeep", || store.is_called_again("now")).await;
    upkeep.stop(Instant::now() + Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_writer_that_panics_ends_and_acknowledges_nothing() {
    let options = Options {
        queue: 10,
        queue_bytes: 1 << 20,
        batch: 10,
        log_events: LogEvents::Off,
        lock_wait: Duration::from_secs(1),
    };
    let store = Arc::<Panicking>::default();
    let (writer, task) = Writer::start(&options, store, Arc::default(), Waiters::new(), News::new());
    let arrival =
        |id| Arrival::understand(verified(WEBHOOK_SECRET, &event(id, "delivered")), Timestamp::now());
    let answer = writer.submit(arrival("a")).unwrap();
    assert!(answer.await.is_err(), "nothing is promised");
    // What `serve` waits for to end with exit code 1.
    writer.ended().await;
    assert!(!writer.is_alive() && writer.submit(arrival("b")).is_err());
    assert!(task.await.unwrap_err().is_panic());
}

#[async_trait]
impl Store for Panicking {
    async fn commit(&self, _: &Batch) -> Result<Vec<Kept>, StoreError> {
        self.call("commit")
    }
    async fn release(&self, _: Vec<Arrival>) -> Result<(), StoreError> {
        self.call("release")
    }
    async fn delivery(&self, _: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.call("delivery")
    }
    async fn settled_among(&self, _: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
        self.call("settled_among")
    }
    async fn deliveries(&self, _: &ListDeliveries) -> Result<Page<Delivery>, StoreError> {
        self.call("deliveries")
    }
    async fn list_events(&self, _: &ListEvents) -> Result<Page<Evidence>, StoreError> {
        self.call("list_events")
    }
    async fn stats(&self, _: &StatsQuestion) -> Result<Stats, StoreError> {
        self.call("stats")
    }
    async fn sum_up(&self, _: &Due) -> Result<Option<Timestamp>, StoreError> {
        self.call("sum_up")
    }
    async fn quarantine(&self, _: &ListQuarantine) -> Result<Page<Quarantined>, StoreError> {
        self.call("quarantine")
    }
    async fn latest_change(&self) -> Result<Position, StoreError> {
        self.call("latest_change")
    }
    async fn changes(&self, _: Position) -> Result<Option<ChangePage>, StoreError> {
        self.call("changes")
    }
    async fn announce(&self, _: &str) -> Result<(), StoreError> {
        self.call("announce")
    }
    async fn listen(&self, _: &str) -> Result<Box<dyn Notices>, StoreError> {
        self.call("listen")
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.call("now")
    }
    async fn begin_send(&self, _: &SendRecord) -> Result<Begun, StoreError> {
        self.call("begin_send")
    }
    async fn call_send(&self, _: &SendKey, _: Claim) -> Result<bool, StoreError> {
        self.call("call_send")
    }
    async fn end_send(&self, _: &SendKey, _: Claim, _: Option<&SendOutcome>) -> Result<(), StoreError> {
        self.call("end_send")
    }
    async fn take_turn(&self, _: &Turn) -> Result<Turned, StoreError> {
        self.call("take_turn")
    }
    async fn forget(&self, _: Timestamp) -> Result<u64, StoreError> {
        self.call("forget")
    }
    async fn ready(&self) -> Result<(), StoreError> {
        self.call("ready")
    }
    async fn migrate(&self) -> Result<usize, StoreError> {
        self.call("migrate")
    }
    async fn close(&self) {}
}
