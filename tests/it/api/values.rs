//! What an event may leave out, how ids are written, and what sums hold.

use http::Method;
use nexo_receiver::{
    batch::Batch,
    cli::reprocess::reprocess,
    clock::Timestamp,
    event::{Arrival, Meaning, NotUnderstood},
    store::hours::Due,
};
use serde_json::{Value, json};

use super::{Api, DELIVERED, Told};
use crate::support::{
    database::{Database, on_each_store},
    provider::{WEBHOOK_SECRET, event, verified},
    receiver::Receiver,
};

on_each_store! {
    only_the_id_and_the_status_are_needed,
    what_was_quarantined_for_a_null_field_becomes_an_event,
    an_upper_case_uuid_is_the_same_delivery,
    the_greatest_costs_add_up_exactly,
    an_unreadable_value_hides_no_statistics,
}

const UUID: &str = "8f2e1c4d-6a1b-4a0e-9c55-0d6f4b1a2c3e";
const DAY: &str = "from=2026-05-26T00:00:00Z&to=2026-05-27T00:00:00Z";

/// A delivered event, without a field or with it null.
fn without(id: &str, field: &str, null: bool) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&event(id, "delivered")).unwrap();
    let fields = body.as_object_mut().unwrap();
    fields.remove(field).unwrap();
    if null {
        fields.insert(field.into(), Value::Null);
    }
    body.to_string().into_bytes()
}

const OPTIONAL: [&str; 7] = ["type", "phone", "carrier", "cost", "error_code", "created_at", "completed_at"];

