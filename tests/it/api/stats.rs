//! `GET /stats`.

use nexo_receiver::clock::Timestamp;

use super::{Api, DELIVERED, Told};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    figures_by_each_grouping,
    nothing_has_no_rate_and_no_times,
    the_range_is_the_last_24_hours_unless_told,
    a_wrong_parameter_is_named,
}

const DAY: &str = "from=2026-05-26T00:00:00Z&to=2026-05-27T00:00:00Z";

/// Three delivered, one failed and one under way on one day; one more on the next.
async fn six(database: &Database) -> Api {
    let api = Api::start(database).await;
    let failed =
        Told { id: "f", carrier: "vinaphone", status: "failed", error_code: "busy", cost: "0", ..DELIVERED };
    let slow = Told { id: "d2", cost: "0.0330", completed_at: "2026-05-26T10:01:00.25Z", ..DELIVERED };
    let later = Told { id: "d3", created_at: "2026-05-26T23:59:59.999999Z", completed_at: "", ..DELIVERED };
    let sent = Told { id: "s", status: "sent", completed_at: "", cost: "0.01", ..DELIVERED };
    let next_day = Told { id: "n", created_at: "2026-05-27T00:00:00Z", ..DELIVERED };
    let bodies = [DELIVERED, failed, slow, later, sent, next_day].map(Told::body);
    for body in &bodies {
        api.keep(&[(body, "2026-05-27T01:00:00Z")]).await;
    }
    api
}

async fn figures_by_each_grouping(database: Database) {
    let api = six(&database).await;
    insta::assert_snapshot!("total", api.get(&format!("/stats?{DAY}")).await.lines());
    for by in ["carrier", "error_code", "hour", "day"] {
        insta::assert_snapshot!(format!("by_{by}"), api.get(&format!("/stats?{DAY}&by={by}")).await.lines());
    }
}

async fn nothing_has_no_rate_and_no_times(database: Database) {
    let api = Api::start(&database).await;
    insta::assert_snapshot!("nothing", api.get(&format!("/stats?{DAY}&by=carrier")).await.lines());
}

async fn the_range_is_the_last_24_hours_unless_told(database: Database) {
    let api = six(&database).await;
    let before = Timestamp::now();
    let stats = api.get("/stats").await.json();
    let [from, to] = ["from", "to"].map(|end| Timestamp::parse(stats[end].as_str().unwrap()).unwrap());
    assert!((before..=Timestamp::now()).contains(&to));
    assert_eq!(from, to.hours_before(24));

    let stats = api.get("/stats?to=2026-05-27T00:00:00Z").await.json();
    assert_eq!(stats["from"], "2026-05-26T00:00:00Z");
    assert_eq!(stats["total"]["total"], 5);
    let stats = api.get("/stats?from=2026-05-26T00:00:00Z").await.json();
    assert_eq!(stats["total"]["total"], 6);
}

async fn a_wrong_parameter_is_named(database: Database) {
    let api = Api::start(&database).await;
    let day = |more: &str| format!("{DAY}&{more}");
    api.refuses(
        "/stats",
        &[
            ("from=2026", "from"),
            ("to=", "to"),
            ("to=now", "to"),
            ("from=9999-01-01T00:00:00Z", "from"),
            ("from=2026-05-27T00:00:00Z&to=2026-05-27T00:00:00Z", "from"),
            ("to=0001-01-01T00:00:00Z", "from"),
            (&day("by=week"), "by"),
            (&day("by=Carrier"), "by"),
            (&day("by=hour&by=day"), "by"),
            (&day("by="), "by"),
            (&day("limit=5"), "limit"),
            (&day("phone=%2B84981234567"), "phone"),
        ],
    )
    .await;
}
