//! What the writer commits together, and what it does while a store is away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use nexo_receiver::{
    batch::Outcome,
    clock::Timestamp,
    event::Arrival,
    logs::Events,
    news::News,
    store::open::{Location, open},
    waiting::Waiters,
    writer::{Answer, NotKept, Options, QueueFull, Writer},
};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::support::{
    database::{Database, on_each_store},
    process::Logged,
    provider::{WEBHOOK_SECRET, event, verified},
    sender::Sender,
    until::until,
};

on_each_store! {
    a_store_that_failed_is_left_alone_for_a_moment,
    the_log_counts_what_was_committed_in_a_line_a_second,
    an_outage_is_two_lines_in_the_log,
}

async fn writer(database: &Database) -> (Writer, JoinHandle<()>) {
    writer_at(&database.location()).await
}

async fn writer_at(location: &Location) -> (Writer, JoinHandle<()>) {
    let options = Options {
        queue: 1_000,
        queue_bytes: 1 << 20,
        batch: 512,
        log_events: Events::Sampled,
        lock_wait: Duration::from_secs(5),
    };
    let store = open(location).await.unwrap();
    Writer::start(&options, store, Arc::default(), Waiters::new(), News::new())
}

fn arrival(id: &str) -> Arrival {
    Arrival::understand(verified(WEBHOOK_SECRET, &event(id, "delivered")), Timestamp::now())
}

fn submit(writer: &Writer, ids: std::ops::Range<usize>) -> Vec<oneshot::Receiver<Answer>> {
    ids.map(|id| writer.submit(arrival(&id.to_string())).unwrap()).collect()
}

/// Commits of this database that are held up, and have been for longer than a commit takes to find out why.
async fn under_way(database: &Database) -> i64 {
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND clock_timestamp() - state_change > interval '100 milliseconds'";
    database.number(waiting).await
}

/// Waits for so many of them, and sees that they stay as many.
async fn stays_under_way(database: &Database, commits: i64) {
    until(async || under_way(database).await == commits).await;
    for _ in 0..5 {
        assert_eq!(under_way(database).await, commits);
    }
}

async fn all_new(answers: Vec<oneshot::Receiver<Answer>>) {
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Ok(Outcome::New));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_committed_beside_the_first_one_however_small_that_is() {
    for first in [1, 300] {
        let database = Database::on_postgres().await;
        let (writer, _) = writer(&database).await;
        let hold = database.hold_writers().await;
        let mut answers = Vec::new();
        for (commits, arrivals) in [(1, first), (2, 300)] {
            answers.extend(submit(&writer, 0..arrivals));
            until(async || under_way(&database).await >= commits).await;
        }
        hold.close().await;
        let mut new = 0;
        for answer in answers {
            new += usize::from(answer.await.unwrap().unwrap() == Outcome::New);
        }
        assert_eq!(new, 300);
        let twice = database.number("SELECT COUNT(*) FROM deliveries WHERE times = 2").await;
        assert_eq!(usize::try_from(twice).unwrap(), first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_worth_a_sync_or_has_no_lane_waits_to_be_committed_together() {
    let database = Database::on_postgres().await;
    let (writer, _) = writer(&database).await;
    let hold = database.hold_writers().await;
    let mut answers = Vec::new();
    for (ids, commits) in [(0..1, 1), (1..200, 1), (200..257, 2), (257..513, 2), (513..600, 2)] {
        answers.extend(submit(&writer, ids));
        stays_under_way(&database, commits).await;
    }
    hold.close().await;
    all_new(answers).await;
    assert_eq!(database.number("SELECT COUNT(DISTINCT xmin::text) FROM deliveries").await, 3);
}

#[tokio::test]
async fn a_writer_that_is_gone_takes_nothing_more() {
    let database = Database::on_sqlite().await;
    let (writer, task) = writer(&database).await;
    assert!(writer.is_alive() && writer.ended().now_or_never().is_none());
    task.abort();
    writer.ended().await;
    assert!(!writer.is_alive());
    assert_eq!(writer.submit(arrival("late")).map(drop), Err(QueueFull));
}

async fn a_store_that_failed_is_left_alone_for_a_moment(database: Database) {
    const PATIENCE: Duration = Duration::from_millis(200);
    const MOMENT: Duration = Duration::from_millis(100);
    let mut location = database.location();
    match &mut location {
        Location::Postgres(options) => options.commit_timeout = PATIENCE,
        Location::Sqlite(options) => options.commit_timeout = PATIENCE,
    }
    let (writer, _) = writer_at(&location).await;
    let tell = async || writer.submit(arrival("a")).unwrap().await.unwrap();
    // Until the machine was fast enough once to ask again within the moment.
    until(async || {
        let hold = database.hold_writers().await;
        let before = Instant::now();
        assert_eq!(tell().await, Err(NotKept::Unavailable));
        hold.close().await;
        let again = tell().await;
        let in_time = before.elapsed() < PATIENCE + MOMENT;
        assert!(!in_time || again == Err(NotKept::Unavailable), "{again:?} after {:?}", before.elapsed());
        until(async || tell().await.is_ok()).await;
        in_time
    })
    .await;
}

/// The lines of a log that say this.
fn saying(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == message).collect()
}

async fn the_log_counts_what_was_committed_in_a_line_a_second(database: Database) {
    let (logged, started) = (Logged::serve(&database, Vec::new()), Instant::now());
    let mut sender = Sender::connect(logged.process.address).await;
    for n in 0..20 {
        for status in ["delivered", "sent", "delivered", "delivered"] {
            assert_eq!(sender.post(&event(&n.to_string(), status)).await.short(), (200, "ok"));
        }
    }
    let log = logged.terminate().await;
    let committed = saying(&log, "committed");
    let sum = |what: &str| committed.iter().map(|line| line[what].as_u64().unwrap()).sum::<u64>();
    assert_eq!(["new", "older", "repeated"].map(sum), [20, 20, 40]);
    // One at once, one at the end, and one for each whole second between.
    let most = started.elapsed().as_secs() + 2;
    assert!(committed.len() as u64 <= most, "{} lines, not {most}", committed.len());
}

const HIDE: &str = "ALTER TABLE deliveries RENAME TO elsewhere";
const SHOW: &str = "ALTER TABLE elsewhere RENAME TO deliveries";

async fn an_outage_is_two_lines_in_the_log(database: Database) {
    const OUTAGE: Duration = Duration::from_millis(400);
    let logged = Logged::serve(&database, Vec::new());
    let mut sender = Sender::connect(logged.process.address).await;
    database.execute(HIDE).await;
    let began = Instant::now();
    until(async || {
        assert_eq!(sender.post(&event("a", "delivered")).await.status, 503);
        began.elapsed() > OUTAGE
    })
    .await;
    database.execute(SHOW).await;
    until(async || sender.post(&event("a", "delivered")).await.status == 200).await;
    let log = logged.terminate().await;
    let failed = "a commit failed: webhooks are answered 503 until the store is back";
    assert_eq!([failed, "the store is back"].map(|message| saying(&log, message).len()), [1, 1]);
}
