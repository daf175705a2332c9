//! Migrations, and what a schema must have before the service takes events.

use nexo_receiver::{
    clock::Timestamp,
    delivery::{DeliveryId, Status},
    phone::Phone,
    secret::Secret,
    store::{
        Store, StoreError,
        open::Location,
        postgres::Postgres,
        query::{
            Cursor, GroupBy, ListDeliveries, ListEvents, ListQuarantine, Question, RawEvent, RawId,
            StatsQuestion,
        },
        sqlite::Sqlite,
    },
};

use super::{DELIVERED, keep};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    a_migrated_database_is_ready,
    a_missing_migration_is_named,
    a_newer_migration_does_no_harm,
}

async fn a_migrated_database_is_ready(database: Database) {
    let store = database.open().await;
    store.ready().await.unwrap();
    assert_eq!(store.migrate().await.unwrap(), 0);
}

async fn a_missing_migration_is_named(database: Database) {
    let store = database.open().await;
    for sabotage in ["DELETE FROM migrations WHERE version = 1", "DROP TABLE migrations"] {
        database.execute(sabotage).await;
        match store.ready().await {
            Err(StoreError::Unavailable(why)) => assert!(why.contains("0001_custody"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

async fn a_newer_migration_does_no_harm(database: Database) {
    let store = database.open().await;
    keep(&*store, vec![DELIVERED.received(0)]).await;
    store.deliveries(&Default::default()).await.unwrap();
    database
        .execute(
            "INSERT INTO migrations (version, name) VALUES (9999, '9999_newer');
             ALTER TABLE deliveries ADD COLUMN newer TEXT; ALTER TABLE older_events ADD COLUMN newer TEXT;
             ALTER TABLE quarantine ADD COLUMN newer TEXT;",
        )
        .await;
    store.ready().await.unwrap();
    keep(&*store, vec![DELIVERED.received(1)]).await;
    assert_eq!(store.deliveries(&Default::default()).await.unwrap().entries.len(), 1);
    assert_eq!(store.migrate().await.unwrap(), 0);
}

/// Which no question on a large table may read from end to end.
const TABLES: [&str; 5] = ["deliveries", "older_events", "quarantine", "hours", "hour_counts"];

/// Every question, lists with every combination of filters, together with its plan.
async fn each_plan(explain: impl AsyncFn(Question<'_>) -> Vec<String>) -> Vec<(String, Vec<String>)> {
    let day = |text| Timestamp::parse(text).unwrap();
    let (from, to) = (day("2026-05-26T00:00:00Z"), day("2026-05-27T00:00:00Z"));
    let stats = StatsQuestion { from, to, by: Some(GroupBy::Hour) };
    let id = DeliveryId::parse("a".into()).unwrap();
    let quarantine = ListQuarantine::default();
    let events = ListEvents::of(id.clone());
    let key = RawEvent::new(&[7; 32]);
    let later_events = ListEvents { after: Some(Cursor { time: from, key }), ..events.clone() };
    let mut lists = Vec::new();
    for bits in 0..32u8 {
        let has = |bit: u8| bits & (1 << bit) != 0;
        lists.push(ListDeliveries {
            phone: has(0).then(|| Phone::parse("+84981234567").unwrap()),
            status: has(1).then_some(Status::Failed),
            carrier: has(2).then(|| "viettel".into()),
            error_code: has(3).then(|| "busy".into()),
            after: has(4).then(|| Cursor { time: from, key: RawId::new(b"a") }),
            ..Default::default()
        });
    }
    let others = [
        Question::Delivery(&id),
        Question::Events(&events),
        Question::Events(&later_events),
        Question::Quarantine(&quarantine),
        Question::Stats(&stats),
    ];
    let mut plans = Vec::new();
    for question in lists.iter().map(Question::Deliveries).chain(others) {
        plans.push((format!("{question:?}"), explain(question).await));
    }
    plans
}

/// Whether a later page's range of an index begins at the newest entry all the same, or later than in its month.
fn skips_nothing(question: &str, range: &str) -> bool {
    let bounds = ["listed_at <", "listed_at<", "(listed_at AT TIME ZONE 'UTC'::text)) <="];
    question.starts_with("Deliveries")
        && question.contains("after: Some")
        && !bounds.iter().any(|bound| range.contains(bound))
}

#[tokio::test]
async fn every_question_to_a_postgres_has_an_index() {
    let database = Database::on_postgres().await;
    let mut options = database.postgres_options();
    // An empty table is read from end to end unless that is made to look dear.
    options.url = Secret::new(format!("{}?options=-c%20enable_seqscan%3Doff", options.url.reveal()));
    let store = Postgres::open(&options).await.unwrap();
    for (question, plan) in each_plan(async |question| store.explain(question).await.unwrap()).await {
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan"), "{question}\n{plan}");
        assert!(plan.contains("Index"), "{question}\n{plan}");
        let ranges = plan.lines().filter(|line| line.contains("Index Cond"));
        assert!(ranges.filter(|range| skips_nothing(&question, range)).count() == 0, "{question}\n{plan}");
    }
}

#[tokio::test]
async fn every_question_to_a_file_has_an_index() {
    let database = Database::on_sqlite().await;
    // Having seen that few carriers have most of one status, SQLite would rather jump from carrier to carrier.
    database
        .execute(
            "WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < 2000)
            INSERT INTO deliveries SELECT n, '+8498' || n % 400, 'carrier' || n % 4,
                CASE WHEN n <= 20 THEN 'sent' WHEN n % 16 = 0 THEN 'failed' ELSE 'delivered' END, '0',
                CASE WHEN n % 16 = 0 THEN 'busy' END, n, n, n, n, 'webhook', x'', 'otp', x'', x'', 1 FROM series;
            ANALYZE;",
        )
        .await;
    let Location::Sqlite(options) = database.location() else { unreachable!() };
    let store = Sqlite::open(&options).await.unwrap();
    for (question, plan) in each_plan(async |question| store.explain(question).await.unwrap()).await {
        let scans = |line: &String| {
            TABLES.iter().any(|table| line == &format!("SCAN {table}"))
                || line.contains("AUTOMATIC")
                || line.contains("ANY(")
        };
        assert!(!plan.iter().any(scans), "{question}\n{plan:#?}");
        assert!(plan.iter().any(|line| line.contains("INDEX")), "{question}\n{plan:#?}");
        let mut ranges = plan.iter().filter(|line| line.contains("USING INDEX deliveries_by"));
        assert!(!ranges.any(|range| skips_nothing(&question, range)), "{question}\n{plan:#?}");
    }
}

async fn four_at_once(database: Database) {
    let mut replicas = Vec::new();
    for _ in 0..4 {
        replicas.push(database.open().await);
    }
    match replicas[0].ready().await {
        Err(StoreError::Unavailable(why)) => assert!(why.contains("not applied"), "{why}"),
        other => panic!("{other:?}"),
    }
    let (a, b, c, d) = tokio::join!(
        replicas[0].migrate(),
        replicas[1].migrate(),
        replicas[2].migrate(),
        replicas[3].migrate()
    );
    let applied: usize = [a, b, c, d].into_iter().map(Result::unwrap).sum();
    assert_eq!(applied, 3, "each was done once, while the others waited");
    for store in replicas {
        store.ready().await.unwrap();
        keep(&*store, vec![DELIVERED.received(0)]).await;
    }
}

#[tokio::test]
async fn four_migrate_an_empty_postgres_at_once() {
    four_at_once(Database::empty_on_postgres().await).await;
}

#[tokio::test]
async fn four_migrate_an_empty_postgres_at_once_without_a_lock() {
    let database = Database::empty_on_postgres().await;
    let mut options = database.postgres_options();
    options.migration_lock = false;
    let open = async || Postgres::open(&options).await.unwrap();
    let replicas = [open().await, open().await, open().await, open().await];
    let [a, b, c, d] = &replicas;
    let done = tokio::join!(a.migrate(), b.migrate(), c.migrate(), d.migrate());
    let applied: usize = [done.0, done.1, done.2, done.3].into_iter().map(Result::unwrap).sum();
    assert_eq!(applied, 3);
}

#[tokio::test]
async fn four_migrate_an_empty_file_at_once() {
    four_at_once(Database::empty_on_sqlite()).await;
}
