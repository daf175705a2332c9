//! `GET /quarantine`.

use super::{Api, DELIVERED, Told};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    what_was_not_understood_is_shown_byte_for_byte,
    quarantine_has_pages,
    a_page_ends_early_in_bytes,
    a_wrong_parameter_is_named,
}

async fn what_was_not_understood_is_shown_byte_for_byte(database: Database) {
    let api = Api::start(&database).await;
    insta::assert_snapshot!("empty", api.get("/quarantine").await.lines());
    let unknown = Told { status: "expired", ..DELIVERED };
    api.keep(&[
        (b"\xff\xfe\x00", "2026-05-26T10:00:00Z"),
        (b"{\"id\":\"test\"}", "2026-05-26T10:00:01Z"),
        (b"{\"id\":\"test\"}", "2026-05-26T10:00:09Z"),
        (b"", "2026-05-26T10:00:02Z"),
        (b"{\"id\":7}", "2026-05-26T10:00:03Z"),
        (b"{\"id\":\"x\"}", "2026-05-26T10:00:04Z"),
        (&unknown.body(), "2026-05-26T10:00:05Z"),
    ])
    .await;
    insta::assert_snapshot!("quarantine", api.get("/quarantine").await.lines());
}

async fn quarantine_has_pages(database: Database) {
    let api = Api::start(&database).await;
    let times: Vec<_> = (0..5).map(|second| format!("2026-05-26T10:00:0{second}Z")).collect();
    let bodies = [b"0", b"1", b"2", b"3", b"4"];
    for (body, time) in bodies.into_iter().zip(&times) {
        api.keep(&[(body, time)]).await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/quarantine?limit=2{cursor}")).await.json();
        let entries = page["quarantine"].as_array().unwrap();
        seen.extend(entries.iter().map(|entry| entry["body"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        api.keep(&[(format!("new {}", seen.len()).as_bytes(), "2026-05-26T11:00:00Z")]).await;
    }
    assert_eq!(seen, ["4", "3", "2", "1", "0"]);
}

async fn a_page_ends_early_in_bytes(database: Database) {
    let api = Api::start(&database).await;
    for n in 0..40 {
        let body = format!("{n} {}", "x".repeat(60_000));
        api.keep(&[(body.as_bytes(), &format!("2026-05-26T10:00:{n:02}Z"))]).await;
    }
    let (mut seen, mut pages, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/quarantine?limit=500{cursor}")).await.json();
        let entries = page["quarantine"].as_array().unwrap();
        pages.push(entries.len());
        let number = |body: &str| body.split(' ').next().unwrap().parse::<usize>().unwrap();
        seen.extend(entries.iter().map(|entry| number(entry["body"].as_str().unwrap())));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    // The 18th body goes beyond 1 MiB.
    assert_eq!(pages, [18, 18, 4]);
    assert_eq!(seen, (0..40).rev().collect::<Vec<_>>());
}

async fn a_wrong_parameter_is_named(database: Database) {
    let api = Api::start(&database).await;
    api.keep(&[
        (&DELIVERED.body(), "2026-05-26T10:00:26Z"),
        (&Told { id: "other", ..DELIVERED }.body(), "2026-05-26T10:00:26Z"),
    ])
    .await;
    let other_list = api.get("/deliveries?limit=1").await.json()["next_cursor"].as_str().unwrap().to_owned();
    api.refuses(
        "/quarantine",
        &[
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=ten", "limit"),
            ("limit=1&limit=1", "limit"),
            ("cursor=", "cursor"),
            ("cursor=71", "cursor"),
            (&format!("cursor={other_list}"), "cursor"),
            ("status=sent", "status"),
            ("reason=not_json", "reason"),
        ],
    )
    .await;
}
