//! A store is restored from a dump, a copy or a standby: every event is still answered 200 and none is quarantined, and a
//! reader of the stream who comes back is told every change since, or that it has to start again. It never skips one.

use std::{collections::BTreeSet, fs, net::SocketAddr};

use nexo_receiver::store::open::{Location, open};

use tokio::time::timeout;

use super::{judge, rounds, seed};
use crate::support::{
    cluster::{Cluster, Death, location},
    database::Database,
    load::Load,
    provider::event,
    receiver::{Receiver, options},
    relay::Relay,
    stream::Stream,
    wire::PATIENCE,
};

const EVENTS: usize = 60;

/// Ids that are told apart by when they were sent.
fn ids(when: &str) -> Vec<String> {
    (0..EVENTS).map(|n| format!("{when}-{n}")).collect()
}

/// Sends an event for each id, one after the other, so that each is a commit of its own.
async fn post(receiver: &Receiver, ids: &[String]) {
    let mut sender = receiver.sender().await;
    for id in ids {
        assert_eq!(sender.post(&event(id, "delivered")).await.short(), (200, "ok"));
    }
}

/// Reads so many deliveries; the place after each, and its id.
async fn read(stream: &mut Stream, count: usize) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let (place, delivery) = stream.delivery().await.expect("the stream goes on");
        seen.push((place, delivery["id"].as_str().unwrap().to_owned()));
    }
    seen
}

/// Where a reader begins who follows from now on.
async fn begin(address: SocketAddr) -> String {
    Stream::open(address, "", None).await.expect("a stream").next().await.unwrap().id
}

/// Comes back to places given by an earlier life of the store, after which these ids were sent: at each it is told all of
/// them, or 410.
async fn told_or_refused(address: SocketAddr, places: &[String], ids: &[String]) {
    for place in places {
        match Stream::open(address, "", Some(place)).await {
            Err(refused) => assert_eq!(refused.refusal().1, "position_expired"),
            Ok(mut stream) => {
                let mut missing: BTreeSet<_> = ids.iter().cloned().collect();
                let told = async {
                    while !missing.is_empty() {
                        let (_, delivery) = stream.delivery().await.expect("the stream goes on");
                        missing.remove(delivery["id"].as_str().unwrap());
                    }
                };
                let told = timeout(PATIENCE, told).await;
                assert!(told.is_ok(), "after {place} these are skipped: {missing:?}");
            }
        }
    }
}

async fn quarantined(receiver: &Receiver) -> usize {
    receiver.client().get("/api/v1/quarantine").await.json()["quarantine"].as_array().unwrap().len()
}

