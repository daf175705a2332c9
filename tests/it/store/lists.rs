//! Lists: filters, bounds, pages that stay stable.

use std::collections::BTreeSet;

use nexo_receiver::{
    clock::Timestamp,
    delivery::Status,
    phone::Phone,
    store::{
        Store,
        query::{Cursor, ListDeliveries, PageSize, RawId},
    },
};

use super::{DELIVERED, FAILED, SENT, Told, at, keep};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    the_newest_comes_first_and_ties_break_by_id,
    each_filter_filters_and_all_together,
    bounds_are_from_inclusive_and_to_exclusive,
    a_phones_pages_go_through_its_months_newest_first,
    pages_are_stable_while_events_arrive,
    every_combination_of_filters_is_answered,
}

async fn listed(store: &dyn Store, question: &ListDeliveries) -> Vec<String> {
    let page = store.deliveries(question).await.unwrap();
    page.entries.iter().map(|delivery| delivery.id.as_str().to_owned()).collect()
}

fn size(entries: u16) -> PageSize {
    PageSize::new(entries).unwrap()
}

async fn the_newest_comes_first_and_ties_break_by_id(database: Database) {
    let store = database.open().await;
    let timeless = Told { id: "timeless", created_at: "", ..DELIVERED };
    let later = Told { id: "later", created_at: "2026-05-26T10:00:00.000001Z", ..FAILED };
    let ties = ["a", "B", "é", "Z", "ab"];
    let mut batch = vec![timeless.received(0), later.received(0)];
    batch.extend(ties.map(|id| Told { id, ..SENT }.received(0)));
    keep(&*store, batch).await;
    // The bytes' order, whatever the database's language.
    assert_eq!(
        listed(&*store, &ListDeliveries::default()).await,
        ["timeless", "later", "é", "ab", "a", "Z", "B"]
    );
}

/// Four deliveries that differ in everything.
async fn four(store: &dyn Store) {
    let hour = |hour: u8| format!("2026-05-26T{hour:02}:00:00Z");
    let hours = [hour(1), hour(2), hour(3), hour(4)];
    let other = "+84912345678";
    keep(
        store,
        vec![
            Told { id: "1", created_at: &hours[0], ..DELIVERED }.received(0),
            Told { id: "2", created_at: &hours[1], phone: other, ..FAILED }.received(0),
            Told { id: "3", created_at: &hours[2], carrier: "itel", ..SENT }.received(0),
            Told {
                id: "4",
                created_at: &hours[3],
                phone: other,
                carrier: "itel",
                error_code: "busy",
                ..FAILED
            }
            .received(0),
        ],
    )
    .await;
}

async fn each_filter_filters_and_all_together(database: Database) {
    let store = database.open().await;
    four(&*store).await;
    let phone = || Phone::parse("+84912345678").ok();
    let text = |text: &str| Some(text.to_owned());
    let all = ListDeliveries::default;
    for (question, expected) in [
        (all(), vec!["4", "3", "2", "1"]),
        (ListDeliveries { phone: phone(), ..all() }, vec!["4", "2"]),
        (ListDeliveries { phone: Phone::parse("+84900000000").ok(), ..all() }, vec![]),
        (ListDeliveries { status: Some(Status::Sent), ..all() }, vec!["3"]),
        (ListDeliveries { status: Some(Status::Failed), ..all() }, vec!["4", "2"]),
        (ListDeliveries { carrier: text("itel"), ..all() }, vec!["4", "3"]),
        (ListDeliveries { carrier: text("Itel"), ..all() }, vec![]),
        (ListDeliveries { error_code: text("busy"), ..all() }, vec!["4"]),
        (ListDeliveries { error_code: text("x"), ..all() }, vec![]),
        (ListDeliveries { carrier: text("itel"), status: Some(Status::Failed), ..all() }, vec!["4"]),
        (ListDeliveries { error_code: text("busy"), status: Some(Status::Sent), ..all() }, vec![]),
        (
            ListDeliveries {
                phone: phone(),
                status: Some(Status::Failed),
                carrier: text("viettel"),
                error_code: text("no_answer"),
                ..all()
            },
            vec!["2"],
        ),
    ] {
        assert_eq!(listed(&*store, &question).await, expected, "{question:?}");
    }
}

