//! `GET /deliveries` and `/deliveries/{id}`.

use std::collections::BTreeSet;

use super::{Api, DELIVERED, Told};
use crate::support::database::{Database, on_each_store};

on_each_store! {
    one_delivery_has_the_providers_fields_and_ours,
    a_cost_keeps_all_its_digits,
    an_id_may_be_any_text,
    an_id_that_none_has_or_can_have_is_not_found,
    a_single_delivery_takes_no_parameter,
    a_page_is_newest_first,
    each_filter_filters,
    a_plus_that_is_not_escaped_is_understood,
    pages_are_stable_while_events_arrive,
    a_wrong_parameter_is_named,
}

const FAILED: Told = Told {
    id: "b-failed",
    phone: "+84912345678",
    carrier: "vinaphone",
    status: "failed",
    cost: "0",
    error_code: "no_answer",
    created_at: "2026-05-26T11:00:00Z",
    completed_at: "2026-05-26T11:00:59.5Z",
};

const SENT: Told = Told {
    id: "c-sent",
    status: "sent",
    created_at: "2026-05-26T12:00:00+07:00",
    completed_at: "",
    ..DELIVERED
};

/// When it came is all that is known.
const TIMELESS: Told =
    Told { id: "d-timeless", carrier: "itel", created_at: "", completed_at: "", ..DELIVERED };

/// By time of listing, the newest first: timeless (12:00), failed (11:00), delivered (10:00), sent (05:00).
async fn four(database: &Database) -> Api {
    let api = Api::start(database).await;
    api.keep(&[
        (&DELIVERED.body(), "2026-05-26T10:00:26.000001Z"),
        (&FAILED.body(), "2026-05-26T11:01:00Z"),
        (&SENT.body(), "2026-05-26T05:00:01Z"),
        (&TIMELESS.body(), "2026-05-26T12:00:00Z"),
    ])
    .await;
    api
}