async fn only_the_id_and_the_status_are_needed(database: Database) {
    let receiver = Receiver::start(&database).await;
    let (mut sender, client) = (receiver.sender().await, receiver.client());
    for (n, field) in OPTIONAL.into_iter().enumerate() {
        for null in [true, false] {
            let id = format!("{n}-{null}");
            assert_eq!(sender.post(&without(&id, field, null)).await.short(), (200, "ok"));
            let shown = client.get(&format!("/api/v1/deliveries/{id}")).await;
            assert_eq!(shown.status, 200, "{field}: {}", shown.text());
            assert_eq!(shown.json()["status"], "delivered");
            let evidence = client.get(&format!("/api/v1/deliveries/{id}/events")).await.json();
            let kind = &evidence["events"][0]["type"];
            match field {
                "type" => assert_eq!(*kind, Value::Null),
                _ => assert_eq!((&shown.json()[field], kind.as_str()), (&Value::Null, Some("otp.delivered"))),
            }
        }
    }
    assert_eq!(sender.post(br#"{"id":"bare","status":"failed"}"#).await.short(), (200, "ok"));
    assert_eq!(client.get("/api/v1/deliveries/bare").await.json()["status"], "failed");
    let quarantine = client.get("/api/v1/quarantine").await.json();
    assert_eq!(quarantine["quarantine"], json!([]));
    let stats = client.get(&format!("/api/v1/stats?{DAY}&by=carrier")).await.json();
    let groups: Vec<_> =
        stats["groups"].as_array().unwrap().iter().map(|it| (&it["key"], &it["total"])).collect();
    // Those without a time of their own are listed at the time they came.
    assert_eq!(groups, [(&Value::Null, &json!(2)), (&json!("viettel"), &json!(10))]);
    let of_carrier = client.get("/api/v1/deliveries?carrier=viettel&limit=500").await.json();
    assert_eq!(of_carrier["deliveries"].as_array().unwrap().len(), 12);
}

async fn what_was_quarantined_for_a_null_field_becomes_an_event(database: Database) {
    let api = Api::start(&database).await;
    let arrivals = OPTIONAL[..4].iter().map(|field| {
        let verified = verified(WEBHOOK_SECRET, &without(field, field, true));
        let received_at = Timestamp::parse("2026-05-26T10:00:26Z").unwrap();
        let meaning = Meaning::NotUnderstood(NotUnderstood::MissingField(field), verified);
        Arrival { received_at, times: 1, meaning }
    });
    api.store.commit(&Batch::fold(arrivals.collect()).0).await.unwrap();
    assert_eq!(reprocess(&*api.store).await.unwrap().released, 4);
    for field in &OPTIONAL[..4] {
        assert_eq!(api.get(&format!("/deliveries/{field}")).await.json()["status"], "delivered");
    }
}

async fn an_upper_case_uuid_is_the_same_delivery(database: Database) {
    let receiver = Receiver::start(&database).await;
    let (mut sender, client) = (receiver.sender().await, receiver.client());
    let upper = UUID.to_uppercase();
    assert_eq!(sender.post(&event(&upper, "sent")).await.short(), (200, "ok"));
    assert_eq!(sender.post(&event(UUID, "delivered")).await.short(), (200, "ok"));
    client.send_with(Method::PUT, &format!("/api/v1/deliveries/{upper}"), "{}").await;
    for id in [UUID, &upper, &UUID.replacen('f', "F", 1)] {
        for wait in ["", "?wait=1"] {
            let shown = client.get(&format!("/api/v1/deliveries/{id}{wait}")).await.json();
            assert_eq!((&shown["id"], &shown["status"]), (&json!(UUID), &json!("delivered")), "{id}");
        }
        let events = client.get(&format!("/api/v1/deliveries/{id}/events")).await.json();
        assert_eq!(events["events"].as_array().unwrap().len(), 3, "{id}");
    }
    let all = client.get("/api/v1/deliveries").await.json();
    assert_eq!(all["deliveries"].as_array().unwrap().len(), 1);
    // Other ways to write a UUID, and other texts, are ids of their own.
    for other in [upper.replace('-', ""), "ABC".into(), format!("{{{upper}}}")] {
        assert_eq!(sender.post(&event(&other, "sent")).await.short(), (200, "ok"));
        let path: String = other.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(client.get(&format!("/api/v1/deliveries/{path}")).await.json()["id"], other);
    }
}

async fn the_greatest_costs_add_up_exactly(database: Database) {
    let api = Api::start(&database).await;
    let costs = [
        "79228162514264337593543950335",
        "79228162514264337593543950335",
        "0.0000000000000000000000000001",
        "-0.0000000000000000000000000003",
        "7.9228162514264337593543950335",
    ];
    let sum = "158456325028528675187087900677.9228162514264337593543950333";
    for (n, cost) in costs.into_iter().enumerate() {
        let id: &str = format!("c{n}").leak();
        api.keep(&[(&Told { id, cost, ..DELIVERED }.body(), "2026-05-26T10:00:26Z")]).await;
    }
    for by in ["", "&by=carrier", "&by=hour"] {
        let stats = api.get(&format!("/stats?{DAY}{by}")).await;
        assert_eq!(stats.status, 200, "{}", stats.text());
        assert!(stats.text().contains(&format!("\"cost\":{sum}")), "{}", stats.text());
    }
    // And from the sums of whole hours.
    let due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
    assert!(api.store.sum_up(&due).await.unwrap().is_some());
    assert!(api.get(&format!("/stats?{DAY}")).await.text().contains(&format!("\"cost\":{sum}")));
    let checked = nexo_receiver::cli::rebuild::check(&*api.store, None, None, || {}).await.unwrap();
    assert_eq!((checked.deliveries, checked.differing.len()), (5, 0), "{checked}");
    for inexact in [
        "79228162514264337593543950336",
        "0.00000000000000000000000000001",
        "1.00000000000000000000000000001",
    ] {
        let body = Told { id: "inexact", cost: inexact, ..DELIVERED }.body();
        api.keep(&[(&body, "2026-05-26T10:00:26Z")]).await;
        assert_eq!(api.get("/deliveries/inexact").await.status, 404, "{inexact} is rounded");
    }
    let quarantine = api.get("/quarantine").await;
    assert!(quarantine.text().contains("at most 28 digits after the point"), "{}", quarantine.text());
}

async fn an_unreadable_value_hides_no_statistics(database: Database) {
    let api = Api::start(&database).await;
    for id in ["a", "b", "c"] {
        let body = Told { id, cost: "0.5", ..DELIVERED }.body();
        api.keep(&[(&body, "2026-05-26T10:00:26Z")]).await;
    }
    let edits: &[(&str, &str, u64)] = if database.is_postgres() {
        &[
            ("cost", "'NaN'", 2),
            ("cost", "'Infinity'", 2),
            ("cost", "1e40", 2),
            ("completed_at", "'infinity'", 3),
            ("created_at", "'-infinity'", 3),
            ("created_at", "'290000-01-01'", 3),
            ("phone", "'0981234567'", 3),
            ("listed_at", "'infinity'", 2),
        ]
    } else {
        &[
            ("cost", "'x'", 2),
            ("carrier", "CAST(x'ff' AS TEXT)", 3),
            ("completed_at", "9223372036854775807", 3),
            ("created_at", "-9223372036854775808", 3),
            ("phone", "'0981234567'", 3),
            ("listed_at", "9223372036854775807", 2),
        ]
    };
    for (column, value, counted) in edits {
        database
            .execute(&format!(
                "DROP TABLE IF EXISTS saved; CREATE TABLE saved AS SELECT * FROM deliveries WHERE id =
                (SELECT id FROM deliveries ORDER BY body LIMIT 1 OFFSET 1);
                DELETE FROM hours; DELETE FROM hour_counts;
                UPDATE deliveries SET {column} = {value} WHERE id = (SELECT id FROM saved)"
            ))
            .await;
        for summed in [false, true] {
            for by in ["", "&by=carrier", "&by=error_code", "&by=hour", "&by=day"] {
                let stats = api.get(&format!("/stats?{DAY}{by}")).await;
                assert_eq!(stats.status, 200, "{column} = {value}{by}: {}", stats.text());
                let total = stats.json()["total"]["total"].as_u64().unwrap();
                let expected = if *column == "carrier" && by == "&by=carrier" { 2 } else { *counted };
                assert_eq!(total, expected, "{column} = {value}{by}, {summed}");
            }
            // Summing up is not stopped by it either.
            let due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
            assert_eq!(api.store.sum_up(&due).await.unwrap().is_some(), !summed, "{column} = {value}");
        }
        let (code, said) = crate::rebuild::rebuild(&database);
        assert_eq!(code, Some(1), "{column} = {value}: {said}");
        assert!(said.contains("`b`") && said.contains(column), "{column} = {value}: {said}");
        assert!(!said.contains("0981234567"), "{said}");
        database
            .execute("DELETE FROM deliveries WHERE id = (SELECT id FROM saved); INSERT INTO deliveries SELECT * FROM saved")
            .await;
    }
    let (code, said) = crate::rebuild::rebuild(&database);
    assert_eq!(code, Some(0), "{said}");
}
