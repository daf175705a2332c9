//! How a batch is separated, on a store that counts its commits.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Answer, NotKept, Options, Writer};
use crate::{
    batch::{Batch, Outcome},
    clock::Timestamp,
    delivery::{Delivery, DeliveryId},
    event::Arrival,
    logs,
    news::News,
    signature::{Digest, Signature, Verified},
    store::{
        Evidence, Fault, Kept, Quarantined, Store, StoreError,
        changes::{ChangePage, Notices, Position},
        hours::Due,
        polls::{Turn, Turned},
        query::{ListDeliveries, ListEvents, ListQuarantine, Page, Stats, StatsQuestion},
        sends::{Begun, Claim, SendKey, SendOutcome, SendRecord},
    },
    waiting::Waiters,
};

/// Holds nothing; what it is to refuse is set by each test.
#[derive(Default)]
struct Troubled {
    state: Mutex<State>,
    /// Whether it can tell which rows are locked.
    tells_locks: bool,
}

#[derive(Default)]
struct State {
    refused: HashSet<String>,
    unreadable: HashSet<String>,
    locked: HashSet<String>,
    refuses_quarantine: bool,
    /// The ids of each commit, whatever came of it.
    commits: Vec<Vec<String>>,
    /// What was quarantined: reasons in a sentence.
    quarantined: Vec<String>,
}

impl Troubled {
    fn set(&self, set: impl FnOnce(&mut State)) {
        set(&mut self.state.lock().unwrap());
    }

    fn commits(&self) -> Vec<Vec<String>> {
        self.state.lock().unwrap().commits.clone()
    }
}

#[async_trait]
impl Store for Troubled {
    async fn commit(&self, batch: &Batch) -> Result<Vec<Kept>, StoreError> {
        let mut state = self.state.lock().unwrap();
        let ids: Vec<_> = batch.events.iter().map(|event| event.id().as_str().to_owned()).collect();
        state.commits.push(ids.clone());
        if ids.iter().any(|id| state.refused.contains(id))
            || (state.refuses_quarantine && !batch.quarantine.is_empty())
        {
            return Err(StoreError::Refused("SQLSTATE 23514".into()));
        }
        if ids.iter().any(|id| state.locked.contains(id)) {
            return Err(StoreError::Contended("SQLSTATE 55P03".into()));
        }
        state.quarantined.extend(batch.quarantine.iter().map(|body| body.reason.to_string()));
        let event = |id| match state.unreadable.contains(id) {
            true => Err(Fault::Unreadable("its phone".into())),
            false => Ok(Outcome::New),
        };
        Ok(ids.iter().map(event).chain(batch.quarantine.iter().map(|body| Ok(body.outcome()))).collect())
    }

