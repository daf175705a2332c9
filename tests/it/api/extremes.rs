//! Numbers and times at the ends of what can be written: each is taken or refused, and nothing fails of it.

use super::{Api, DELIVERED, Told};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    a_parameter_at_any_extreme_is_taken_or_refused,
    deliveries_at_the_ends_of_time_are_like_others,
}

/// In a parameter's place.
const NUMBERS: [&str; 11] = [
    "0",
    "-0",
    "-1",
    "1e3",
    "60.5",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "-9223372036854775808",
    "99999999999999999999999999999999999999999999",
];
const TIMES: [&str; 4] = [
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:59:59Z",
];

async fn a_parameter_at_any_extreme_is_taken_or_refused(database: Database) {
    let api = Api::start(&database).await;
    let mut paths = Vec::new();
    for number in NUMBERS {
        paths.push(format!("/deliveries/a?wait={number}"));
        for list in ["deliveries", "quarantine"] {
            paths.push(format!("/{list}?limit={number}"));
            paths.push(format!("/{list}?cursor={number}"));
        }
        paths.push(format!("/deliveries?from={number}"));
    }
    for time in ["7fffffffffffffff", "8000000000000000", "ffffffffffffffff", "0000000000000000"] {
        paths.extend((0..=3).map(|list| format!("/deliveries?cursor={list:02x}{time}61")));
        paths.extend((0..=3).map(|list| format!("/quarantine?cursor={list:02x}{time}{}", "00".repeat(32))));
    }
    for from in TIMES {
        for to in TIMES {
            for by in ["carrier", "hour", "day"] {
                paths.push(format!("/stats?from={from}&to={to}&by={by}"));
            }
            paths.push(format!("/deliveries?from={from}&to={to}"));
        }
        paths.push(format!("/stats?to={from}"));
    }
    for path in &paths {
        let status = api.get(path).await.status.as_u16();
        assert!([200, 400, 404].contains(&status), "{path}: {status}");
    }
    // Of a position that could be one, a stream would begin.
    for number in NUMBERS.into_iter().filter(|number| !number.starts_with('0')) {
        let answer = api.get(&format!("/deliveries/stream?last_event_id={number}000")).await;
        assert!([400, 410].contains(&answer.status.as_u16()), "{number}: {}", answer.text());
    }
}

async fn deliveries_at_the_ends_of_time_are_like_others(database: Database) {
    let api = Api::start(&database).await;
    let (first, last) = (TIMES[0], TIMES[1]);
    let told = [
        Told { id: "first", created_at: first, completed_at: first, ..DELIVERED },
        Told { id: "last", created_at: last, completed_at: last, ..DELIVERED },
        Told { id: "long", created_at: first, completed_at: last, ..DELIVERED },
        Told { id: "backwards", created_at: last, completed_at: first, ..DELIVERED },
        Told { id: "under-way", created_at: last, completed_at: "", status: "sent", ..DELIVERED },
    ];
    let bodies = told.map(Told::body);
    for body in &bodies {
        api.keep(&[(body, "2026-05-26T10:00:00Z")]).await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/deliveries?limit=1{cursor}")).await.json();
        seen.extend(
            page["deliveries"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), told.len(), "{seen:?}");
    for Told { id, created_at, .. } in told {
        let shown = api.get(&format!("/deliveries/{id}")).await.json();
        assert_eq!(shown["created_at"].as_str().map(|time| &time[..19]), Some(&created_at[..19]), "{shown}");
    }
    for by in ["carrier", "hour", "day"] {
        let stats = api.get(&format!("/stats?from={first}&to={last}&by={by}")).await;
        assert_eq!(stats.status.as_u16(), 200, "{by}: {}", stats.text());
    }
    // Again, and another event of each.
    for body in &bodies {
        api.keep(&[(body, "2026-05-26T10:00:00Z")]).await;
    }
    let failed = told.map(|told| Told { status: "failed", completed_at: last, ..told }.body());
    for body in &failed {
        api.keep(&[(body, "2026-05-26T10:00:00Z")]).await;
    }
    let settled = api.get("/deliveries?status=failed").await.json();
    assert!(settled["deliveries"].as_array().is_some_and(|failed| !failed.is_empty()), "{settled}");
}
