//! Pages of changes and their bounds, and followers that are behind: nothing is skipped, whatever is deleted meanwhile.

use std::{sync::Arc, time::Duration};

use nexo_receiver::{
    clock::Timestamp,
    feed::{Ended, Feed, Follower},
    metrics::Metrics,
    news::News,
    store::{
        Store,
        changes::{ChangePage, PAGE_BYTES, PAGE_CHANGES, Position},
        open::open,
    },
};
use tokio::time::timeout;

use super::{DELIVERED, Told, keep};
use crate::support::{
    cluster::{Cluster, location},
    database::{Database, on_each_store},
    until::until,
    wire::PATIENCE,
};

on_each_store! {
    a_page_ends_at_its_bounds_and_the_next_goes_on_there,
    a_page_of_long_texts_ends_early,
    what_is_no_longer_kept_is_never_skipped,
    a_stop_is_noticed_by_one_that_is_behind,
    an_epoch_ends_with_each_start_and_its_places_stay_valid,
}

const COMMITS: usize = 6;
const EACH: usize = 60;

/// Commits of several deliveries each.
async fn fill(store: &dyn Store) {
    for commit in 0..COMMITS {
        let ids: Vec<_> = (0..EACH).map(|n| format!("{commit}-{n:03}")).collect();
        let told = |id: &String| Told { id, ..DELIVERED }.received(0);
        keep(store, ids.iter().map(told).collect()).await;
    }
}

async fn page(store: &dyn Store, after: Position) -> ChangePage {
    store.changes(after).await.unwrap().expect("it is kept")
}

/// On Postgres another test's transaction may be older, so that the first pages are empty.
async fn pages(store: &dyn Store, mut at: Position) -> Vec<ChangePage> {
    let mut pages = Vec::new();
    until(async || {
        let next = page(store, at).await;
        at = next.end;
        if !next.changes.is_empty() {
            pages.push(next);
        }
        pages.iter().map(|page| page.changes.len()).sum::<usize>() == COMMITS * EACH
    })
    .await;
    pages
}

async fn a_page_ends_at_its_bounds_and_the_next_goes_on_there(database: Database) {
    let store = database.open().await;
    let begin = store.latest_change().await.unwrap();
    fill(&*store).await;
    let pages = pages(&*store, begin).await;
    let sizes: Vec<_> = pages.iter().map(|page| page.changes.len()).collect();
    assert!(sizes.iter().all(|size| *size <= PAGE_CHANGES), "{sizes:?}");
    assert!(sizes.contains(&PAGE_CHANGES), "{sizes:?}");
    let changes: Vec<_> = pages.iter().flat_map(|page| &page.changes).collect();
    assert!(changes.is_sorted_by(|one, next| next.position.is_after(&one.position)));
    let mut ids: Vec<_> = changes.iter().map(|change| change.delivery.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), COMMITS * EACH);
}

/// Earlier releases kept texts as long as a webhook's body.
async fn a_page_of_long_texts_ends_early(database: Database) {
    let store = database.open().await;
    let begin = store.latest_change().await.unwrap();
    fill(&*store).await;
    let carrier = "c".repeat(PAGE_BYTES / 4);
    database.execute(&format!("UPDATE deliveries SET carrier = '{carrier}'")).await;
    let sizes: Vec<_> = pages(&*store, begin).await.iter().map(|page| page.changes.len()).collect();
    assert!(sizes.iter().all(|size| *size <= 4), "{sizes:?}");
}

/// One who is behind, and was told the first changes.
async fn behind(store: &Arc<dyn Store>) -> (Arc<Feed>, Follower) {
    let begin = store.latest_change().await.unwrap();
    fill(&**store).await;
    pages(&**store, begin).await;
    let feed = Feed::new(Arc::clone(store), News::new(), Arc::new(Metrics::new()));
    let mut follower = feed.follow(Some(begin)).await.unwrap().expect("it is kept");
    for _ in 0..10 {
        follower.next().await.unwrap();
    }
    (feed, follower)
}

