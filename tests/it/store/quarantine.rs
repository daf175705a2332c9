//! What was verified and not understood: kept, counted, paged, released.

use nexo_receiver::{
    batch::Outcome,
    event::Arrival,
    store::{
        Quarantined, Store,
        query::{Cursor, ListQuarantine, PageSize},
    },
};

use super::{DELIVERED, Told, after, arrival, delivery, id, keep, refused_by_store};
use crate::support::{
    database::{Database, on_each_store},
    evidence::EveryEvent as _,
};

on_each_store! {
    the_newest_comes_first_and_pages_are_stable,
    a_reason_is_kept_with_it,
    released_events_take_their_counts_along,
    what_is_no_longer_there_is_left_alone,
    the_same_bytes_may_be_in_quarantine_and_out_of_it,
}

/// An event that an older version did not understand.
fn refused(told: &Told<'_>, seconds: i64) -> Arrival {
    refused_by_store(told.received(seconds))
}

async fn quarantined(store: &dyn Store) -> Vec<Quarantined> {
    store.quarantine(&ListQuarantine::default()).await.unwrap().entries
}

async fn the_newest_comes_first_and_pages_are_stable(database: Database) {
    let store = database.open().await;
    // Each time three, so that the digest has to break ties.
    let batch = (0..20).map(|n| arrival(format!("ping {n}").as_bytes(), n / 3)).collect();
    keep(&*store, batch).await;
    let mut question = ListQuarantine { size: PageSize::new(3).unwrap(), after: None };
    let mut shown = Vec::new();
    loop {
        let page = store.quarantine(&question).await.unwrap();
        shown.extend(page.entries.iter().map(|entry| (entry.received_at, entry.verified.digest())));
        // Another copy moves nothing; a new one comes at the top.
        let more = (0..20).map(|n| arrival(format!("ping {n}").as_bytes(), 100));
        keep(&*store, more.chain([arrival(format!("new {}", shown.len()).as_bytes(), 200)]).collect()).await;
        match page.next {
            Some(next) => question.after = Some(Cursor::decode(&next).unwrap()),
            None => break,
        }
    }
    assert_eq!(shown.len(), 20);
    assert!(shown.windows(2).all(|pair| pair[0] > pair[1]));
}

async fn a_reason_is_kept_with_it(database: Database) {
    let store = database.open().await;
    let body = Told { status: "lost", ..DELIVERED }.body();
    assert_eq!(keep(&*store, vec![arrival(body.as_bytes(), 3)]).await, [Outcome::Quarantined]);
    let [entry] = &quarantined(&*store).await[..] else { panic!("one entry") };
    assert_eq!(entry.reason, "unknown_status");
    assert_eq!(entry.detail, "`status` is none of sent, delivered, failed");
    assert_eq!((entry.received_at, entry.times), (after(3), 1));
    assert!(store.delivery(&id("a")).await.unwrap().is_none());
}

async fn released_events_take_their_counts_along(database: Database) {
    let store = database.open().await;
    let other = Told { id: "b", ..DELIVERED };
    keep(
        &*store,
        vec![refused(&DELIVERED, 1), refused(&DELIVERED, 2), refused(&other, 3), arrival(b"ping", 4)],
    )
    .await;
    keep(&*store, vec![DELIVERED.received(7)]).await;
    let understood = vec![DELIVERED.received(1), other.received(3)];
    store.release(understood.clone()).await.unwrap();
    for _ in 0..2 {
        let events = store.events(&id("a")).await.unwrap();
        assert_eq!((events[0].times, events[0].received_at), (3, after(1)));
        assert_eq!(delivery(&*store, "a").await.received_at, after(1));
        assert_eq!(store.events(&id("b")).await.unwrap()[0].times, 1);
        assert_eq!(quarantined(&*store).await.len(), 1);
        // Once more changes nothing.
        store.release(understood.clone()).await.unwrap();
    }
}

async fn what_is_no_longer_there_is_left_alone(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![arrival(b"ping", 1)]).await;
    store.release(vec![DELIVERED.received(1), arrival(b"ping", 1)]).await.unwrap();
    assert!(store.delivery(&id("a")).await.unwrap().is_none());
    assert_eq!(quarantined(&*store).await[0].times, 1);
    store.release(vec![]).await.unwrap();
    assert_eq!(keep(&*store, vec![DELIVERED.received(1)]).await, [Outcome::New]);
}

async fn the_same_bytes_may_be_in_quarantine_and_out_of_it(database: Database) {
    let store = database.open().await;
    let batch = vec![refused(&DELIVERED, 1), DELIVERED.received(2)];
    assert_eq!(keep(&*store, batch).await, [Outcome::Quarantined, Outcome::New]);
    store.release(vec![DELIVERED.received(1), DELIVERED.received(1)]).await.unwrap();
    assert_eq!(store.events(&id("a")).await.unwrap()[0].times, 2);
}
