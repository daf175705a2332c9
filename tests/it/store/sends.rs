//! Sends on record: who makes one, what the next is told, and for how long.

use nexo_receiver::{
    clock::Timestamp,
    phone::Phone,
    provider::Code,
    store::{
        Store,
        sends::{Begun, Claim, Fingerprint, SendKey, SendOutcome, SendRecord, SendState},
    },
};

use crate::support::database::{Database, on_each_store};

on_each_store! {
    one_makes_it_and_the_others_are_told_what_came_of_it,
    each_outcome_is_told_as_it_was,
    each_step_may_be_repeated,
    what_was_not_made_may_be_made_by_the_next,
    what_was_begun_and_not_called_is_taken_over,
    what_an_earlier_version_kept_as_refused_is_free,
    a_key_counts_for_a_day_and_an_unclear_send_for_ever,
    only_what_is_over_is_forgotten,
}

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

fn key(text: &str) -> SendKey {
    SendKey::parse(text).unwrap()
}

fn code() -> Code {
    Code::parse("482917").unwrap()
}

/// A send with this key, so many microseconds after the day began.
fn send(text: &str, micros: i64) -> SendRecord {
    let phone = Phone::parse("+84981234567").unwrap();
    let fingerprint = Fingerprint::of(&phone, &code());
    SendRecord { key: key(text), claim: Claim::fresh(), fingerprint, phone, began_at: at(micros) }
}

fn at(micros: i64) -> Timestamp {
    let day = Timestamp::parse("2026-05-26T00:00:00Z").unwrap();
    Timestamp::from_micros(day.micros() + micros).unwrap()
}

