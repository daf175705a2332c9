//! What commits and questions cost when there are ten million deliveries, and how the database goes about them.
//!
//!     cargo bench --bench growth -- postgres://…/an_empty_database [ROWS] [fine]
//!     cargo bench --bench growth -- an/empty/folder [ROWS] [fine]
//!
//! Commits events to an empty store, fills it, a million deliveries for each day, sums up their hours, commits as many
//! again, and asks each question five hundred times. With `fine` the durations are to the microsecond, else to the
//! second.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command that prints, and stops at what goes wrong"
)]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nexo_receiver::{
    batch::Batch,
    clock::Timestamp,
    delivery::{DeliveryId, Status},
    event::Arrival,
    flood::sample::{Outcome, Sample},
    money::Money,
    phone::Phone,
    secret::Secret,
    signature::{Keyring, SigningKey},
    store::{
        Store,
        hours::Due,
        postgres::{self, Postgres},
        query::{Cursor, GroupBy, ListDeliveries, PageSize, Question, StatsQuestion},
        sqlite::{self, Sqlite},
    },
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

const PATIENCE: Duration = Duration::from_secs(600);
const ROWS: i64 = 10_000_000;
const EVENTS: u32 = 100_000;
/// What is committed together at about 256 connections.
const BATCH: usize = 128;
const QUESTIONS: usize = 500;
const LAST_DAY: &str = "2026-05-26T00:00:00Z";
const DAY: i64 = 86_400_000_000;

/// Rows `n` = 1… : the newest last; what is rare stands at the start, so that no scan from the newest finds it soon.
const POSTGRES: &str = "
    INSERT INTO deliveries SELECT md5(n::text)::uuid::text, '+8498' || lpad((n * 7919 % (ROWS / 5))::text, 7, '0'),
        CASE WHEN n <= 3 THEN 'rare' ELSE (ARRAY['viettel', 'vinaphone', 'mobifone', 'vietnamobile'])[1 + n % 4] END,
        CASE WHEN n <= 20 THEN 'sent' WHEN n % 16 = 0 THEN 'failed' ELSE 'delivered' END,
        CASE WHEN n <= 20 OR n % 16 = 0 THEN 0 ELSE 0.022 END,
        CASE WHEN n <= 3 THEN 'rare' WHEN n % 16 = 0 THEN (ARRAY['busy', 'no_answer', 'rejected'])[1 + n % 3] END,
        t, t + took, t + took, t, 'webhook', decode(repeat('00', 42), 'hex'), 'otp', sha256(n::text::bytea)
            || decode(repeat('2e', 198), 'hex'), sha256(''), 1
    FROM (SELECT n, timestamptz 'LAST_DAY' + interval '1 day' - (ROWS - n + 1) * interval '86400 microseconds' AS t,
        CASE WHEN FINE = 1 THEN 25000000 + n * 7919 % 35000000 ELSE (25 + n * 7919 % 35) * 1000000 END
            * interval '1 microsecond' AS took
        FROM generate_series(1::bigint, ROWS) AS n) AS rows;
    VACUUM ANALYZE;
    CHECKPOINT;";

const SQLITE: &str = "
    PRAGMA synchronous = OFF;
    INSERT INTO deliveries SELECT lower(hex(randomblob(16))) || '-' || n,
        '+8498' || substr('0000000' || (n * 7919 % (ROWS / 5)), -7),
        CASE WHEN n <= 3 THEN 'rare' ELSE
            CASE n % 4 WHEN 0 THEN 'viettel' WHEN 1 THEN 'vinaphone' WHEN 2 THEN 'mobifone' ELSE 'vietnamobile' END END,
        CASE WHEN n <= 20 THEN 'sent' WHEN n % 16 = 0 THEN 'failed' ELSE 'delivered' END,
        CASE WHEN n <= 20 OR n % 16 = 0 THEN '0' ELSE '0.022' END,
        CASE WHEN n <= 3 THEN 'rare' WHEN n % 16 = 0 THEN
            CASE n % 3 WHEN 0 THEN 'busy' WHEN 1 THEN 'no_answer' ELSE 'rejected' END END,
        t, t + took, t + took, t, 'webhook', zeroblob(42), 'otp', zeroblob(230), zeroblob(32), 1
    FROM (WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < ROWS)
        SELECT n, (unixepoch('LAST_DAY') + 86400) * 1000000 - (ROWS - n + 1) * 86400 AS t,
        CASE WHEN FINE = 1 THEN 25000000 + n * 7919 % 35000000 ELSE (25 + n * 7919 % 35) * 1000000 END AS took
        FROM series);
    ANALYZE;";

