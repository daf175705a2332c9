//! `GET /deliveries/{id}/events`.

use serde_json::Value;

use super::{Api, DELIVERED, Told};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    each_event_is_shown_with_its_evidence,
    a_body_is_shown_to_the_byte,
    events_have_pages,
    a_page_ends_early_in_bytes,
    a_wrong_parameter_is_named,
}

async fn each_event_is_shown_with_its_evidence(database: Database) {
    let api = Api::start(&database).await;
    let sent = Told { status: "sent", completed_at: "", ..DELIVERED };
    let failed = Told { status: "failed", error_code: "busy", cost: "0", ..DELIVERED };
    api.keep(&[(&DELIVERED.body(), "2026-05-26T10:00:26Z"), (&DELIVERED.body(), "2026-05-26T10:00:27Z")])
        .await;
    api.keep(&[(&failed.body(), "2026-05-26T10:00:28Z"), (&sent.body(), "2026-05-26T10:00:01Z")]).await;
    api.keep(&[(&DELIVERED.body(), "2026-05-26T10:00:29Z")]).await;
    insta::assert_snapshot!("events", api.get("/deliveries/8f2e1c4d/events").await.lines());
}

async fn a_body_is_shown_to_the_byte(database: Database) {
    let api = Api::start(&database).await;
    let body = String::from_utf8(DELIVERED.body()).unwrap();
    let body = format!("\r\n{}\t, \"note\": \"\\u00e9 é \u{7f}🔐\"}}\n", body.trim_end_matches('}'));
    api.keep(&[(body.as_bytes(), "2026-05-26T10:00:26Z")]).await;
    let shown = api.get("/deliveries/8f2e1c4d/events").await.json();
    assert_eq!(shown["events"][0]["body"], body);
}

/// Different statements about one delivery, each with more bytes.
async fn keep_events(api: &Api, count: usize, more: usize) {
    let body = String::from_utf8(DELIVERED.body()).unwrap();
    for n in 0..count {
        let body = format!("{},\"note\":\"{n} {}\"}}", body.trim_end_matches('}'), "x".repeat(more));
        api.keep(&[(body.as_bytes(), &format!("2026-05-26T10:{:02}:{:02}Z", n / 60, n % 60))]).await;
    }
}

/// All notes, page by page, and how many were on each.
async fn notes(api: &Api, parameters: &str) -> (Vec<String>, Vec<usize>) {
    let (mut notes, mut pages, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/deliveries/8f2e1c4d/events?{parameters}{cursor}")).await.json();
        let events = page["events"].as_array().unwrap();
        pages.push(events.len());
        let note = |event: &Value| {
            let body: Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
            body["note"].as_str().unwrap().trim_end_matches('x').trim().to_owned()
        };
        notes.extend(events.iter().map(note));
        let Some(next) = page["next_cursor"].as_str() else { return (notes, pages) };
        cursor = format!("&cursor={next}");
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

async fn events_have_pages(database: Database) {
    let api = Api::start(&database).await;
    keep_events(&api, 5, 0).await;
    assert_eq!(notes(&api, "").await, (numbers(5), vec![5]));
    assert_eq!(notes(&api, "limit=2").await, (numbers(5), vec![2, 2, 1]));
    assert_eq!(notes(&api, "limit=5").await, (numbers(5), vec![5]));
}

async fn a_page_ends_early_in_bytes(database: Database) {
    let api = Api::start(&database).await;
    keep_events(&api, 40, 60_000).await;
    // The 18th body goes beyond 1 MiB.
    assert_eq!(notes(&api, "").await, (numbers(40), vec![18, 18, 4]));
    assert_eq!(notes(&api, "limit=18").await, (numbers(40), vec![18, 18, 4]));
    assert_eq!(notes(&api, "limit=17").await, (numbers(40), vec![17, 17, 6]));
}

async fn a_wrong_parameter_is_named(database: Database) {
    let api = Api::start(&database).await;
    keep_events(&api, 1, 0).await;
    let wrong =
        [("limit=0", "limit"), ("limit=501", "limit"), ("cursor=71", "cursor"), ("status=sent", "status")];
    api.refuses("/deliveries/8f2e1c4d/events", &wrong).await;
}
