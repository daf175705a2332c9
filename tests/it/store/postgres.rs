//! What only a Postgres can be: a standby, carelessly set, away.

use std::time::{Duration, Instant};

use nexo_receiver::{
    batch::Outcome,
    phone::Phone,
    secret::Secret,
    store::{
        Store, StoreError,
        polls::Turn,
        postgres::{Options, Postgres},
        sends::{Begun, Claim, Fingerprint, SendKey, SendOutcome, SendRecord},
    },
};
use sqlx::{Connection, PgConnection, Row};

use super::{DELIVERED, Told, folded, id, keep};
use crate::support::{database::Database, pgbouncer::Pgbouncer};

fn with(options: &Options, parameter: &str) -> Options {
    let url = options.url.reveal();
    let separator = if url.contains('?') { '&' } else { '?' };
    Options { url: Secret::new(format!("{url}{separator}{parameter}")), ..options.clone() }
}

fn unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn asynchronous_commits_are_made_synchronous() {
    let database = Database::on_postgres().await;
    // The trigger writes down how each commit is set.
    database
        .execute(
            "CREATE TABLE seen (setting text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
             CREATE TRIGGER see AFTER INSERT ON deliveries EXECUTE FUNCTION see();",
        )
        .await;
    let careless = with(&database.postgres_options(), "options=-c%20synchronous_commit%3Doff");
    keep(&Postgres::open(&careless).await.unwrap(), vec![DELIVERED.received(0)]).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM seen WHERE setting = 'on'").await, 1);
    assert_eq!(database.number("SELECT COUNT(*) FROM seen").await, 1);

    let why = unavailable(Postgres::open(&Options { pgbouncer: true, ..careless }).await.map(drop));
    assert!(why.contains("ALTER ROLE"), "{why}");
}

