//! Hours that are summed up: statistics are the same with and without, whatever happens when.

use std::sync::Arc;

use fastrand::Rng;
use nexo_receiver::{
    clock::Timestamp,
    event::Arrival,
    store::{
        Store, StoreError,
        hours::Due,
        query::{GroupBy, Stats, StatsQuestion},
    },
    summary,
};
use tokio::{sync::watch, task::JoinSet};

use super::{DELIVERED, FAILED, SENT, Told, at, folded, keep};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    statistics_are_the_same_with_any_hours_summed_up,
    an_hour_that_changes_is_summed_up_anew,
    an_hour_is_summed_up_once,
    only_hours_that_are_over_are_summed_up_or_set_back,
    sums_are_right_while_two_replicas_commit_and_sum_up,
}

/// Everything that is due, in order.
async fn sum_up(store: &dyn Store) -> Vec<Timestamp> {
    let mut due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
    let mut hours = Vec::new();
    while let Some(hour) = store.sum_up(&due).await.unwrap() {
        due = due.after(hour);
        hours.push(hour);
    }
    hours
}

async fn ask(store: &dyn Store, from: &str, to: &str, by: Option<GroupBy>) -> Stats {
    store.stats(&StatsQuestion { from: at(from), to: at(to), by }).await.unwrap()
}

/// Ranges with and without whole hours, with and without ends on the hour, each in every grouping.
async fn ask_all(store: &dyn Store) -> Vec<Stats> {
    let ranges = [
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
        ("2026-05-26T08:00:00Z", "2026-05-26T12:00:00Z"),
        ("2026-05-26T08:30:00Z", "2026-05-26T11:30:00Z"),
        ("2026-05-26T08:59:59.999999Z", "2026-05-26T10:00:00.000001Z"),
        ("2026-05-26T09:00:00Z", "2026-05-26T10:00:00Z"),
        ("2026-05-26T09:00:00.000001Z", "2026-05-26T10:00:00Z"),
        ("2026-05-26T09:10:00Z", "2026-05-26T09:50:00Z"),
        ("1969-12-31T00:00:00Z", "1970-01-01T12:00:00Z"),
    ];
    let mut answers = Vec::new();
    for (from, to) in ranges {
        for by in GroupBy::ALL.map(Some).into_iter().chain([None]) {
            answers.push(ask(store, from, to, by).await);
        }
    }
    answers
}

/// A random event of one of few deliveries, so that many meet another event of theirs.
fn any_event(random: &mut Rng, ids: u32) -> Arrival {
    let id = random.u32(..ids);
    // The same for each of an id's events, most of the time.
    let minute = if random.u8(..10) == 0 { random.u32(..300) } else { id * 7 % 300 };
    let start = at("2026-05-26T07:00:00Z").micros() + i64::from(minute) * 60_000_000;
    let time = |micros| Timestamp::from_micros(micros).unwrap().to_string();
    let created_at = match id % 40 {
        0 => "0001-01-01T00:00:00Z".into(),
        1 => "1969-12-31T23:59:59.5Z".into(),
        2 => "9998-01-01T00:00:00Z".into(),
        _ => time(start),
    };
    let completed_at = time(start + random.i64(-3_000_000..70_000_000));
    let told = match random.u8(..4) {
        0 => SENT,
        1 => FAILED,
        _ => DELIVERED,
    };
    let carrier = ["viettel", "itel", "vinaphone"][random.usize(..3)];
    let completed_at = if told.completed_at.is_empty() { "" } else { &completed_at };
    let cost = ["0", "0.022", "0.0305"][random.usize(..3)];
    Told { id: &id.to_string(), carrier, created_at: &created_at, completed_at, cost, ..told }.received(0)
}

fn some_events(random: &mut Rng, ids: u32) -> Vec<Arrival> {
    (0..random.usize(1..40)).map(|_| any_event(random, ids)).collect()
}

async fn statistics_are_the_same_with_any_hours_summed_up(database: Database) {
    let store = database.open().await;
    let mut random = Rng::with_seed(26);
    for round in 0..4 {
        keep(&*store, some_events(&mut random, 400)).await;
        // Another few hours each time, and all in the end.
        let mut due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
        while let Some(hour) = store.sum_up(&due).await.unwrap() {
            due = due.after(hour);
            if round < 3 && random.bool() {
                due = due.after(hour_after(hour, random.i64(0..3)));
            }
        }
        let summed = ask_all(&*store).await;
        let hours = database.number("SELECT COUNT(*) FROM hours WHERE summed").await;
        assert!(hours > 0);
        database.execute("UPDATE hours SET summed = FALSE").await;
        assert_eq!(summed, ask_all(&*store).await, "in round {round}, {hours} hours were summed up");
    }
}

fn hour_after(hour: Timestamp, hours: i64) -> Timestamp {
    Timestamp::from_micros(hour.micros() + hours * 3_600_000_000).unwrap()
}