enum Place {
    Postgres(Box<Postgres>),
    Sqlite(Sqlite),
}

impl Place {
    fn store(&self) -> &dyn Store {
        match self {
            Self::Postgres(store) => &**store,
            Self::Sqlite(store) => store,
        }
    }

    async fn explain(&self, question: Question<'_>) -> Vec<String> {
        match self {
            Self::Postgres(store) => store.explain(question).await.unwrap(),
            Self::Sqlite(store) => store.explain(question).await.unwrap(),
        }
    }
}

async fn open(at: &str) -> Place {
    if at.starts_with("postgres") {
        let options = postgres::Options {
            url: Secret::new(at.into()),
            pgbouncer: false,
            migration_lock: true,
            read_connections: 1,
            connect_timeout: PATIENCE,
            commit_timeout: PATIENCE,
            read_timeout: PATIENCE,
        };
        return Place::Postgres(Box::new(Postgres::open(&options).await.unwrap()));
    }
    let folder = PathBuf::from(at);
    let options =
        sqlite::Options { folder, read_connections: 1, commit_timeout: PATIENCE, read_timeout: PATIENCE };
    Place::Sqlite(Sqlite::open(&options).await.unwrap())
}

async fn fill(at: &str, place: &Place, rows: i64, fine: bool) {
    let ready = |sql: &str| {
        let sql = sql.replace("ROWS", &rows.to_string()).replace("LAST_DAY", LAST_DAY);
        sql.replace("FINE", if fine { "1" } else { "0" })
    };
    match place {
        Place::Postgres(_) => {
            let mut connection = PgConnection::connect(at).await.unwrap();
            // One by one: VACUUM does not go with others.
            for statement in ready(POSTGRES).split(';').filter(|sql| !sql.trim().is_empty()) {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
            }
        }
        Place::Sqlite(_) => {
            let file = format!("sqlite://{at}/nexo-receiver.db");
            let mut connection = SqliteConnection::connect(&file).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(ready(SQLITE))).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

/// Commits new events, one batch after the other; how many a second, after a tenth of them to warm up.
async fn ingest(store: &dyn Store) -> f64 {
    let secret = Secret::new("growth".into());
    let (key, keyring) = (SigningKey::from_secret(&secret), Keyring::new(&secret, None));
    let arrivals: Vec<_> = (0..EVENTS).map(|n| arrival(n, &key, &keyring)).collect();
    let (warm, mut begun) = (arrivals.len() / 10, Instant::now());
    for (n, batch) in arrivals.chunks(BATCH).enumerate() {
        if n == warm / BATCH {
            begun = Instant::now();
        }
        store.commit(&Batch::fold(batch.to_vec()).0).await.unwrap();
    }
    f64::from(EVENTS) * 0.9 / begun.elapsed().as_secs_f64()
}

fn arrival(n: u32, key: &SigningKey, keyring: &Keyring) -> Arrival {
    let (id, now) = (uuid::Uuid::new_v4(), Timestamp::now());
    let carrier = ["viettel", "vinaphone", "mobifone", "vietnamobile"][n as usize % 4];
    let outcome = match n.is_multiple_of(10) {
        true => Outcome::Failed("busy".into()),
        false => Outcome::Delivered(Money::parse("0.022").unwrap()),
    };
    let phone = Phone::parse(&format!("+8498{:07}", fastrand::u32(..10_000_000))).unwrap();
    let carrier = carrier.into();
    let sample = Sample { id: id.to_string(), phone, carrier, outcome, created_at: now, completed_at: now };
    let body = Bytes::from(sample.body());
    let signature = key.sign(&body);
    Arrival::understand(keyring.verify(body, signature).unwrap(), now)
}

/// Sums up every hour that is over, as the service does in the background.
async fn sum_up(store: &dyn Store) {
    let (begun, mut hours) = (Instant::now(), 0);
    let mut due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
    while let Some(hour) = store.sum_up(&due).await.unwrap() {
        due = due.after(hour);
        hours += 1;
    }
    println!("{hours} hours summed up in {:?}", begun.elapsed());
}

/// Asks `times` times and prints how long it took, and the plan.
async fn ask(place: &Place, name: &str, question: Question<'_>, times: usize) {
    let mut took = Vec::with_capacity(times);
    let mut found = 0;
    for _ in 0..times {
        let begun = Instant::now();
        let store = place.store();
        found = match question {
            Question::Delivery(id) => store.delivery(id).await.unwrap().into_iter().count(),
            Question::Events(id) => store.events(id).await.unwrap().len(),
            Question::Deliveries(question) => store.deliveries(question).await.unwrap().entries.len(),
            Question::Quarantine(question) => store.quarantine(question).await.unwrap().entries.len(),
            Question::Stats(question) => {
                let stats = store.stats(question).await.unwrap();
                usize::try_from(stats.total.sent + stats.total.delivered + stats.total.failed).unwrap()
            }
        };
        took.push(begun.elapsed());
    }
    took.sort();
    let percentile = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
    println!("\n{name}: p50 {:?}, p99 {:?}; {found} found", percentile(50), percentile(99));
    for line in place.explain(question).await {
        println!("    {line}");
    }
}

fn lists() -> Vec<(&'static str, ListDeliveries)> {
    let all = ListDeliveries::default;
    let text = |text: &str| Some(text.to_owned());
    let last_day = Timestamp::parse(LAST_DAY).unwrap();
    let deep = Timestamp::from_micros(last_day.micros() + DAY / 10).unwrap();
    let failed = Some(Status::Failed);
    vec![
        ("no filter", all()),
        ("500 of them", ListDeliveries { size: PageSize::new(500).unwrap(), ..all() }),
        ("a deep page", ListDeliveries { after: Some(Cursor { time: deep, key: id("m") }), ..all() }),
        ("from and to", ListDeliveries { from: Some(last_day), to: Some(deep), ..all() }),
        ("phone", ListDeliveries { phone: Phone::parse("+84980000017").ok(), ..all() }),
        ("unknown phone", ListDeliveries { phone: Phone::parse("+84990000000").ok(), ..all() }),
        ("status delivered", ListDeliveries { status: Some(Status::Delivered), ..all() }),
        ("status sent (20)", ListDeliveries { status: Some(Status::Sent), ..all() }),
        ("carrier", ListDeliveries { carrier: text("viettel"), ..all() }),
        ("rare carrier (3)", ListDeliveries { carrier: text("rare"), ..all() }),
        ("unknown carrier", ListDeliveries { carrier: text("unknown"), ..all() }),
        ("error code", ListDeliveries { error_code: text("busy"), ..all() }),
        ("rare error code (3)", ListDeliveries { error_code: text("rare"), ..all() }),
        ("unknown error code", ListDeliveries { error_code: text("unknown"), ..all() }),
        (
            "carrier, sent (5)",
            ListDeliveries { carrier: text("viettel"), status: Some(Status::Sent), ..all() },
        ),
        (
            "carrier, error code",
            ListDeliveries { carrier: text("viettel"), error_code: text("busy"), ..all() },
        ),
        (
            "unknown carrier, error code",
            ListDeliveries { carrier: text("x"), error_code: text("busy"), ..all() },
        ),
        ("failed, error code", ListDeliveries { status: failed, error_code: text("busy"), ..all() }),
        (
            "sent, error code (0)",
            ListDeliveries { status: Some(Status::Sent), error_code: text("busy"), ..all() },
        ),
    ]
}

fn id(text: &str) -> DeliveryId {
    DeliveryId::parse(text.to_owned()).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let at = arguments.next().expect("a Postgres' URL or a folder");
    let rows = arguments.next().map_or(ROWS, |rows| rows.parse().unwrap());
    let fine = arguments.next().is_some_and(|fine| fine == "fine");
    let place = open(&at).await;
    if place.store().migrate().await.unwrap() > 0 {
        let empty = ingest(place.store()).await;
        let begun = Instant::now();
        fill(&at, &place, rows, fine).await;
        println!("{rows} deliveries filled in {:?}", begun.elapsed());
        sum_up(place.store()).await;
        let full = ingest(place.store()).await;
        println!(
            "events a second, one batch of {BATCH} after the other: {empty:.0} into the empty store, {full:.0} after that: {:.2}",
            full / empty
        );
    }
    let newest = place.store().deliveries(&ListDeliveries::default()).await.unwrap().entries[0].id.clone();
    ask(&place, "one delivery", Question::Delivery(&newest), QUESTIONS).await;
    ask(&place, "one unknown delivery", Question::Delivery(&id("unknown")), QUESTIONS).await;
    ask(&place, "events", Question::Events(&newest), QUESTIONS).await;
    for (name, question) in lists() {
        ask(&place, name, Question::Deliveries(&question), QUESTIONS).await;
    }
    let from = Timestamp::parse(LAST_DAY).unwrap();
    let to = Timestamp::from_micros(from.micros() + DAY).unwrap();
    for by in [None, Some(GroupBy::Carrier), Some(GroupBy::ErrorCode), Some(GroupBy::Hour)] {
        let question = StatsQuestion { from, to, by };
        ask(&place, &format!("statistics of a day, by {by:?}"), Question::Stats(&question), 20).await;
    }
}