async fn what_is_no_longer_kept_is_never_skipped(database: Database) {
    let store = database.open().await;
    let (_feed, mut follower) = behind(&store).await;
    let later = Timestamp::from_micros(Timestamp::now().micros() + 25 * 3_600_000_000).unwrap();
    assert!(store.forget(later).await.unwrap() > 0);
    let mut told = 10;
    let ended = loop {
        match timeout(PATIENCE, follower.next()).await.expect("it is told") {
            Ok(_) => told += 1,
            Err(ended) => break ended,
        }
    };
    assert!(matches!(ended, Ended::NotKept), "{ended}");
    assert!(told <= PAGE_CHANGES, "{told}");
}

async fn a_stop_is_noticed_by_one_that_is_behind(database: Database) {
    let store = database.open().await;
    let (feed, mut follower) = behind(&store).await;
    feed.stop();
    let ended = timeout(PATIENCE, follower.next()).await.expect("it is told").map(|change| change.position);
    assert!(matches!(ended, Err(Ended::Stopped)), "{ended:?}");
}

async fn an_epoch_ends_with_each_start_and_its_places_stay_valid(database: Database) {
    let mut places = Vec::new();
    for n in 0..3 {
        let store = database.open().await;
        places.push(store.latest_change().await.unwrap());
        keep(&*store, vec![Told { id: &format!("e{n}"), ..DELIVERED }.received(0)]).await;
        store.close().await;
    }
    let store = database.open().await;
    for (n, place) in places.iter().enumerate() {
        let mut told = Vec::new();
        let mut at = *place;
        until(async || {
            let next = page(&*store, at).await;
            at = next.end;
            told.extend(next.changes.into_iter().map(|it| it.delivery.id.as_str().to_owned()));
            told.last().is_some_and(|id| id == "e2")
        })
        .await;
        // A place may lie a little earlier, while another transaction of the server is under way.
        assert!(told.len() >= 3 - n, "{told:?}");
        assert_eq!(told, ["e0", "e1", "e2"][3 - told.len()..]);
    }
    let unknown = places[2].in_epoch(places[2].epoch ^ 1);
    for beyond in [unknown, Position::after(0, 0), Position::after(places[2].epoch, i64::MAX)] {
        assert!(store.changes(beyond).await.unwrap().is_none(), "{beyond}");
    }
}

/// Seen with an ordinary role's eyes.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_another_database_does_not_hold_up_changes_and_one_of_this_is_named() {
    let cluster = Cluster::start();
    cluster.execute("CREATE ROLE receiver LOGIN; CREATE DATABASE receiver OWNER receiver").await;
    let url = cluster.url("receiver").replace("postgres@", "receiver@");
    let store = open(&location(&url)).await.unwrap();
    store.migrate().await.unwrap();
    let begin = store.latest_change().await.unwrap();
    let mut other = cluster.connect("postgres").await;
    other.execute("BEGIN; SELECT pg_current_xact_id()").await;
    keep(&*store, vec![DELIVERED.received(0)]).await;
    let mut told = begin;
    until(async || {
        told = page(&*store, told).await.end;
        told.is_after(&begin)
    })
    .await;
    assert_eq!(store.holder_of_changes().await.unwrap(), None);

    let mut ours = cluster.connect("receiver").await;
    ours.execute("SET application_name = 'a forgotten psql'; BEGIN; SELECT pg_current_xact_id()").await;
    keep(&*store, vec![Told { id: "held", ..DELIVERED }.received(0)]).await;
    until(async || page(&*store, told).await.held_for >= Duration::from_secs(1)).await;
    assert!(page(&*store, told).await.changes.is_empty());
    let holder = store.holder_of_changes().await.unwrap().expect("one holds it up");
    assert!(holder.contains("'a forgotten psql'"), "{holder}");
    ours.close().await;
    until(async || !page(&*store, told).await.changes.is_empty()).await;
    other.close().await;
}