async fn an_hour_that_changes_is_summed_up_anew(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![SENT.received(0), Told { id: "b", ..DELIVERED }.received(0)]).await;
    let hour = [at("2026-05-26T10:00:00Z")];
    let total = async || ask(&*store, "2026-05-26T10:00:00Z", "2026-05-26T11:00:00Z", None).await.total;
    let late = [
        // A new delivery; one that is delivered; one whose event names another time than it is listed at.
        (Told { id: "c", ..FAILED }, (1, 1, 1)),
        (DELIVERED, (0, 2, 1)),
        (
            Told {
                id: "c",
                created_at: "2026-05-26T07:00:00Z",
                completed_at: "2026-05-26T12:00:00Z",
                ..DELIVERED
            },
            (0, 3, 0),
        ),
    ];
    for (told, expected) in late {
        assert!(sum_up(&*store).await.ends_with(&hour));
        assert_eq!(database.number("SELECT COUNT(*) FROM hours WHERE NOT summed").await, 0);
        keep(&*store, vec![told.received(0)]).await;
        let now = total().await;
        assert_eq!((now.sent, now.delivered, now.failed), expected);
    }
    sum_up(&*store).await;
    assert_eq!(total().await.delivered, 3);
}

async fn an_hour_is_summed_up_once(database: Database) {
    let store = database.open().await;
    let other = Told { id: "b", created_at: "2026-05-26T12:59:59.999999Z", ..SENT };
    keep(&*store, vec![DELIVERED.received(0), other.received(0)]).await;
    // As if they had come in time.
    database.execute("DELETE FROM hours").await;
    let hours = ["2026-05-26T10:00:00Z", "2026-05-26T12:00:00Z"].map(at);
    assert_eq!(sum_up(&*store).await, hours);
    assert_eq!(sum_up(&*store).await, []);
    // It is the sums that are read.
    database.execute("UPDATE hour_counts SET count = 1000").await;
    let day = async || ask(&*store, "2026-05-26T00:00:00Z", "2026-05-27T00:00:00Z", None).await.total;
    assert_eq!((day().await.sent, day().await.delivered), (1000, 1000));
    // Looked at before, only what was set back since is looked at again.
    database.execute("DELETE FROM hours").await;
    let due = Due::at(Timestamp::now(), Timestamp::now());
    assert_eq!(store.sum_up(&due).await.unwrap(), None);
    keep(&*store, vec![Told { id: "c", ..DELIVERED }.received(0)]).await;
    assert_eq!(store.sum_up(&due).await.unwrap(), Some(hours[0]));
    assert_eq!((day().await.sent, day().await.delivered), (1, 2));
}

async fn only_hours_that_are_over_are_summed_up_or_set_back(database: Database) {
    let store = database.open().await;
    let now = Timestamp::now();
    let told = |id, created_at: Timestamp| {
        let created_at = created_at.to_string();
        Told { id, created_at: &created_at, ..SENT }.received(0)
    };
    keep(&*store, vec![told("now", now), told("later", hour_after(now, 30))]).await;
    let delivered = Told { id: "now", created_at: &now.to_string(), ..DELIVERED };
    keep(&*store, vec![delivered.received(0)]).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM hours").await, 0);
    assert_eq!(sum_up(&*store).await, []);
    keep(&*store, vec![told("before", now.hours_before(2))]).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM hours").await, 1);
    assert_eq!(sum_up(&*store).await.len(), 1);
}

async fn sums_are_right_while_two_replicas_commit_and_sum_up(database: Database) {
    let replicas = [database.open().await, database.open().await];
    let told = |status| format!("SELECT COUNT(*) FROM deliveries WHERE status = '{status}'");
    for round in 0..10 {
        let mut tasks = JoinSet::new();
        for (n, store) in (0..).zip(&replicas) {
            let (commits, sums) = (Arc::clone(store), Arc::clone(store));
            tasks.spawn(async move {
                let mut random = Rng::with_seed(round * 2 + n);
                for _ in 0..6 {
                    let batch = folded(some_events(&mut random, 3_000));
                    // As the writer does where another commit holds a lock for longer than it waits.
                    while let Err(error) = commits.commit(&batch).await {
                        assert!(matches!(error, StoreError::Contended(_)), "{error}");
                    }
                }
            });
            tasks.spawn(async move {
                let (_going_on, mut stop) = watch::channel(());
                let due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
                assert!(summary::round(&*sums, due, &mut stop).await.unwrap());
            });
        }
        tasks.join_all().await;
        // Whatever was summed up, and whatever was set back since.
        let total = ask(&*replicas[0], "0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z", None).await.total;
        let [sent, delivered, failed] = ["sent", "delivered", "failed"].map(told);
        assert_eq!(total.sent, database.number(&sent).await.cast_unsigned(), "in round {round}");
        assert_eq!(total.delivered, database.number(&delivered).await.cast_unsigned(), "in round {round}");
        assert_eq!(total.failed, database.number(&failed).await.cast_unsigned(), "in round {round}");
    }
    sum_up(&*replicas[1]).await;
    assert_eq!(sum_up(&*replicas[0]).await, []);
    let summed = ask_all(&*replicas[0]).await;
    database.execute("DELETE FROM hours").await;
    assert_eq!(summed, ask_all(&*replicas[0]).await);
}