#[tokio::test]
async fn a_database_that_becomes_read_only_is_unavailable_until_it_is_not() {
    let database = Database::on_postgres().await;
    let store = database.open().await;
    let name = database.name();
    for (setting, works) in [("on", false), ("off", true)] {
        database
            .execute_on_server(&format!(
                "ALTER DATABASE {name} SET default_transaction_read_only = {setting}"
            ))
            .await;
        // As after a failover: the old connections are gone.
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        database.execute_on_server(&all).await;
        let batch = folded(vec![DELIVERED.received(0)]);
        let deadline = Instant::now() + Duration::from_secs(10);
        // The first may meet the connection that is gone.
        while works && store.commit(&batch).await.is_err() {
            assert!(Instant::now() < deadline, "it does not come back");
        }
        if !works {
            unavailable(store.commit(&batch).await);
            let why = unavailable(store.commit(&batch).await);
            assert!(why.contains("read-only"), "{why}");
            let why = unavailable(Postgres::open(&database.postgres_options()).await.map(drop));
            assert!(why.contains(&name) && why.contains("read-only"), "{why}");
        }
    }
    assert!(store.delivery(&id("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_connection_that_has_become_read_only_is_dropped_and_the_commit_repeated() {
    let database = Database::on_postgres().await;
    let store = database.open().await;
    keep(&*store, vec![DELIVERED.received(0)]).await;
    // 25006 from within a commit, once.
    database
        .execute(
            "CREATE SEQUENCE tries; CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('tries') = 1 THEN RAISE SQLSTATE '25006'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER fail AFTER INSERT ON deliveries EXECUTE FUNCTION fail();",
        )
        .await;
    let one = |name| folded(vec![Told { id: name, ..DELIVERED }.received(0)]);
    assert_eq!(store.commit(&one("b")).await.unwrap(), [Ok(Outcome::New)]);
    assert_eq!(database.number("SELECT last_value FROM tries").await, 2);
    // Over a new connection it is the database's own answer.
    database
        .execute(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('tries'); RAISE SQLSTATE '25006'; END $$",
        )
        .await;
    let why = unavailable(store.commit(&one("c")).await);
    assert!(why.contains("25006"), "{why}");
    // Sequences keep what was rolled back.
    assert_eq!(database.number("SELECT last_value FROM tries").await, 4);
}

#[tokio::test]
async fn a_conflict_is_tried_again() {
    let database = Database::on_postgres().await;
    let store = database.open().await;
    database
        .execute(
            "CREATE SEQUENCE tries; CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('tries') < 4 THEN RAISE SQLSTATE '40001'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER fail AFTER INSERT ON deliveries EXECUTE FUNCTION fail();",
        )
        .await;
    assert_eq!(keep(&*store, vec![DELIVERED.received(0)]).await, [Outcome::New]);
    database.execute("ALTER SEQUENCE tries RESTART MAXVALUE 3 CYCLE").await;
    match store.commit(&folded(vec![DELIVERED.received(0)])).await {
        Err(StoreError::Contended(why)) => assert!(why.contains("40001"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plan_that_a_migration_has_overtaken_is_made_anew() {
    let database = Database::on_postgres().await;
    let store = database.open().await;
    keep(&*store, vec![DELIVERED.received(0)]).await;
    for kind in ["varchar(300)", "text"] {
        assert!(store.delivery(&id("a")).await.unwrap().is_some());
        database.execute(&format!("ALTER TABLE deliveries ALTER COLUMN carrier TYPE {kind}")).await;
    }
    assert_eq!(store.delivery(&id("a")).await.unwrap().unwrap().carrier.as_deref(), Some(DELIVERED.carrier));
}

#[tokio::test]
async fn a_commit_and_a_question_end_in_time_when_a_table_is_locked() {
    let database = Database::on_postgres().await;
    let patience = Duration::from_millis(300);
    let options = Options { commit_timeout: patience, read_timeout: patience, ..database.postgres_options() };
    let store = Postgres::open(&options).await.unwrap();
    let mut other = PgConnection::connect(options.url.reveal()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE deliveries").execute(&mut other).await.unwrap();
    let begun = Instant::now();
    unavailable(store.commit(&folded(vec![DELIVERED.received(0)])).await);
    unavailable(store.delivery(&id("a")).await);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(keep(&store, vec![DELIVERED.received(0)]).await, [Outcome::New]);
    // What timed out has left nothing running or waiting on the server.
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
        AND pid <> pg_backend_pid() AND state <> 'idle'";
    let deadline = Instant::now() + Duration::from_secs(10);
    while sqlx::query(waiting).fetch_one(&mut other).await.unwrap().get::<i64, _>(0) > 0 {
        assert!(Instant::now() < deadline, "something is still running");
    }
}

#[tokio::test]
async fn an_error_of_opening_names_the_database_and_not_the_password() {
    let options = Database::on_postgres().await.postgres_options();
    let soon = Duration::from_secs(5);
    for url in [
        "postgres://someone:hunter2@127.0.0.1:1/nowhere",
        "postgres://someone:hunter2@127.0.0.1:1/nowhere?sslmode=hunter2",
    ] {
        let options = Options { url: Secret::new(url.into()), connect_timeout: soon, ..options.clone() };
        let why = unavailable(Postgres::open(&options).await.map(drop));
        assert!(!why.contains(":hunter2"), "{why}");
        assert!(url.contains("sslmode") || why.contains("127.0.0.1:1/nowhere"), "{why}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_with_what_to_do() {
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let how = format!("ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0");
        let database = Database::made_on_postgres(&how).await;
        let why = unavailable(Postgres::open(&database.postgres_options()).await.map(drop));
        let named = format!("the database's encoding is {encoding} and must be UTF8");
        assert!(why.contains(&named) && why.contains("ENCODING 'UTF8' TEMPLATE template0"), "{why}");
    }
}

/// As a pooler may be set up: two clients share one of the server's connections.
#[tokio::test]
async fn a_forgotten_store_pgbouncer_is_named() {
    let database = Database::on_postgres().await;
    let through = |pgbouncer: &Pgbouncer| Options {
        url: Secret::new(pgbouncer.url(&database.name())),
        ..database.postgres_options()
    };
    let strict = Pgbouncer::start("").await;
    let why = unavailable(Postgres::open(&through(&strict)).await.map(drop));
    assert!(why.contains("STORE_PGBOUNCER=true"), "{why}");

    let lenient = "ignore_startup_parameters = extra_float_digits\ndefault_pool_size = 1";
    let lenient = Pgbouncer::start(lenient).await;
    let store = Postgres::open(&through(&lenient)).await.unwrap();
    let why = unavailable(Postgres::open(&through(&lenient)).await.map(drop));
    assert!(why.contains("already exists") && why.contains("STORE_PGBOUNCER=true"), "{why}");

    // The names are gone with the connection of the server's, of which the client knows nothing.
    keep(&store, vec![DELIVERED.received(0)]).await;
    let name = database.name();
    let all =
        format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'");
    database.execute_on_server(&all).await;
    let why = unavailable(store.commit(&folded(vec![DELIVERED.received(0)])).await);
    assert!(why.contains("does not exist") && why.contains("STORE_PGBOUNCER=true"), "{why}");
}

#[tokio::test]
async fn an_application_name_in_the_url_counts() {
    let database = Database::on_postgres().await;
    for (options, expected) in [
        (database.postgres_options(), "nexo-receiver"),
        (with(&database.postgres_options(), "application_name=otp"), "otp"),
    ] {
        let store = Postgres::open(&options).await.unwrap();
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND application_name = '{expected}'"
        );
        assert_ne!(database.number(&sql).await, 0, "{expected}");
        store.close().await;
    }
}

/// Everything that a store is asked for, by number; the last number is one less than is answered.
async fn ask(store: &Postgres, question: usize, round: usize) -> usize {
    let (name, hour) = (format!("{question}-{round}"), DELIVERED.received(0).received_at);
    let key = || SendKey::parse(&name).unwrap();
    let send = SendRecord {
        key: key(),
        claim: Claim::fresh(),
        fingerprint: Fingerprint::none(),
        phone: Phone::parse(DELIVERED.phone).unwrap(),
        began_at: hour,
    };
    let turn =
        Turn { after: Duration::ZERO, most: 1, pace: Duration::ZERO, lease: Duration::from_secs(3_600) };
    match question {
        0 => {
            let batch = folded(vec![Told { id: &name, status: "sent", ..DELIVERED }.received(0)]);
            assert_eq!(store.commit(&batch).await.unwrap(), [Ok(Outcome::New)]);
        }
        1 => store.release(vec![DELIVERED.received(0)]).await.unwrap(),
        2 => assert_eq!(store.begin_send(&send).await.unwrap(), Begun::Now),
        3 => store.end_send(&key(), send.claim, Some(&SendOutcome::Unclear)).await.unwrap(),
        4 => drop(store.take_turn(&turn).await.unwrap()),
        5 => drop(store.forget(hour).await.unwrap()),
        6 => store.announce("us").await.unwrap(),
        7 => drop(store.now().await.unwrap()),
        8 => drop(store.delivery(&id(&name)).await.unwrap()),
        9 => drop(store.settled_among(&[id(&name)]).await.unwrap()),
        10 => drop(store.changes(store.latest_change().await.unwrap()).await.unwrap()),
        11 => store.ready().await.unwrap(),
        12 => assert!(!store.call_send(&key(), send.claim).await.unwrap()),
        _ => unreachable!(),
    }
    13
}

#[tokio::test]
async fn nothing_that_is_asked_of_a_store_fails_because_connections_have_ended() {
    let database = Database::on_postgres().await;
    let store = Postgres::open(&database.postgres_options()).await.unwrap();
    let name = database.name();
    let all =
        format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'");
    let mut question = 0;
    while question < ask(&store, 7, 0).await {
        // Over more than one of its connections.
        tokio::join!(ask(&store, 7, 0), ask(&store, 8, 0), ask(&store, 9, 0), ask(&store, 6, 0));
        ask(&store, question, 0).await;
        database.execute_on_server(&all).await;
        ask(&store, question, 1).await;
        question += 1;
    }
}