async fn ids(api: &Api, query: &str) -> Vec<String> {
    let answer = api.get(&format!("/deliveries{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let list = answer.json()["deliveries"].as_array().unwrap().clone();
    list.iter().map(|delivery| delivery["id"].as_str().unwrap().to_owned()).collect()
}

async fn one_delivery_has_the_providers_fields_and_ours(database: Database) {
    let api = four(&database).await;
    let answer = api.get("/deliveries/8f2e1c4d").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    insta::assert_snapshot!("delivered", answer.lines());
    insta::assert_snapshot!("failed", api.get("/deliveries/b-failed").await.lines());
    insta::assert_snapshot!("sent", api.get("/deliveries/c-sent").await.lines());
    insta::assert_snapshot!("timeless", api.get("/deliveries/d-timeless?").await.lines());
}

async fn a_cost_keeps_all_its_digits(database: Database) {
    let api = Api::start(&database).await;
    let cost = "0.1234567890123456789012345678";
    api.keep(&[(&Told { cost, ..DELIVERED }.body(), "2026-05-26T10:00:26Z")]).await;
    for path in
        ["/deliveries/8f2e1c4d", "/deliveries", "/stats?from=2026-05-26T00:00:00Z&to=2026-05-27T00:00:00Z"]
    {
        let answer = api.get(path).await;
        assert!(answer.text().contains(&format!("\"cost\":{cost}")), "{}", answer.text());
    }
}

async fn an_id_may_be_any_text(database: Database) {
    let api = Api::start(&database).await;
    let id = "mật \"khẩu\"/..?🔐%2F\u{1}";
    api.keep(&[(&Told { id, ..DELIVERED }.body(), "2026-05-26T10:00:26Z")]).await;
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(api.get(&format!("/deliveries/{escaped}")).await.json()["id"], id);
    assert_eq!(api.get(&format!("/deliveries/{escaped}/events")).await.json()["events"][0]["times"], 1);
}

async fn an_id_that_none_has_or_can_have_is_not_found(database: Database) {
    let api = four(&database).await;
    let long = "x".repeat(256);
    for id in ["unknown", "8F2E1C4D", "8f2e1c4d%20", &long, "%00", "a%00b", "%ff", "%"] {
        for path in [format!("/deliveries/{id}"), format!("/deliveries/{id}/events")] {
            let (status, error, _) = api.get(&path).await.refusal();
            assert_eq!((status, error.as_str()), (404, "not_found"), "{path}");
        }
    }
    assert_eq!(api.get("/deliveries/").await.refusal().1, "not_found");
}

async fn a_single_delivery_takes_no_parameter(database: Database) {
    let api = four(&database).await;
    api.refuses("/deliveries/8f2e1c4d", &[("limit=1", "limit"), ("a", "a"), ("=", "")]).await;
    api.refuses("/openapi.json", &[("v=1", "v")]).await;
}

async fn a_page_is_newest_first(database: Database) {
    let api = four(&database).await;
    insta::assert_snapshot!("list", api.get("/deliveries").await.lines());
    assert_eq!(ids(&api, "?").await, ["d-timeless", "b-failed", "8f2e1c4d", "c-sent"]);
}

async fn each_filter_filters(database: Database) {
    let api = four(&database).await;
    for (query, expected) in [
        ("status=delivered", &["d-timeless", "8f2e1c4d"][..]),
        ("status=failed", &["b-failed"]),
        ("status=sent", &["c-sent"]),
        ("carrier=vinaphone", &["b-failed"]),
        ("carrier=VINAPHONE", &[]),
        ("carrier=%25", &[]),
        ("error_code=no_answer", &["b-failed"]),
        ("error_code=no+answer", &[]),
        ("phone=%2B84912345678", &["b-failed"]),
        ("phone=%2B84900000000", &[]),
        ("from=2026-05-26T10:00:00Z", &["d-timeless", "b-failed", "8f2e1c4d"]),
        ("from=2026-05-26T10:00:00.000001Z", &["d-timeless", "b-failed"]),
        ("to=2026-05-26T10:00:00Z", &["c-sent"]),
        ("from=2026-05-26T05:00:00Z&to=2026-05-26T11:00:00Z", &["8f2e1c4d", "c-sent"]),
        ("status=delivered&carrier=viettel", &["8f2e1c4d"]),
        ("status=delivered&phone=%2B84912345678", &[]),
        (
            "carrier=vinaphone&error_code=no_answer&phone=%2B84912345678&from=2026-05-26T00:00:00Z",
            &["b-failed"],
        ),
        ("limit=1", &["d-timeless"]),
        ("limit=500", &["d-timeless", "b-failed", "8f2e1c4d", "c-sent"]),
        ("%73tatus=f%61iled", &["b-failed"]),
        ("&&status=sent&", &["c-sent"]),
    ] {
        assert_eq!(ids(&api, &format!("?{query}")).await, expected, "{query}");
    }
}

async fn a_plus_that_is_not_escaped_is_understood(database: Database) {
    let api = four(&database).await;
    for query in
        ["phone=+84912345678", "phone=%2B84912345678", "phone=%2b84912345678", "phone=%2084912345678"]
    {
        assert_eq!(ids(&api, &format!("?{query}")).await, ["b-failed"], "{query}");
    }
    for from in ["18:00:00+07:00", "18:00:00%2B07:00", "18:00:00%2b07%3a00", "06:00:00-05:00"] {
        let query = format!("?from=2026-05-26T{from}&status=failed");
        assert_eq!(ids(&api, &query).await, ["b-failed"], "{query}");
    }
    let day = "/stats?from=2026-05-26T07:00:00+07:00&to=2026-05-27T07:00:00+07:00";
    assert_eq!(api.get(day).await.json()["to"], "2026-05-27T00:00:00Z");
}

async fn pages_are_stable_while_events_arrive(database: Database) {
    let api = four(&database).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let mut arriving = 0;
    loop {
        let page = api.get(&format!("/deliveries?limit=1{cursor}")).await.json();
        for delivery in page["deliveries"].as_array().unwrap() {
            seen.push(delivery["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        // A new one on top, and news of the last, whose earlier `created_at` must not move it.
        let id = ["n0", "n1", "n2", "n3", "n4", "n5"][arriving];
        arriving += 1;
        let new = Told { id, created_at: "2026-05-26T23:00:00Z", ..DELIVERED };
        let news = Told { id: "c-sent", created_at: "2026-05-26T13:00:00Z", ..DELIVERED };
        api.keep(&[(&new.body(), "2026-05-26T23:00:30Z"), (&news.body(), "2026-05-26T13:00:30Z")]).await;
    }
    assert_eq!(seen, ["d-timeless", "b-failed", "8f2e1c4d", "c-sent"]);
    let all: BTreeSet<_> = ids(&api, "").await.into_iter().collect();
    assert_eq!(all.len(), 4 + arriving);
}

async fn a_wrong_parameter_is_named(database: Database) {
    let api = four(&database).await;
    let long = "carrier=".to_owned() + &"x".repeat(256);
    let cursor = format!("cursor={}", "64".repeat(265));
    api.refuses(
        "/deliveries",
        &[
            ("phone=0981234567", "phone"),
            ("phone=84981234567", "phone"),
            ("phone=++84981234567", "phone"),
            ("phone=%2B8498123456x", "phone"),
            ("phone", "phone"),
            ("phone=", "phone"),
            ("status=DELIVERED", "status"),
            ("status=queued", "status"),
            ("status=sent,failed", "status"),
            ("status=sent&status=failed", "status"),
            ("status=sent&%73tatus=sent", "status"),
            ("carrier=", "carrier"),
            ("carrier=a%00b", "carrier"),
            ("carrier=%ff", "carrier"),
            (&long, "carrier"),
            ("error_code=", "error_code"),
            ("error_code=%00", "error_code"),
            ("from=yesterday", "from"),
            ("from=2026-05-26", "from"),
            ("from=1779789625", "from"),
            ("from=0000-01-01T00:00:00Z", "from"),
            ("to=2026-05-26T10:00:00", "to"),
            ("to=2026-13-26T10:00:00Z", "to"),
            ("from=2026-05-26T10:00:00Z&to=2026-05-26T10:00:00Z", "from"),
            ("from=2026-05-27T10:00:00Z&to=2026-05-26T10:00:00Z", "from"),
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=-1", "limit"),
            ("limit=%2B5", "limit"),
            ("limit=1e2", "limit"),
            ("limit=65537", "limit"),
            ("limit=99999999999999999999999", "limit"),
            ("limit=", "limit"),
            ("cursor=", "cursor"),
            ("cursor=0", "cursor"),
            ("cursor=zz", "cursor"),
            ("cursor=647fffffffffffffff61", "cursor"),
            (&cursor, "cursor"),
            ("Phone=%2B84981234567", "Phone"),
            ("wait=5", "wait"),
            ("by=day", "by"),
        ],
    )
    .await;

    let hostile = format!("/deliveries?{}%1b[31m%0a=1", "n".repeat(20));
    let (_, _, message) = api.get(&hostile).await.refusal();
    assert!(
        message.contains("\\u{1b}[31m\\n` is no parameter of this call, which takes phone,"),
        "{message}"
    );
    let (_, _, message) = api.get(&format!("/deliveries?{}=1", "n".repeat(5_000))).await.refusal();
    assert!(message.len() < 200, "{message}");
    let (_, _, message) = api.get("/deliveries?phone=0981234567").await.refusal();
    assert!(!message.contains("0981234567"), "{message}");
}