/// A dump of a cluster whose transactions have high ids, restored into another one whose ids lie so far below.
async fn a_dump_is_restored(spent_before: u32, spent_after: u32) {
    let former = Cluster::start();
    former.spend(spent_before).await;
    let receiver = Receiver::start_at(options(former.location())).await;
    let mut places = vec![begin(receiver.address()).await];
    let mut stream = Stream::open(receiver.address(), "", Some(&places[0])).await.unwrap();
    post(&receiver, &ids("dumped")).await;
    let dumped = read(&mut stream, EVENTS).await;
    let dump = former.dump();
    // The reader is ahead of the dump.
    post(&receiver, &ids("lost")).await;
    let lost = read(&mut stream, EVENTS).await;
    places.extend(dumped.into_iter().chain(lost).step_by(10).map(|(place, _)| place));
    drop(stream);
    receiver.stop().await;

    let cluster = Cluster::start();
    cluster.spend(spent_after).await;
    cluster.restore(&dump);
    let receiver = Receiver::start_at(options(cluster.location())).await;
    let now = begin(receiver.address()).await;
    // In parts, so that the ids that were given out before are met on the way whatever a restore takes of them.
    let new = ids("restored");
    for (n, part) in new.chunks(10).enumerate() {
        post(&receiver, part).await;
        told_or_refused(receiver.address(), &places, &new[..10 * (n + 1)]).await;
        cluster.spend(50).await;
    }
    let mut stream = Stream::open(receiver.address(), "", Some(&now)).await.unwrap();
    let seen: Vec<_> = read(&mut stream, EVENTS).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(seen, new, "who began after it is told each once, in order");
    assert_eq!(quarantined(&receiver).await, 0);
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_in_a_cluster_with_lower_ids_harms_no_event_and_no_reader() {
    a_dump_is_restored(300, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_in_a_cluster_with_higher_ids_harms_no_event_and_no_reader() {
    a_dump_is_restored(0, 5_000).await;
}

/// The notes of every transaction that the new cluster begins next are there already.
#[tokio::test(flavor = "multi_thread")]
async fn every_id_that_was_noted_is_met_again() {
    const NOTED: &str = "INSERT INTO changes (position, ids, noted_at) SELECT position, '{}', now()
        FROM generate_series((SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint), 10000) AS position";
    let former = Cluster::start();
    let receiver = Receiver::start_at(options(former.location())).await;
    post(&receiver, &ids("dumped")).await;
    receiver.stop().await;
    former.execute(NOTED).await;
    let cluster = Cluster::start();
    cluster.restore(&former.dump());
    let receiver = Receiver::start_at(options(cluster.location())).await;
    let place = begin(receiver.address()).await;
    post(&receiver, &ids("restored")).await;
    assert_eq!(quarantined(&receiver).await, 0);
    told_or_refused(receiver.address(), &[place], &ids("restored")).await;
    receiver.stop().await;
}

/// An older copy of the files is put in place of newer ones, as a volume's snapshot is; the ids go on from there, and pass
/// those that readers have been given.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_postgres_skips_no_change() {
    let cluster = Cluster::start();
    let receiver = Receiver::start_at(options(cluster.location())).await;
    post(&receiver, &ids("copied")).await;
    receiver.stop().await;
    let copy = cluster.copy();
    let receiver = Receiver::start_at(options(cluster.location())).await;
    let first = begin(receiver.address()).await;
    post(&receiver, &ids("lost")).await;
    let mut stream = Stream::open(receiver.address(), "", Some(&first)).await.unwrap();
    let mut places: Vec<_> = read(&mut stream, EVENTS).await.into_iter().map(|(place, _)| place).collect();
    drop(stream);
    receiver.stop().await;
    places.insert(0, first);
    cluster.put_back(&copy);
    let receiver = Receiver::start_at(options(cluster.location())).await;
    post(&receiver, &ids("restored")).await;
    cluster.spend(200).await;
    post(&receiver, &ids("later")).await;
    let new = [ids("restored"), ids("later")].concat();
    told_or_refused(receiver.address(), &places, &new).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_file_skips_no_change() {
    let database = Database::on_sqlite().await;
    let receiver = Receiver::start(&database).await;
    post(&receiver, &ids("copied")).await;
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("copy.db");
    let Location::Sqlite(sqlite) = database.location() else { unreachable!() };
    nexo_receiver::store::open::backup(&sqlite, &copy).await.unwrap();
    let first = begin(receiver.address()).await;
    post(&receiver, &ids("lost")).await;
    let mut stream = Stream::open(receiver.address(), "", Some(&first)).await.unwrap();
    let mut places: Vec<_> = read(&mut stream, EVENTS).await.into_iter().map(|(place, _)| place).collect();
    drop(stream);
    receiver.stop().await;
    places.insert(0, first);
    for rest in ["db-wal", "db-shm"] {
        let _ = fs::remove_file(database.sqlite_file().with_extension(rest));
    }
    fs::copy(copy, database.sqlite_file()).unwrap();
    let receiver = Receiver::start(&database).await;
    // At once, and again when as many commits have passed as the newer store had.
    told_or_refused(receiver.address(), &places[1..], &[]).await;
    post(&receiver, &ids("restored")).await;
    post(&receiver, &ids("later")).await;
    let new = [ids("restored"), ids("later")].concat();
    told_or_refused(receiver.address(), &places, &new).await;
    receiver.stop().await;
}

/// Follows through whatever happens, coming back to its place, until it is told to have read all; the ids it has seen.
async fn follow(
    address: SocketAddr,
    mut place: String,
    mut done: impl FnMut(&[String]) -> bool,
) -> Vec<String> {
    let mut seen = Vec::new();
    while !done(&seen) {
        match Stream::open(address, "", Some(&place)).await {
            Ok(mut stream) => {
                while !done(&seen) {
                    let Some(next) = stream.next().await else { break };
                    place = next.id;
                    seen.extend(next.delivery.map(|it| it["id"].as_str().unwrap().to_owned()));
                }
            }
            // The database is away.
            Err(refused) => assert_eq!(refused.status, 503, "{}", refused.text()),
        }
    }
    seen
}

/// Its transactions' ids go on where those of the primary ended, or where it crashed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_through_crashes_and_failovers_and_misses_nothing() {
    let rounds = rounds(2);
    let mut primary = Cluster::start();
    let relay = Relay::start(primary.port()).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", relay.port());
    let receiver = Receiver::start_at(options(location(&url))).await;
    let address = receiver.address();
    let place = begin(address).await;
    let load = Load::start(&[address], 8, seed());
    // How many deliveries there are, once that is known.
    let (total, known) = tokio::sync::watch::channel(None);
    let reader = tokio::spawn(follow(address, place, move |seen| {
        known.borrow().is_some_and(|total| seen.iter().collect::<BTreeSet<_>>().len() == total)
    }));
    for _ in 0..rounds {
        load.ledger.until_more(100).await;
        primary.crash(Death::Immediate);
        load.ledger.until_more(100).await;
        let standby = primary.standby().await;
        primary.wait_for_standbys().await;
        load.ledger.until_more(100).await;
        primary.kill();
        load.ledger.until_more_refused(20).await;
        standby.promote().await;
        relay.lead_to(standby.port());
        load.ledger.until_more(100).await;
        primary = standby;
    }
    let ledger = load.stop().await;
    let store = open(&primary.location()).await.unwrap();
    judge("a reader through failovers", &ledger, &*store).await;
    let deliveries = primary.number("SELECT count(*) FROM deliveries").await;
    total.send_replace(Some(usize::try_from(deliveries).unwrap()));
    reader.await.unwrap();
    receiver.stop().await;
}
