//! `GET /deliveries/{id}/events`.

use super::{Api, DELIVERED, Told};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    each_event_is_shown_with_its_evidence,
    a_body_is_shown_to_the_byte,
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