    async fn locked_among(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryId>, StoreError> {
        let state = self.state.lock().unwrap();
        let is_locked = |id: &&DeliveryId| self.tells_locks && state.locked.contains(id.as_str());
        Ok(ids.iter().filter(is_locked).cloned().collect())
    }

    async fn release(&self, _: Vec<Arrival>) -> Result<(), StoreError> {
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
    async fn quarantine(&self, _: &ListQuarantine) -> Result<Page<Quarantined>, StoreError> {
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

const QUEUE: usize = 1_024;

fn start(store: &Arc<Troubled>, queue: usize, lock_wait: Duration) -> Writer {
    let log_events = logs::Events::Off;
    let options = Options { queue, queue_bytes: 1 << 24, batch: 512, log_events, lock_wait };
    Writer::start(&options, Arc::clone(store) as _, Arc::default(), Waiters::new(), News::new()).0
}

fn event(id: &str) -> Arrival {
    let body = Bytes::from(format!(
        r#"{{"type":"otp","id":"{id}","phone":"+84981234567","carrier":"viettel","status":"sent","cost":0}}"#
    ));
    let verified = Verified::from_evidence(body.clone(), Digest::of(&body), Signature::from_bytes([0; 32]));
    Arrival::understand(verified, Timestamp::from_micros(0).unwrap())
}

type Answers = Vec<oneshot::Receiver<Answer>>;

/// They come in one batch: the writer runs only when the test waits.
fn submit(writer: &Writer, ids: Range<usize>) -> Answers {
    ids.map(|id| writer.submit(event(&id.to_string())).unwrap()).collect()
}

async fn count(answers: Answers, expected: &Answer) -> usize {
    let mut count = 0;
    for answer in answers {
        count += usize::from(answer.await.unwrap() == *expected);
    }
    count
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_refused_event_costs_a_bounded_number_of_commits_and_is_quarantined_alone() {
    for bad in [vec![0], vec![511], vec![3, 4, 300]] {
        let store = Arc::new(Troubled::default());
        store.set(|state| state.refused = bad.iter().map(usize::to_string).collect());
        let writer = start(&store, QUEUE, PATIENCE);
        let mut answers = Vec::new();
        for answer in submit(&writer, 0..512) {
            answers.push(answer.await.unwrap().unwrap());
        }
        for (id, outcome) in answers.into_iter().enumerate() {
            let expected = if bad.contains(&id) { Outcome::Quarantined } else { Outcome::New };
            assert_eq!(outcome, expected, "{id}");
        }
        // Twice the depth for each, and one for all that is quarantined.
        let (commits, most) = (store.commits().len(), 2 + bad.len() * 2 * 9);
        assert!(commits <= most, "{commits} commits, more than {most}");
        let quarantined = &store.state.lock().unwrap().quarantined;
        assert_eq!(quarantined.len(), bad.len());
        assert!(quarantined.iter().all(|why| why.contains("`") && why.contains("23514")), "{quarantined:?}");
    }
}

#[tokio::test]
async fn what_even_quarantine_refuses_is_refused_alone_and_intake_goes_on() {
    let store = Arc::new(Troubled::default());
    store.set(|state| {
        state.refused = (0..8).map(|id| id.to_string()).collect();
        state.refuses_quarantine = true;
    });
    let writer = start(&store, QUEUE, PATIENCE);
    let refused = Err(NotKept::Refused("SQLSTATE 23514".into()));
    assert_eq!(count(submit(&writer, 0..64), &refused).await, 8);
    assert_eq!(count(submit(&writer, 8..64), &Ok(Outcome::New)).await, 56);
    // Bisecting finds 8 of 64 in 2 * 8 * log2(64 / 8) + 2 * 8 commits at most, and quarantine is bisected likewise.
    let commits = store.commits().len();
    assert!(commits <= 64 + 16 + 2, "{commits}");
}

#[tokio::test]
async fn an_unreadable_row_costs_the_others_no_commit() {
    let store = Arc::new(Troubled::default());
    store.set(|state| state.unreadable = ["7".to_owned()].into());
    let writer = start(&store, QUEUE, PATIENCE);
    assert_eq!(count(submit(&writer, 0..64), &Ok(Outcome::New)).await, 63);
    // Theirs, and that of quarantine.
    assert_eq!(store.commits().len(), 2);
    let quarantined = store.state.lock().unwrap().quarantined.clone();
    assert_eq!(quarantined, ["the stored row of delivery `7` cannot be read: its phone"]);
}

#[tokio::test]
async fn a_locked_delivery_waits_alone_and_its_next_events_cost_the_others_nothing() {
    for tells_locks in [true, false] {
        let store = Arc::new(Troubled { tells_locks, ..Troubled::default() });
        store.set(|state| state.locked = ["7".to_owned()].into());
        let writer = start(&store, QUEUE, PATIENCE);
        let mut answers = submit(&writer, 0..64);
        let locked = answers.remove(7);
        assert_eq!(count(answers, &Ok(Outcome::New)).await, 63);
        let before = store.commits().len();
        assert!(before <= if tells_locks { 2 } else { 1 + 2 * 6 }, "{before}");
        // Others are committed at once, also where one of the batch is locked.
        let mut answers = submit(&writer, 0..64);
        let again = answers.remove(7);
        assert_eq!(count(answers, &Ok(Outcome::New)).await, 63);
        let with_others = store.commits()[before..].iter().filter(|ids| ids.len() > 1).count();
        assert_eq!(with_others, 1);
        store.set(|state| state.locked.clear());
        // Of the same bytes, so that the second is a copy.
        let answers = [locked.await.unwrap(), again.await.unwrap()];
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
}

#[tokio::test]
async fn who_waits_in_vain_is_refused_within_the_limit() {
    const LIMIT: Duration = Duration::from_millis(200);
    let store = Arc::new(Troubled { tells_locks: true, ..Troubled::default() });
    store.set(|state| state.locked = ["7".to_owned()].into());
    let writer = start(&store, QUEUE, LIMIT);
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(count(submit(&writer, 7..8), &Err(NotKept::Contended)).await, 1);
        assert!((LIMIT..10 * LIMIT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
    assert_eq!(store.commits().len(), 1, "it was not tried again while it was locked");
    store.set(|state| state.locked.clear());
    assert_eq!(count(submit(&writer, 7..8), &Ok(Outcome::New)).await, 1);
}

#[tokio::test]
async fn an_eighth_of_the_queue_may_wait_for_locks_and_no_more() {
    let store = Arc::new(Troubled { tells_locks: true, ..Troubled::default() });
    // Of two digits each, so that a batch has them in this order.
    store.set(|state| state.locked = (10..42).map(|id| id.to_string()).collect());
    let writer = start(&store, 64, PATIENCE);
    let mut answers = submit(&writer, 10..42);
    let beyond = answers.split_off(8);
    assert_eq!(count(beyond, &Err(NotKept::Contended)).await, 24);
    store.set(|state| state.locked.clear());
    assert_eq!(count(answers, &Ok(Outcome::New)).await, 8);
}

#[tokio::test]
async fn what_waits_for_locks_is_settled_before_the_end() {
    let store = Arc::new(Troubled { tells_locks: true, ..Troubled::default() });
    store.set(|state| state.locked = ["7".to_owned()].into());
    let writer = start(&store, QUEUE, PATIENCE);
    let mut answers = submit(&writer, 0..8);
    let locked = answers.remove(7);
    assert_eq!(count(answers, &Ok(Outcome::New)).await, 7);
    drop(writer);
    store.set(|state| state.locked.clear());
    assert_eq!(locked.await.unwrap(), Ok(Outcome::New));
}