async fn bounds_are_from_inclusive_and_to_exclusive(database: Database) {
    let store = database.open().await;
    four(&*store).await;
    let between = |from: &str, to: &str| ListDeliveries {
        from: Some(at(from)),
        to: Some(at(to)),
        ..Default::default()
    };
    for (from, to, expected) in [
        ("2026-05-26T02:00:00Z", "2026-05-26T04:00:00Z", vec!["3", "2"]),
        ("2026-05-26T02:00:00.000001Z", "2026-05-26T04:00:00.000001Z", vec!["4", "3"]),
        ("2026-05-26T03:00:00Z", "2026-05-26T03:00:00Z", vec![]),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", vec!["4", "3", "2", "1"]),
    ] {
        assert_eq!(listed(&*store, &between(from, to)).await, expected, "{from} to {to}");
    }
}

async fn a_phones_pages_go_through_its_months_newest_first(database: Database) {
    let store = database.open().await;
    let times = [
        "2025-12-31T23:59:59.999999Z",
        "2026-01-01T00:00:00Z",
        "2026-01-15T00:00:00Z",
        "2026-01-31T23:00:00Z",
        "2026-02-28T23:59:59.999999Z",
        "2026-03-01T00:00:00Z",
        "2026-03-01T00:00:00.000001Z",
    ];
    // Each twice, in two statuses, and not in their order.
    let events = (0..2 * times.len()).map(|n| n * 5 % (2 * times.len())).map(|n| {
        let told = if n % 2 == 0 { SENT } else { DELIVERED };
        Told { id: &format!("{n:02}"), created_at: times[n / 2], ..told }.received(0)
    });
    keep(&*store, events.collect()).await;
    let phone = Phone::parse(DELIVERED.phone).ok();
    for (from, to) in [(0, times.len()), (1, times.len() - 1), (2, 6), (5, 6)] {
        for page in [1, 3, 500] {
            let (from, to) = (from, to.min(times.len() - 1));
            let bounds = (Some(at(times[from])), Some(at(times[to])));
            let mut question = ListDeliveries {
                phone: phone.clone(),
                from: bounds.0,
                to: bounds.1,
                size: size(page),
                ..Default::default()
            };
            let mut shown = Vec::new();
            loop {
                let page = store.deliveries(&question).await.unwrap();
                shown.extend(page.entries.iter().map(|delivery| delivery.id.as_str().to_owned()));
                let Some(next) = page.next else { break };
                question.after = Some(Cursor::decode(&next).unwrap());
            }
            let expected: Vec<_> = (2 * from..2 * to).rev().map(|n| format!("{n:02}")).collect();
            assert_eq!(shown, expected, "{from} to {to}, {page} at a time");
        }
    }
}

async fn pages_are_stable_while_events_arrive(database: Database) {
    let store = database.open().await;
    let names: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
    keep(&*store, names.iter().map(|id| Told { id, ..SENT }.received(0)).collect()).await;
    let mut question = ListDeliveries { size: size(4), ..Default::default() };
    let mut shown = Vec::new();
    for round in 0.. {
        let page = store.deliveries(&question).await.unwrap();
        shown.extend(page.entries.iter().map(|delivery| delivery.id.as_str().to_owned()));
        // New ones come at the top, old ones get another status and an earlier `created_at`: none moves.
        let news = Told { id: &format!("new{round}"), created_at: "2026-05-27T10:00:00Z", ..DELIVERED };
        let updates =
            names.iter().map(|id| Told { id, created_at: "2026-05-20T10:00:00Z", ..DELIVERED }.received(1));
        keep(&*store, updates.chain([news.received(1)]).collect()).await;
        match page.next {
            Some(next) => question.after = Some(Cursor::decode(&next).unwrap()),
            None => break,
        }
    }
    assert_eq!(shown, names.into_iter().rev().collect::<Vec<_>>());
    let full = ListDeliveries { size: size(500), ..Default::default() };
    let all = listed(&*store, &full).await;
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

async fn every_combination_of_filters_is_answered(database: Database) {
    let store = database.open().await;
    four(&*store).await;
    let time = |micros| Timestamp::from_micros(micros).unwrap();
    for bits in 0..128u8 {
        let has = |bit: u8| bits & (1 << bit) != 0;
        let question = ListDeliveries {
            phone: has(0).then(|| Phone::parse("+84912345678").unwrap()),
            status: has(1).then_some(Status::Failed),
            carrier: has(2).then(|| "itel".into()),
            error_code: has(3).then(|| "busy".into()),
            from: has(4).then(|| time(0)),
            to: has(5).then(|| time(253_402_300_799_999_999)),
            after: has(6).then(|| Cursor { time: time(253_402_300_799_999_999), key: RawId::new(b"x") }),
            size: size(500),
        };
        assert!(listed(&*store, &question).await.contains(&"4".to_owned()), "{question:?}");
    }
}
