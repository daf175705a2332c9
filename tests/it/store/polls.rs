//! The queue of deliveries that the provider is to be asked for, and the turns in which it is worked off.

use std::time::Duration;

use nexo_receiver::{
    clock::Timestamp,
    event::Arrival,
    store::{
        Store,
        polls::{Turn, Turned},
    },
};

use super::{DELIVERED, Told, arrival, keep};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    what_is_still_sent_is_asked_for_and_what_is_settled_is_not,
    nothing_is_asked_for_before_its_time,
    a_turn_is_one_replicas_and_keeps_the_pace,
    what_a_replica_took_and_did_not_ask_for_comes_again,
    each_pause_is_twice_the_one_before_up_to_an_hour,
    what_is_too_old_is_given_up,
    a_queue_that_nobody_works_off_is_forgotten,
}

/// Everything at once, and at any time again.
const AT_ONCE: Turn = Turn { after: Duration::ZERO, most: 100, pace: Duration::ZERO, lease: Duration::ZERO };
const LONG: Duration = Duration::from_secs(3_600);

/// An event of a delivery that was created so many hours ago.
fn event(id: &str, status: &str, hours_ago: u32) -> Arrival {
    let created_at = Timestamp::now().hours_before(hours_ago).to_string();
    let told = Told { id, status, created_at: &created_at, completed_at: "", ..DELIVERED };
    arrival(told.body().as_bytes(), 0)
}

async fn turn(store: &dyn Store, turn: Turn) -> (Vec<String>, u64, u64) {
    let Turned { polls, settled, given_up } = store.take_turn(&turn).await.unwrap();
    let mut ids: Vec<_> = polls.iter().map(|id| id.as_str().to_owned()).collect();
    ids.sort();
    (ids, settled, given_up)
}

async fn what_is_still_sent_is_asked_for_and_what_is_settled_is_not(database: Database) {
    let store = database.open().await;
    keep(&*store, ["a", "b", "c"].map(|id| event(id, "sent", 1)).to_vec()).await;
    keep(&*store, vec![event("b", "delivered", 1), event("d", "failed", 1)]).await;
    // Both at once, and the other way round.
    keep(&*store, vec![event("e", "sent", 1), event("e", "failed", 1)]).await;
    keep(&*store, vec![event("d", "sent", 1)]).await;
    let asked = turn(&*store, Turn { lease: LONG, ..AT_ONCE }).await;
    let queued = if database.is_postgres() { 2 } else { 1 };
    assert_eq!(asked, (vec!["a".into(), "c".into()], queued, 0));
    assert_eq!(turn(&*store, AT_ONCE).await, (vec![], 0, 0), "they are somebody's for an hour");
    // A second word of the same changes nothing of when they are asked for.
    keep(&*store, vec![event("a", "sent", 2)]).await;
    assert_eq!(turn(&*store, AT_ONCE).await, (vec![], 0, 0));
}

async fn nothing_is_asked_for_before_its_time(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![event("new", "sent", 0), event("old", "sent", 2)]).await;
    assert_eq!(turn(&*store, Turn { after: LONG, ..AT_ONCE }).await.0, ["old"]);
}

async fn a_turn_is_one_replicas_and_keeps_the_pace(database: Database) {
    let (here, there) = (database.open().await, database.open().await);
    keep(&*here, (0..9).map(|n| event(&n.to_string(), "sent", 1)).collect()).await;
    let three = Turn { most: 3, pace: LONG, lease: LONG, ..AT_ONCE };
    assert_eq!(turn(&*here, three).await.0.len(), 3);
    for store in [&there, &here] {
        assert_eq!(turn(&**store, three).await.0.len(), 0, "the pace of three calls is three hours");
    }
}

async fn what_a_replica_took_and_did_not_ask_for_comes_again(database: Database) {
    let (here, there) = (database.open().await, database.open().await);
    keep(&*here, (0..9).map(|n| event(&n.to_string(), "sent", 1)).collect()).await;
    let first = turn(&*here, Turn { most: 5, ..AT_ONCE }).await.0;
    assert_eq!(first.len(), 5);
    let both = turn(&*there, AT_ONCE).await.0;
    assert_eq!(both, (0..9).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn each_pause_is_twice_the_one_before_up_to_an_hour(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![event("a", "sent", 1)]).await;
    let (pause, now) = match database.is_postgres() {
        true => ("SELECT extract(epoch FROM next_at - now())::bigint FROM polls", "now()"),
        false => ("SELECT next_at / 1000000 - unixepoch() FROM polls", "unixepoch() * 1000000"),
    };
    for seconds in [90, 180, 360, 720, 1_440, 2_880, 3_600, 3_600] {
        assert_eq!(turn(&*store, Turn { after: Duration::from_secs(90), ..AT_ONCE }).await.0, ["a"]);
        let taken = database.number(pause).await;
        // A quarter less or more, and the seconds that this takes.
        let expected = seconds * 3 / 4 - 5..=seconds * 5 / 4 + 1;
        assert!(expected.contains(&taken), "{taken} s for {seconds} s");
        database.execute(&format!("UPDATE polls SET next_at = {now}")).await;
    }
}

async fn what_is_too_old_is_given_up(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![event("a", "sent", 23), event("b", "sent", 25)]).await;
    assert_eq!(turn(&*store, AT_ONCE).await, (vec!["a".into()], 0, 1));
    assert_eq!(turn(&*store, AT_ONCE).await, (vec!["a".into()], 0, 0));
}

async fn a_queue_that_nobody_works_off_is_forgotten(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![event("a", "sent", 47), event("b", "sent", 49)]).await;
    assert_eq!(store.forget(Timestamp::now()).await.unwrap(), 1);
    assert_eq!(turn(&*store, AT_ONCE).await, (vec![], 0, 1), "the other one is given up");
}
