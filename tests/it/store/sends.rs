//! Sends on record: who makes one, what the next is told, and for how long.

use nexo_receiver::{
    clock::Timestamp,
    phone::Phone,
    provider::Refusal,
    signature::Signature,
    store::sends::{Begun, SendKey, SendOutcome, SendRecord},
};

use futures_util::future::{join_all, select_all};

use crate::support::{
    database::{Database, on_each_store},
    until::until,
};

on_each_store! {
    one_makes_it_and_the_others_are_told_what_came_of_it,
    each_outcome_is_told_as_it_was,
    what_was_not_made_may_be_made_by_the_next,
    a_key_counts_for_a_day_and_an_unclear_send_for_ever,
    only_what_is_over_is_forgotten,
}

const HOUR: i64 = 3_600_000_000;

fn key(text: &str) -> SendKey {
    SendKey::parse(text).unwrap()
}

/// A send with this key, so many microseconds after the day began.
fn send(text: &str, micros: i64) -> SendRecord {
    SendRecord {
        key: key(text),
        fingerprint: Signature::from_bytes([1; 32]),
        phone: Phone::parse("+84981234567").unwrap(),
        began_at: at(micros),
    }
}

fn at(micros: i64) -> Timestamp {
    let day = Timestamp::parse("2026-05-26T00:00:00Z").unwrap();
    Timestamp::from_micros(day.micros() + micros).unwrap()
}

fn accepted() -> SendOutcome {
    SendOutcome::Accepted(r#"{"ok":true}"#.into())
}

async fn one_makes_it_and_the_others_are_told_what_came_of_it(database: Database) {
    let (here, there) = (database.open().await, database.open().await);
    assert_eq!(here.begin_send(&send("a", 1)).await.unwrap(), Begun::Now);
    assert_eq!(there.begin_send(&send("a", 2)).await.unwrap(), Begun::UnderWay(at(1)));
    assert_eq!(there.begin_send(&send("b", 2)).await.unwrap(), Begun::Now);
    let other = SendRecord { fingerprint: Signature::from_bytes([2; 32]), ..send("a", 2) };
    assert_eq!(there.begin_send(&other).await.unwrap(), Begun::OtherRequest);
    here.end_send(&key("a"), Some(&accepted())).await.unwrap();
    assert_eq!(there.begin_send(&send("a", 3)).await.unwrap(), Begun::Ended(accepted()));
    assert_eq!(there.begin_send(&other).await.unwrap(), Begun::OtherRequest);
}

async fn each_outcome_is_told_as_it_was(database: Database) {
    let store = database.open().await;
    let deposit_url = Some("https://pay.example".to_owned());
    for outcome in [
        accepted(),
        SendOutcome::Refused(Refusal::InsufficientBalance { deposit_url }),
        SendOutcome::Refused(Refusal::InsufficientBalance { deposit_url: None }),
        SendOutcome::Refused(Refusal::NoRoute),
        SendOutcome::Refused(Refusal::Other("of a later version".into())),
        SendOutcome::Unclear,
    ] {
        let send = SendRecord { key: SendKey::fresh(), ..send("-", 0) };
        assert_eq!(store.begin_send(&send).await.unwrap(), Begun::Now);
        store.end_send(&send.key, Some(&outcome)).await.unwrap();
        // What was told once is not told otherwise.
        store.end_send(&send.key, Some(&SendOutcome::Refused(Refusal::InvalidPhone))).await.unwrap();
        store.end_send(&send.key, None).await.unwrap();
        assert_eq!(store.begin_send(&send).await.unwrap(), Begun::Ended(outcome));
    }
}

async fn what_was_not_made_may_be_made_by_the_next(database: Database) {
    let store = database.open().await;
    assert_eq!(store.begin_send(&send("a", 0)).await.unwrap(), Begun::Now);
    store.end_send(&key("a"), None).await.unwrap();
    assert_eq!(store.begin_send(&send("a", 1)).await.unwrap(), Begun::Now);
}

async fn a_key_counts_for_a_day_and_an_unclear_send_for_ever(database: Database) {
    let store = database.open().await;
    let outcomes =
        [("accepted", Some(accepted())), ("unclear", Some(SendOutcome::Unclear)), ("cut off", None)];
    for (name, outcome) in &outcomes {
        let name = &name.replace(' ', "-");
        store.begin_send(&send(name, 0)).await.unwrap();
        if outcome.is_some() {
            store.end_send(&key(name), outcome.as_ref()).await.unwrap();
        }
    }
    let again = async |name, micros| store.begin_send(&send(name, micros)).await.unwrap();
    assert_eq!(again("accepted", 24 * HOUR).await, Begun::Ended(accepted()));
    assert_eq!(again("accepted", 24 * HOUR + 1).await, Begun::Now);
    assert_eq!(again("accepted", 24 * HOUR + 2).await, Begun::UnderWay(at(24 * HOUR + 1)));
    assert_eq!(again("unclear", 999 * HOUR).await, Begun::Ended(SendOutcome::Unclear));
    assert_eq!(again("cut-off", 999 * HOUR).await, Begun::UnderWay(at(0)));
}

async fn only_what_is_over_is_forgotten(database: Database) {
    let store = database.open().await;
    for name in ["accepted", "unclear", "cut-off"] {
        store.begin_send(&send(name, 0)).await.unwrap();
    }
    store.end_send(&key("accepted"), Some(&accepted())).await.unwrap();
    store.end_send(&key("unclear"), Some(&SendOutcome::Unclear)).await.unwrap();
    assert_eq!(store.forget(at(24 * HOUR)).await.unwrap(), 0);
    assert_eq!(store.forget(at(24 * HOUR + 1)).await.unwrap(), 1);
    assert_eq!(store.forget(at(999 * HOUR)).await.unwrap(), 0);
    assert_eq!(store.begin_send(&send("unclear", 0)).await.unwrap(), Begun::Ended(SendOutcome::Unclear));
}

/// Four are written beside commits at one time, and each of them waits for a lock: the fifth takes the place of
/// whichever ends first.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_place_that_becomes_free_is_taken() {
    let database = Database::on_postgres().await;
    let store = database.open().await;
    let mut holds = Vec::new();
    for held in ["a", "b", "c", "d"] {
        assert_eq!(store.begin_send(&send(held, 1)).await.unwrap(), Begun::Now);
        let mut hold = database.direct().await;
        hold.execute(&format!("BEGIN; SELECT FROM sends WHERE key = '{held}' FOR UPDATE")).await;
        holds.push(hold);
    }
    let end = |held| {
        let store = store.clone();
        tokio::spawn(async move { store.end_send(&key(held), Some(&accepted())).await.unwrap() })
    };
    let mut ends: Vec<_> = ["a", "b", "c", "d"].map(end).into();
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(async || database.number(waiting).await == 4).await;
    let fifth = tokio::spawn({
        let store = store.clone();
        async move { store.begin_send(&send("e", 1)).await.unwrap() }
    });
    // Any but the first, which an older build waited for.
    holds.pop().unwrap().close().await;
    let (_, ended, rest) = select_all(ends.drain(..)).await;
    assert_eq!(ended, 3);
    assert_eq!(fifth.await.unwrap(), Begun::Now);
    assert_eq!(database.number(waiting).await, 3);
    join_all(holds.into_iter().map(|hold| hold.close())).await;
    for end in rest {
        end.await.unwrap();
    }
}
