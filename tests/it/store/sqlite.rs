//! What only a file can be: full, damaged, in the wrong place, copied.

use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use nexo_receiver::{
    batch::Outcome,
    store::{
        Store, StoreError,
        open::Location,
        query::ListQuarantine,
        sqlite::{Options, Sqlite, backup},
    },
};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{DELIVERED, FAILED, Told, arrival, delivery, folded, id, keep};
use crate::support::{database::Database, evidence::EveryEvent as _};

fn options(database: &Database) -> Options {
    let Location::Sqlite(options) = database.location() else { panic!("this is no SQLite") };
    options
}

#[tokio::test]
async fn the_bundled_version_resets_its_log_safely() {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let row = sqlx::query("SELECT sqlite_version()").fetch_one(&mut connection).await.unwrap();
    let version: Vec<u32> = row.get::<String, _>(0).split('.').map(|part| part.parse().unwrap()).collect();
    assert!(version >= vec![3, 51, 3], "{version:?} can corrupt a log at its reset");
}

#[tokio::test]
async fn folder_and_file_are_for_their_owner_alone() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("new/data");
    let options = Options { folder: folder.clone(), ..options(&Database::empty_on_sqlite()) };
    let store = Sqlite::open(&options).await.unwrap();
    store.migrate().await.unwrap();
    keep(&store, vec![DELIVERED.received(0)]).await;
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.clone()), 0o700);
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(file.clone()), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_is_no_store_is_named() {
    let outer = tempfile::tempdir().unwrap();
    let file = outer.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let options = Options { folder: file.clone(), ..options(&Database::empty_on_sqlite()) };
    match Sqlite::open(&options).await.map(drop) {
        Err(StoreError::Unavailable(why)) => assert!(why.contains(file.to_str().unwrap()), "{why}"),
        other => panic!("{other:?}"),
    }
    let database = Database::empty_on_sqlite();
    std::fs::write(database.sqlite_file(), "no database ".repeat(1000)).unwrap();
    let opened = Sqlite::open(&self::options(&database)).await.map(drop);
    assert!(matches!(opened, Err(StoreError::Corrupt(_))), "{opened:?}");
}

#[tokio::test]
async fn another_process_that_writes_is_waited_for_and_not_for_ever() {
    let database = Database::on_sqlite().await;
    let patience = Duration::from_millis(300);
    let store = Sqlite::open(&Options { commit_timeout: patience, ..options(&database) }).await.unwrap();
    let mut other = SqliteConnectOptions::new().filename(database.sqlite_file()).connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE; DELETE FROM deliveries").execute(&mut other).await.unwrap();
    let begun = Instant::now();
    let refused = store.commit(&folded(vec![DELIVERED.received(0)])).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(store.delivery(&id("a")).await.unwrap().is_none(), "questions do not wait");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(keep(&store, vec![DELIVERED.received(0)]).await, [Outcome::New]);
}

#[tokio::test]
async fn a_question_has_a_deadline() {
    let database = Database::on_sqlite().await;
    let store = Sqlite::open(&Options { read_timeout: Duration::from_millis(200), ..options(&database) })
        .await
        .unwrap();
    // A view instead of the table, whose rows never end.
    database
        .execute(
            "ALTER TABLE deliveries RENAME TO elsewhere;
             CREATE VIEW deliveries AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
             SELECT 'x' AS id, phone, carrier, status, cost, error_code, created_at, completed_at, received_at,
                 listed_at, source, standing FROM n LEFT JOIN elsewhere ON FALSE WHERE i < 0",
        )
        .await;
    for _ in 0..8 {
        let begun = Instant::now();
        let refused = store.delivery(&id("x")).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    store.quarantine(&ListQuarantine::default()).await.unwrap();
}

#[tokio::test]
async fn the_log_is_copied_into_the_file_and_begun_anew() {
    let database = Database::on_sqlite().await;
    let store = database.open().await;
    let padding = " ".repeat(20_000);
    for round in 0..60 {
        let body = |n| Told { id: &format!("{round}-{n}"), ..FAILED }.body() + &padding;
        keep(&*store, (0..100).map(|n| arrival(body(n).as_bytes(), 0)).collect()).await;
    }
    let length = |suffix: &str| {
        let mut name = database.sqlite_file().into_os_string();
        name.push(suffix);
        std::fs::metadata(name).unwrap().len()
    };
    assert!(length("") > 100_000_000, "{}", length(""));
    assert!(length("-wal") < 128 << 20, "{}", length("-wal"));
}

#[tokio::test]
async fn a_backup_is_a_store_of_its_own() {
    let database = Database::on_sqlite().await;
    let store = Sqlite::open(&options(&database)).await.unwrap();
    keep(&store, vec![DELIVERED.received(0), arrival(b"ping", 0)]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nexo-receiver.db");
    backup(&options(&database), &file).await.unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = backup(&options(&database), &file).await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    keep(&store, vec![FAILED.received(0)]).await;

    let copy = Sqlite::open(&Options { folder: folder.path().into(), ..options(&database) }).await.unwrap();
    copy.ready().await.unwrap();
    assert_eq!(delivery(&copy, "a").await.status.as_str(), "delivered");
    assert_eq!(copy.events(&id("a")).await.unwrap().len(), 1);
    assert_eq!(keep(&copy, vec![FAILED.received(0)]).await, [Outcome::New]);
}
