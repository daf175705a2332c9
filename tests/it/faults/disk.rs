//! The disk is full and has room again: 503 meanwhile, 200 within two seconds, nothing lost. And the power goes: what was
//! answered 200 is on the disk.

use std::{
    fs::{self, File},
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use nexo_receiver::store::open::{Location, open};

use super::{judge, rounds, seed};
use crate::support::{
    cluster::{Cluster, location},
    database::Database,
    load::Load,
    mount::Mount,
    process::{Process, Setup, free_port},
    provider::event,
    receiver::{Receiver, options},
    until::{any_moment, look_again, until},
};

const CONNECTIONS: usize = 16;
const ROOM: u64 = 24 << 20;

/// From when there is room until the next 200.
const BACK_WITHIN: Duration = Duration::from_secs(2);

async fn filled_and_freed(mount: &Mount, location: Location) {
    let rounds = rounds(2);
    let receiver = Receiver::start_at(options(location.clone())).await;
    let load = Load::start(&[receiver.address()], CONNECTIONS, seed());
    let mut longest = Duration::ZERO;
    for _ in 0..rounds {
        load.ledger.until_more(20).await;
        let filler = mount.fill();
        load.ledger.until_more_refused(200).await;
        assert!(filler.bytes() > 1 << 20, "the store itself has taken the room");
        drop(filler);
        let freed = Instant::now();
        load.ledger.until_more(1).await;
        longest = longest.max(freed.elapsed());
    }
    let ledger = load.stop().await;
    assert!(longest < BACK_WITHIN, "{longest:?}");
    let what = format!("{rounds} full disks, 200 again {longest:?} after each at the latest");
    judge(&what, &ledger, &*open(&location).await.unwrap()).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_on_a_full_disk_refuses_and_comes_back() {
    let mount = Mount::in_memory(ROOM);
    filled_and_freed(&mount, Database::sqlite_in(&mount.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_on_a_full_disk_refuses_and_comes_back() {
    let mount = Mount::in_memory(ROOM);
    let cluster = Cluster::start();
    let tables = mount.path().join("tables");
    std::fs::create_dir(&tables).unwrap();
    cluster.give(&tables);
    let make = format!(
        "CREATE TABLESPACE small LOCATION '{}'; CREATE DATABASE small TABLESPACE small",
        tables.display()
    );
    cluster.execute(&make).await;
    filled_and_freed(&mount, location(&cluster.url("small"))).await;
}

/// Once webhooks are refused it is not ready, and says so without any of these names.
async fn readiness_follows(receiver: &Receiver, names: &[&str], begin: impl AsyncFnOnce()) {
    let mut sender = receiver.sender().await;
    assert_eq!(sender.post(&event("first", "delivered")).await.short(), (200, "ok"));
    assert_eq!(receiver.ready().await.0, 200);
    begin().await;
    let mut posted = 0..;
    until(async || {
        let id = format!("{}-{}", posted.next().unwrap(), "x".repeat(200));
        sender.post(&event(&id, "delivered")).await.status == 503
    })
    .await;
    until(async || receiver.ready().await.0 == 503).await;
    // A small trial that finds room where a webhook finds none would say otherwise sooner or later.
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_secs(1) {
        let (status, why) = receiver.ready().await;
        assert_eq!(status, 503, "{why}");
        assert!(!names.iter().any(|name| why.contains(name)), "{why}");
        look_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_sqlites_full_disk() {
    let mount = Mount::in_memory(ROOM);
    let receiver = Receiver::start_at(options(Database::sqlite_in(&mount.path()))).await;
    let mut filler = None;
    let path = mount.path();
    let names = [path.to_str().unwrap(), "nexo-receiver.db"];
    let fill = async || filler = Some(mount.fill());
    readiness_follows(&receiver, &names, fill).await;
    drop(filler);
    until(async || receiver.ready().await.0 == 200).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_sqlites_disk_that_becomes_read_only() {
    let mount = Mount::on_loop(64 << 20);
    let location = Database::sqlite_in(&mount.path().join("data"));
    let receiver = Receiver::start_at(options(location)).await;
    let path = mount.path();
    let names = [path.to_str().unwrap(), "nexo-receiver.db"];
    readiness_follows(&receiver, &names, async || mount.abort()).await;
    drop(receiver);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_postgres_full_disk() {
    let mount = Mount::in_memory(ROOM);
    let cluster = Cluster::start();
    let tables = mount.path().join("tables");
    std::fs::create_dir(&tables).unwrap();
    cluster.give(&tables);
    let make = format!(
        "CREATE TABLESPACE small LOCATION '{}'; CREATE DATABASE small TABLESPACE small",
        tables.display()
    );
    cluster.execute(&make).await;
    let receiver = Receiver::start_at(options(location(&cluster.url("small")))).await;
    let mut filler = None;
    let port = cluster.port().to_string();
    let names = ["127.0.0.1", "small", "postgres", &port];
    readiness_follows(&receiver, &names, async || filler = Some(mount.fill())).await;
    drop(filler);
    until(async || receiver.ready().await.0 == 200).await;
    receiver.stop().await;
}

/// Cuts the power under load, again and again; `recover` brings the disk back, and what is on it.
async fn cut_again_and_again(
    rounds: usize,
    mount: &Mount,
    store: &[(&'static str, String)],
    recover: impl AsyncFn() -> Location,
) {
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    for round in 0..rounds {
        let process = Process::begin(store, Setup { port: free_port(), ..Setup::default() });
        let load = Load::start(&[process.address], CONNECTIONS, seed + round as u64);
        load.ledger.until_more(20).await;
        any_moment(&mut rng, Duration::from_millis(200)).await;
        // The file system of a machine that goes on may call a sync done that found its log gone: after a real cut no
        // machine is there to answer.
        load.ledger.hear_no_more();
        mount.cut();
        process.kill();
        let ledger = load.stop().await;
        let there = open(&recover().await).await.unwrap();
        judge(&format!("power cut {round}, seed {seed}"), &ledger, &*there).await;
        there.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sqlite_answered_200_is_there_after_the_power_went() {
    let mount = Mount::on_loop(256 << 20);
    let data = mount.path().join("data");
    let store = [("DATA_DIR", data.to_str().unwrap().to_owned())];
    cut_again_and_again(rounds(5), &mount, &store, async || {
        mount.detach();
        mount.attach();
        Database::sqlite_in(&data)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_answered_200_is_there_after_the_power_went() {
    let mount = Mount::on_loop(512 << 20);
    let data = mount.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let cluster = Cluster::start_in(Some(&data));
    let store = [("DATABASE_URL", cluster.url("postgres"))];
    cut_again_and_again(rounds(3), &mount, &store, async || {
        cluster.kill();
        until(async || mount.try_detach()).await;
        mount.attach();
        cluster.boot();
        cluster.location()
    })
    .await;
    drop(cluster);
}

/// Why answers that come after the cut don't count: no service has a part in this.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_system_itself_calls_a_sync_done_that_meets_its_end() {
    const RECORD: usize = 4096;
    let rounds = rounds(2);
    let mut rng = Rng::with_seed(seed());
    let mount = Mount::on_loop(256 << 20);
    let path = mount.path().join("records");
    let (mut before, mut after, mut lost) = (0, 0, 0);
    for _ in 0..rounds {
        let synced = Arc::new(AtomicUsize::new(0));
        let (mut file, count) = (File::create(&path).unwrap(), Arc::clone(&synced));
        let writer = std::thread::spawn(move || {
            while file.write_all(&[b'x'; RECORD]).and_then(|()| file.sync_all()).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        until(async || synced.load(Ordering::SeqCst) > 0).await;
        any_moment(&mut rng, Duration::from_millis(50)).await;
        let safe = synced.load(Ordering::SeqCst);
        mount.cut();
        writer.join().unwrap();
        until(async || mount.try_detach()).await;
        mount.attach();
        let there = fs::read(&path).unwrap().iter().take_while(|byte| **byte == b'x').count() / RECORD;
        let done = synced.load(Ordering::SeqCst);
        assert!(there >= safe, "{safe} were synced before the cut, and {there} are there");
        before += safe;
        after += done - safe;
        lost += done.saturating_sub(there);
    }
    println!(
        "{rounds} cuts: all {before} syncs before them are there; of {after} done while they came {lost} are not"
    );
}