fn accepted() -> SendOutcome {
    SendOutcome::Accepted(r#"{"ok":true}"#.into())
}

/// Begins a send that has to be free, and is about to call.
async fn call(store: &dyn Store, send: &SendRecord) {
    assert_eq!(store.begin_send(send).await.unwrap(), Begun::Now);
    assert!(store.call_send(&send.key, send.claim).await.unwrap());
}

/// What is known of a send that is of the same request.
async fn known(store: &dyn Store, send: &SendRecord) -> SendState {
    let Begun::Known(known) = store.begin_send(send).await.unwrap() else { panic!("the key is free") };
    assert!(known.is_of(&send.phone, &code()));
    assert!(!known.is_of(&send.phone, &Code::parse("482918").unwrap()));
    assert!(!known.is_of(&Phone::parse("+84981234568").unwrap(), &code()));
    known.state
}

async fn one_makes_it_and_the_others_are_told_what_came_of_it(database: Database) {
    let (here, there) = (database.open().await, database.open().await);
    let first = send("a", 1);
    assert_eq!(here.begin_send(&first).await.unwrap(), Begun::Now);
    assert_eq!(known(&*there, &send("a", 2)).await, SendState::UnderWay(at(1)));
    assert_eq!(there.begin_send(&send("b", 2)).await.unwrap(), Begun::Now);
    assert!(here.call_send(&first.key, first.claim).await.unwrap());
    assert_eq!(known(&*there, &send("a", 2)).await, SendState::UnderWay(at(1)));
    here.end_send(&first.key, first.claim, Some(&accepted())).await.unwrap();
    assert_eq!(known(&*there, &send("a", 3)).await, SendState::Ended(accepted()));
}

async fn each_outcome_is_told_as_it_was(database: Database) {
    let store = database.open().await;
    for outcome in [accepted(), SendOutcome::Unclear] {
        let send = SendRecord { key: key(outcome.as_str()), ..send("-", 0) };
        call(&*store, &send).await;
        store.end_send(&send.key, send.claim, Some(&outcome)).await.unwrap();
        // What was told once is not told otherwise.
        let other = SendOutcome::Accepted("another".into());
        store.end_send(&send.key, send.claim, Some(&other)).await.unwrap();
        store.end_send(&send.key, send.claim, None).await.unwrap();
        assert!(!store.call_send(&send.key, send.claim).await.unwrap());
        assert_eq!(known(&*store, &send).await, SendState::Ended(outcome));
    }
}

/// As after a connection that ended before the answer came.
async fn each_step_may_be_repeated(database: Database) {
    let (here, there) = (database.open().await, database.open().await);
    let send = send("a", 0);
    for store in [&here, &there] {
        assert_eq!(store.begin_send(&send).await.unwrap(), Begun::Now);
    }
    for store in [&here, &there] {
        assert!(store.call_send(&send.key, send.claim).await.unwrap());
    }
    // A begin that comes late undoes nothing.
    assert_eq!(known(&*there, &send).await, SendState::UnderWay(at(0)));
    let later = SendRecord { claim: Claim::fresh(), began_at: at(HOUR), ..send.clone() };
    assert_eq!(known(&*there, &later).await, SendState::UnderWay(at(0)));
    here.end_send(&send.key, send.claim, None).await.unwrap();
    call(&*there, &later).await;
    // Nor does an end that comes twice end another's.
    here.end_send(&send.key, send.claim, None).await.unwrap();
    here.end_send(&send.key, send.claim, Some(&SendOutcome::Unclear)).await.unwrap();
    assert_eq!(known(&*here, &send).await, SendState::UnderWay(at(HOUR)));
}

async fn what_was_not_made_may_be_made_by_the_next(database: Database) {
    let store = database.open().await;
    let first = send("a", 0);
    call(&*store, &first).await;
    store.end_send(&first.key, first.claim, None).await.unwrap();
    assert_eq!(store.begin_send(&send("a", 1)).await.unwrap(), Begun::Now);
}

async fn what_was_begun_and_not_called_is_taken_over(database: Database) {
    let (here, there) = (database.open().await, database.open().await);
    let first = send("a", 0);
    assert_eq!(here.begin_send(&first).await.unwrap(), Begun::Now);
    assert_eq!(known(&*there, &send("a", 2 * SECOND)).await, SendState::UnderWay(at(0)));
    let second = send("a", 2 * SECOND + 1);
    assert_eq!(there.begin_send(&second).await.unwrap(), Begun::Now);
    // Whoever comes late makes nothing, and takes nothing away.
    assert!(!here.call_send(&first.key, first.claim).await.unwrap());
    here.end_send(&first.key, first.claim, None).await.unwrap();
    assert!(there.call_send(&second.key, second.claim).await.unwrap());
    assert_eq!(known(&*here, &send("a", 999 * HOUR)).await, SendState::UnderWay(second.began_at));
}

async fn what_an_earlier_version_kept_as_refused_is_free(database: Database) {
    let store = database.open().await;
    let first = send("a", 0);
    call(&*store, &first).await;
    database.execute("UPDATE sends SET outcome = 'refused', claim = NULL WHERE key = 'a'").await;
    assert_eq!(store.begin_send(&send("a", 1)).await.unwrap(), Begun::Now);
}

async fn a_key_counts_for_a_day_and_an_unclear_send_for_ever(database: Database) {
    let store = database.open().await;
    let outcomes =
        [("accepted", Some(accepted())), ("unclear", Some(SendOutcome::Unclear)), ("cut-off", None)];
    for (name, outcome) in &outcomes {
        let send = send(name, 0);
        call(&*store, &send).await;
        if outcome.is_some() {
            store.end_send(&send.key, send.claim, outcome.as_ref()).await.unwrap();
        }
    }
    assert_eq!(known(&*store, &send("accepted", 24 * HOUR)).await, SendState::Ended(accepted()));
    let next = send("accepted", 24 * HOUR + 1);
    assert_eq!(store.begin_send(&next).await.unwrap(), Begun::Now);
    let under_way = SendState::UnderWay(next.began_at);
    assert_eq!(known(&*store, &send("accepted", 24 * HOUR + 2)).await, under_way);
    assert_eq!(known(&*store, &send("unclear", 999 * HOUR)).await, SendState::Ended(SendOutcome::Unclear));
    assert_eq!(known(&*store, &send("cut-off", 999 * HOUR)).await, SendState::UnderWay(at(0)));
}

async fn only_what_is_over_is_forgotten(database: Database) {
    let store = database.open().await;
    for (name, outcome) in
        [("accepted", Some(accepted())), ("unclear", Some(SendOutcome::Unclear)), ("cut-off", None)]
    {
        let send = send(name, 0);
        call(&*store, &send).await;
        if outcome.is_some() {
            store.end_send(&send.key, send.claim, outcome.as_ref()).await.unwrap();
        }
    }
    assert_eq!(store.forget(at(24 * HOUR)).await.unwrap(), 0);
    assert_eq!(store.forget(at(24 * HOUR + 1)).await.unwrap(), 1);
    assert_eq!(store.forget(at(999 * HOUR)).await.unwrap(), 0);
    assert_eq!(known(&*store, &send("unclear", 0)).await, SendState::Ended(SendOutcome::Unclear));
}
