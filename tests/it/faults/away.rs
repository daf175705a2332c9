//! The database is away, takes nothing, or is another one: 503 in bounded time, never a 200 for what is not stored, and
//! 200 again by itself.

use std::time::{Duration, Instant};

use nexo_receiver::store::open::open;
use sqlx::Connection as _;

use super::{judge, rounds, seed};
use crate::support::{
    cluster::{Cluster, Death, location},
    database::Database,
    load::Load,
    provider::event,
    receiver::{Receiver, options},
    relay::Relay,
    until::until,
};

const CONNECTIONS: usize = 16;

/// From when a database can be written to until the next 200.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Makes trouble, waits until it is felt, ends it, and waits until it is over; how long that last took.
async fn through(load: &Load, begin: impl AsyncFnOnce(), end: impl AsyncFnOnce()) -> Duration {
    load.ledger.until_more(100).await;
    begin().await;
    load.ledger.until_more_refused(100).await;
    end().await;
    let ended = Instant::now();
    load.ledger.until_more(1).await;
    ended.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_webhooks_get_503_and_afterwards_200_again() {
    let cluster = Cluster::start();
    let location = cluster.location();
    let receiver = Receiver::start_at(options(location.clone())).await;
    let (rounds, seed) = (rounds(2), seed());
    let load = Load::start(&[receiver.address()], CONNECTIONS, seed);
    for _ in 0..rounds {
        let away = async || {
            cluster.stop();
            load.ledger.until_more_refused(100).await;
            let (status, why) = receiver.ready().await;
            assert_eq!(status, 503, "{why}");
            assert!(why.contains("unavailable"), "{why}");
            names_nothing(&why, &cluster);
        };
        through(&load, away, async || cluster.boot()).await;
    }
    // It says for a moment what it last found.
    until(async || receiver.ready().await.0 == 200).await;
    let ledger = load.stop().await;
    judge(&format!("{rounds} restarts"), &ledger, &*open(&location).await.unwrap()).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_synchronous_standby_takes_over() {
    let rounds = rounds(2);
    let mut primary = Cluster::start();
    let relay = Relay::start(primary.port()).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", relay.port());
    let receiver = Receiver::start_at(options(location(&url))).await;
    let load = Load::start(&[receiver.address()], CONNECTIONS, seed());
    let mut longest = Duration::ZERO;
    for _ in 0..rounds {
        let standby = primary.standby().await;
        primary.wait_for_standbys().await;
        let dies = async || primary.kill();
        let takes_over = async || {
            standby.promote().await;
            relay.lead_to(standby.port());
        };
        longest = longest.max(through(&load, dies, takes_over).await);
        primary = standby;
    }
    let ledger = load.stop().await;
    assert!(longest < BACK_WITHIN, "{longest:?}");
    let what = format!("{rounds} failovers, 200 again {longest:?} after each at the latest");
    judge(&what, &ledger, &*open(&primary.location()).await.unwrap()).await;
    receiver.stop().await;
}

/// Anybody may ask whether it is ready.
fn names_nothing(why: &str, cluster: &Cluster) {
    for name in ["127.0.0.1", "localhost", "postgres", &cluster.port().to_string()] {
        assert!(!why.contains(name), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_that_a_database_is_read_only_before_a_webhook_does() {
    let cluster = Cluster::start();
    cluster.execute("CREATE DATABASE receiver").await;
    let receiver = Receiver::start_at(options(location(&cluster.url("receiver")))).await;
    assert_eq!(receiver.ready().await.0, 200);
    let mut sender = receiver.sender().await;
    // For all sessions there are, and then only for those that begin later.
    for (begin, end) in [
        (
            "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()",
            "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()",
        ),
        (
            "ALTER DATABASE receiver SET default_transaction_read_only = on;
             SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'nexo-receiver'",
            "ALTER DATABASE receiver RESET default_transaction_read_only",
        ),
    ] {
        cluster.execute(begin).await;
        until(async || receiver.ready().await.0 == 503).await;
        until(async || receiver.ready().await.1.contains("read-only")).await;
        let (status, why) = receiver.ready().await;
        assert_eq!(status, 503, "{why}");
        names_nothing(&why, &cluster);
        assert_eq!(sender.post(&event("a", "delivered")).await.status, 503);
        cluster.execute(end).await;
        until(async || receiver.ready().await.0 == 200).await;
        until(async || sender.post(&event("a", "delivered")).await.status == 200).await;
    }
    receiver.stop().await;
}

/// The old primary lives on, and is a standby now: whoever stays connected to it is told that it is read-only.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_becomes_read_only_is_left() {
    let cluster = Cluster::start();
    let receiver = Receiver::start_at(options(cluster.location())).await;
    let load = Load::start(&[receiver.address()], CONNECTIONS, seed());
    let read_only = async |on: &str| {
        cluster.execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}")).await;
        cluster.execute("SELECT pg_reload_conf()").await;
    };
    let took = through(&load, async || read_only("on").await, async || {
        let end = "SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()";
        cluster.execute(end).await;
    })
    .await;
    assert!(took < BACK_WITHIN, "{took:?}");
    let ledger = load.stop().await;
    judge("a read-only database", &ledger, &*open(&cluster.location()).await.unwrap()).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_rights_are_503_until_they_are_granted_again() {
    let cluster = Cluster::start();
    cluster.execute("CREATE ROLE receiver LOGIN; CREATE DATABASE receiver OWNER receiver").await;
    let url = cluster.url("receiver").replace("postgres@", "receiver@");
    let receiver = Receiver::start_at(options(location(&url))).await;
    let load = Load::start(&[receiver.address()], CONNECTIONS, seed());
    // The owner has what others grant, and may take it from itself.
    let say = async |sql: &str| {
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    };
    let revoke = async || say("REVOKE INSERT ON deliveries FROM receiver").await;
    let grant = async || say("GRANT INSERT ON deliveries TO receiver").await;
    let revoke = async || {
        revoke().await;
        until(async || receiver.ready().await.0 == 503).await;
    };
    let took = through(&load, revoke, grant).await;
    assert!(took < BACK_WITHIN, "{took:?}");
    let ledger = load.stop().await;
    judge("revoked rights", &ledger, &*open(&location(&url)).await.unwrap()).await;
    receiver.stop().await;
}

/// A newer build is rolled out: it adds columns, tables and indexes while this one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn no_sender_sees_a_migration_by_a_newer_build() {
    for database in [Database::on_postgres().await, Database::on_sqlite().await] {
        let receiver = Receiver::start(&database).await;
        let load = Load::start(&[receiver.address()], CONNECTIONS, seed());
        for n in 0..rounds(5) {
            load.ledger.until_more(50).await;
            let default = if n % 2 == 0 { "" } else { "NOT NULL DEFAULT 'x'" };
            database.execute(&format!("ALTER TABLE deliveries ADD COLUMN later_{n} TEXT {default}")).await;
            database.execute(&format!("CREATE TABLE later_{n} (id TEXT PRIMARY KEY)")).await;
            database.execute(&format!("ALTER TABLE older_events ADD COLUMN later_{n} TEXT {default}")).await;
        }
        database.execute("INSERT INTO migrations (version, name) VALUES (9999, 'later')").await;
        load.ledger.until_more(100).await;
        assert_eq!(receiver.ready().await.0, 200);
        let ledger = load.stop().await;
        assert_eq!((ledger.refused(), ledger.unanswered()), (0, 0));
        judge("a migration under load", &ledger, &*database.open().await).await;
        receiver.stop().await;
    }
}

/// Every connection's server process may be ended by an administrator, all the time.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_ended_one_after_the_other_lose_nothing() {
    let cluster = Cluster::start();
    let receiver = Receiver::start_at(options(cluster.location())).await;
    let (rounds, seed) = (rounds(20), seed());
    let load = Load::start(&[receiver.address()], CONNECTIONS, seed);
    for round in 0..rounds {
        load.ledger.until_more(20).await;
        if round % 5 == 0 {
            cluster.crash(Death::OneServerProcess);
        } else {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'nexo-receiver'";
            // It may be recovering from the one before.
            until(async || cluster.try_execute(end).await.is_ok()).await;
        }
    }
    let ledger = load.stop().await;
    judge(
        &format!("{rounds} times all connections ended"),
        &ledger,
        &*open(&cluster.location()).await.unwrap(),
    )
    .await;
    receiver.stop().await;
}
