//! Statistics: counts, exact costs, percentiles, groups.

use nexo_receiver::{
    clock::Timestamp,
    store::query::{Figures, GroupBy, Percentiles, Stats, StatsQuestion},
};

use super::{DELIVERED, FAILED, SENT, Told, at, keep};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    figures_count_cost_and_time,
    nothing_has_no_times,
    groups_add_up_to_the_total,
    hours_and_days_are_those_of_utc,
    percentiles_are_the_longest_of_their_second,
    costs_add_up_exactly,
}

fn day(by: Option<GroupBy>) -> StatsQuestion {
    StatsQuestion { from: at("2026-05-26T00:00:00Z"), to: at("2026-05-27T00:00:00Z"), by }
}

fn keys(stats: &Stats) -> Vec<Option<&str>> {
    stats.groups.iter().map(|group| group.key.as_deref()).collect()
}

fn all_alike(seconds: f64) -> Option<Percentiles> {
    Some(Percentiles { p50: seconds, p95: seconds, p99: seconds })
}

async fn figures_count_cost_and_time(database: Database) {
    let store = database.open().await;
    keep(
        &*store,
        vec![
            Told { id: "1", ..DELIVERED }.received(0),
            Told { id: "2", completed_at: "2026-05-26T10:00:25.5Z", ..DELIVERED }.received(0),
            Told { id: "3", ..FAILED }.received(0),
            Told { id: "4", ..SENT }.received(0),
            // These have no duration; the first is not terminal, the second lacks a time.
            Told { id: "5", status: "sent", ..DELIVERED }.received(0),
            Told { id: "6", completed_at: "", ..DELIVERED }.received(0),
            // These are outside.
            Told { id: "7", created_at: "2026-05-25T23:59:59.999999Z", ..DELIVERED }.received(0),
            Told { id: "8", created_at: "2026-05-27T00:00:00Z", ..DELIVERED }.received(0),
        ],
    )
    .await;
    let stats = store.stats(&day(None)).await.unwrap();
    assert!(stats.groups.is_empty());
    let Figures { sent, delivered, failed, cost, seconds, stale } = stats.total;
    assert_eq!((sent, stale, delivered, failed), (2, 2, 3, 1));
    assert_eq!(cost.to_string(), "0.11");
    assert_eq!(seconds, Some(Percentiles { p50: 25.5, p95: 40.0, p99: 40.0 }));
}

async fn nothing_has_no_times(database: Database) {
    let store = database.open().await;
    assert_eq!(store.stats(&day(None)).await.unwrap(), Stats::default());
    assert_eq!(store.stats(&day(Some(GroupBy::Carrier))).await.unwrap(), Stats::default());
}

async fn groups_add_up_to_the_total(database: Database) {
    let store = database.open().await;
    keep(
        &*store,
        vec![
            Told { id: "1", ..DELIVERED }.received(0),
            Told { id: "2", carrier: "itel", ..FAILED }.received(0),
            Told { id: "3", carrier: "itel", error_code: "busy", ..FAILED }.received(0),
            Told { id: "4", carrier: "itel", ..DELIVERED }.received(0),
        ],
    )
    .await;
    let by_carrier = store.stats(&day(Some(GroupBy::Carrier))).await.unwrap();
    assert_eq!(keys(&by_carrier), [Some("itel"), Some("viettel")]);
    let itel = &by_carrier.groups[0].figures;
    assert_eq!((itel.delivered, itel.failed, itel.cost.to_string()), (1, 2, "0.022".into()));
    assert_eq!(itel.seconds, Some(Percentiles { p50: 40.0, p95: 40.0, p99: 40.0 }));
    assert_eq!(by_carrier.groups[1].figures.seconds, all_alike(25.0));
    assert_eq!(by_carrier.total, store.stats(&day(None)).await.unwrap().total);

    let by_code = store.stats(&day(Some(GroupBy::ErrorCode))).await.unwrap();
    assert_eq!(keys(&by_code), [None, Some("busy"), Some("no_answer")]);
    assert_eq!(by_code.groups[0].figures.delivered, 2);
}

async fn hours_and_days_are_those_of_utc(database: Database) {
    let store = database.open().await;
    let times = [
        "1969-12-31T23:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2026-05-26T00:30:00+07:00",
        "2026-05-26T10:59:59.999999Z",
    ];
    let batch = times.iter().map(|time| Told { id: time, created_at: time, ..SENT }.received(0)).collect();
    keep(&*store, batch).await;
    let ever =
        |by| StatsQuestion { from: at("0001-01-01T00:00:00Z"), to: at("9999-12-31T23:59:59Z"), by: Some(by) };
    let hours = store.stats(&ever(GroupBy::Hour)).await.unwrap();
    assert_eq!(
        keys(&hours),
        [Some("1969-12-31T23:00:00Z"), Some("2026-05-25T17:00:00Z"), Some("2026-05-26T10:00:00Z")]
    );
    assert_eq!(hours.groups[0].figures.sent, 2);
    let days = store.stats(&ever(GroupBy::Day)).await.unwrap();
    assert_eq!(
        keys(&days),
        [Some("1969-12-31T00:00:00Z"), Some("2026-05-25T00:00:00Z"), Some("2026-05-26T00:00:00Z")]
    );
}

async fn percentiles_are_the_longest_of_their_second(database: Database) {
    let store = database.open().await;
    // 0.01 s to 2.00 s, in no order, all in two carriers; and one that was completed before it was created.
    let start = at(DELIVERED.created_at).micros();
    let told = |n: i64| {
        let end = Timestamp::from_micros(start + (n * 77 % 200 + 1) * 10_000).unwrap().to_string();
        let (id, carrier) = (n.to_string(), if n % 2 == 0 { "even" } else { "odd" });
        Told { id: &id, carrier, completed_at: &end, ..DELIVERED }.received(0)
    };
    keep(&*store, (0..200).map(told).collect()).await;
    let total = store.stats(&day(None)).await.unwrap().total;
    assert_eq!(total.seconds, Some(Percentiles { p50: 1.99, p95: 1.99, p99: 1.99 }));
    let groups = store.stats(&day(Some(GroupBy::Carrier))).await.unwrap();
    assert_eq!(groups.total, total);
    assert_eq!(groups.groups[0].figures.seconds, Some(Percentiles { p50: 0.99, p95: 1.99, p99: 1.99 }));

    let early = Told { id: "early", completed_at: "2026-05-26T09:59:57.75Z", carrier: "early", ..DELIVERED };
    keep(&*store, vec![early.received(0)]).await;
    let groups = store.stats(&day(Some(GroupBy::Carrier))).await.unwrap();
    assert_eq!(groups.groups[0].figures.seconds, all_alike(-2.25));
}

async fn costs_add_up_exactly(database: Database) {
    let store = database.open().await;
    let costs = ["0.1", "0.2", "0.022", "9007199254740993.000001", "-0.3"];
    for (n, cost) in costs.iter().enumerate() {
        keep(
            &*store,
            (0..3).map(|copy| Told { id: &format!("{n}-{copy}"), cost, ..DELIVERED }.received(0)).collect(),
        )
        .await;
    }
    let total = store.stats(&day(None)).await.unwrap().total;
    assert_eq!(total.cost.to_string(), "27021597764222979.066003");
}
