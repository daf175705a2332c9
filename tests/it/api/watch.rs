//! `PUT /deliveries/{id}`: what a caller tells of an OTP that it has sent by itself.

use http::Method;
use nexo_receiver::{
    clock::Timestamp,
    delivery::DeliveryId,
    store::{Store, hours::Due},
};
use serde_json::{Value, json};

use super::{Api, DELIVERED, Told};
use crate::support::{
    database::{Database, on_each_store},
    http::Answer,
    wire::{PATIENCE, Wire},
};

on_each_store! {
    what_was_sent_is_known_before_any_webhook,
    a_word_changes_nothing_that_the_provider_told,
    two_callers_complete_each_other_in_any_order,
    the_same_word_again_is_only_counted,
    what_is_not_known_is_in_no_filter_and_in_every_count,
    a_wrong_body_is_named_and_keeps_nothing,
    a_body_over_the_limit_is_refused,
    a_body_that_comes_too_late_is_refused,
    the_store_away_is_told,
}

const ID: &str = "8f2e1c4d";
const KNOWN: &str =
    r#"{"phone":"+84981234567","carrier":"viettel","cost":0.022,"created_at":"2026-05-26T10:00:00Z"}"#;

impl Api {
    async fn tell(&self, id: &str, body: &str) -> Answer {
        self.client.send_with(Method::PUT, &format!("/api/v1/deliveries/{id}"), body).await
    }

    async fn told(&self, id: &str, body: &str) -> Value {
        let answer = self.tell(id, body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        answer.json()
    }

    /// What is shown of a delivery, but for when it came.
    async fn shown(&self, id: &str) -> Value {
        let mut shown = self.get(&format!("/deliveries/{id}")).await.json();
        shown.as_object_mut().unwrap().remove("received_at");
        shown
    }
}

async fn what_was_sent_is_known_before_any_webhook(database: Database) {
    let api = Api::start(&database).await;
    let before = Timestamp::now();
    let nothing = api.told("nothing-else-known", "").await;
    let received_at = Timestamp::parse(nothing["received_at"].as_str().unwrap()).unwrap();
    assert!((before..=Timestamp::now()).contains(&received_at), "{received_at}");
    let known = api.told(ID, KNOWN).await;
    for (told, id) in [(nothing, "nothing-else-known"), (known, ID)] {
        assert_eq!(told, api.get(&format!("/deliveries/{id}")).await.json());
    }
    assert_eq!(
        api.shown("nothing-else-known").await,
        json!({
            "ok": true, "id": "nothing-else-known", "phone": null, "carrier": null, "status": "sent",
            "cost": null, "error_code": null, "created_at": null, "completed_at": null, "source": "send",
        })
    );
    assert_eq!(
        api.shown(ID).await,
        json!({
            "ok": true, "id": ID, "phone": "+84981234567", "carrier": "viettel", "status": "sent",
            "cost": 0.022, "error_code": null, "created_at": "2026-05-26T10:00:00Z", "completed_at": null,
            "source": "send", "stale": true,
        })
    );
    let events = api.get(&format!("/deliveries/{ID}/events")).await.json()["events"].clone();
    let event = events.as_array().unwrap();
    assert_eq!(event.len(), 1);
    assert_eq!((&event[0]["body"], &event[0]["signature"]), (&json!(KNOWN), &Value::Null));
    assert_eq!((&event[0]["type"], &event[0]["source"]), (&json!("watch"), &json!("send")));
}

async fn a_word_changes_nothing_that_the_provider_told(database: Database) {
    let api = Api::start(&database).await;
    let other = r#"{"phone":"+84912345678","carrier":"itel","cost":1,"created_at":"2020-01-01T00:00:00Z"}"#;
    for status in ["sent", "delivered"] {
        let id = format!("webhook-first-{status}");
        let id: &'static str = id.leak();
        let completed_at = if status == "sent" { "" } else { DELIVERED.completed_at };
        let told = Told { id, status, completed_at, ..DELIVERED };
        api.keep(&[(&told.body(), "2026-05-26T10:00:26Z")]).await;
        let before = api.get(&format!("/deliveries/{id}")).await.json();
        assert_eq!(api.told(id, other).await, before);
        let after: &'static str = format!("webhook-after-{status}").leak();
        api.told(after, other).await;
        api.keep(&[(&Told { id: after, ..told }.body(), "2026-05-26T10:00:26Z")]).await;
        let mut expected = before;
        expected["id"] = json!(after);
        assert_eq!(api.get(&format!("/deliveries/{after}")).await.json(), expected);
        let events = api.get(&format!("/deliveries/{after}/events")).await.json();
        assert_eq!(events["events"].as_array().unwrap().len(), 2, "both stay on record");
    }
}

async fn two_callers_complete_each_other_in_any_order(database: Database) {
    let api = Api::start(&database).await;
    let words = [
        r#"{"phone":"+84981234567","created_at":"2026-05-26T10:00:01Z"}"#,
        r#"{"carrier":"viettel","created_at":"2026-05-26T10:00:00Z"}"#,
        r#"{"cost":0.022}"#,
    ];
    let mut expected = json!({
        "ok": true, "phone": "+84981234567", "carrier": "viettel", "status": "sent", "cost": 0.022,
        "error_code": null, "created_at": "2026-05-26T10:00:00Z", "completed_at": null, "source": "send",
        "stale": true,
    });
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let id = format!("order-{order:?}").replace([' ', ',', '[', ']'], "");
        for word in order {
            api.told(&id, words[word]).await;
        }
        expected["id"] = json!(id);
        assert_eq!(api.shown(&id).await, expected);
    }
}

async fn the_same_word_again_is_only_counted(database: Database) {
    let api = Api::start(&database).await;
    let first = api.told(ID, KNOWN).await;
    assert_eq!(api.told(ID, KNOWN).await, first);
    let events = api.get(&format!("/deliveries/{ID}/events")).await.json();
    assert_eq!((events["events"].as_array().unwrap().len(), &events["events"][0]["times"]), (1, &json!(2)));
}

async fn what_is_not_known_is_in_no_filter_and_in_every_count(database: Database) {
    let api = Api::start(&database).await;
    api.told("dark", r#"{"created_at":"2026-05-26T10:00:00Z"}"#).await;
    api.told(ID, KNOWN).await;
    let ids = async |query: &str| {
        let list = api.get(&format!("/deliveries{query}")).await.json();
        let list = list["deliveries"].as_array().unwrap().clone();
        list.iter().map(|delivery| delivery["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await, ["dark", ID]);
    assert_eq!(ids("?status=sent").await, ["dark", ID]);
    assert_eq!(ids("?carrier=viettel").await, [ID]);
    assert_eq!(ids("?phone=+84981234567").await, [ID]);
    let range = "from=2026-05-26T00:00:00Z&to=2026-05-27T00:00:00Z";
    // Twice: counted one by one, and summed up.
    for _ in 0..2 {
        let stats = api.get(&format!("/stats?{range}&by=carrier")).await.json();
        assert_eq!((&stats["total"]["sent"], &stats["total"]["cost"]), (&json!(2), &json!(0.022)), "{stats}");
        let groups: Vec<_> = stats["groups"].as_array().unwrap().iter().map(|group| &group["key"]).collect();
        assert_eq!(groups, [&Value::Null, &json!("viettel")], "{stats}");
        sum_up(&*api.store).await;
    }
}

async fn sum_up(store: &dyn Store) {
    let mut due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
    while let Some(hour) = store.sum_up(&due).await.unwrap() {
        due = due.after(hour);
    }
}

async fn a_wrong_body_is_named_and_keeps_nothing(database: Database) {
    let api = Api::start(&database).await;
    for (body, named) in [
        (r#"{"code":"482917"}"#, "unknown field `code`"),
        (r#"{"phone":"0981234567"}"#, "`phone` is not an E.164 phone number"),
        (r#"{"cost":"0.022"}"#, "`cost` is not an exact decimal"),
        (r#"{"created_at":"yesterday"}"#, "`created_at` is not an RFC 3339 time"),
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
    ] {
        let (status, error, message) = api.tell(ID, body).await.refusal();
        assert_eq!((status, error.as_str()), (400, "invalid_body"), "{body}");
        assert!(message.contains(named), "{body}: {message}");
    }
    let (status, error, _) = api.tell(&format!("{ID}?wait=1"), KNOWN).await.refusal();
    assert_eq!((status, error.as_str()), (400, "invalid_parameter"));
    assert_eq!(api.tell(&"x".repeat(256), KNOWN).await.status, 404);
    assert_eq!(api.store.delivery(&DeliveryId::parse(ID.into()).unwrap()).await.unwrap(), None);
}

async fn a_body_over_the_limit_is_refused(database: Database) {
    let api = Api::start(&database).await;
    let (status, error, message) = api.tell(ID, &" ".repeat(65_537)).await.refusal();
    assert_eq!((status, error.as_str()), (413, "body_too_large"));
    assert_eq!(message, "send a body of 65536 bytes at most");
    assert_eq!(api.tell(ID, &" ".repeat(65_536)).await.status, 200);
}

async fn a_body_that_comes_too_late_is_refused(database: Database) {
    let receiver = crate::support::receiver::Receiver::start_with(&database, |options| {
        options.http.body_timeout = std::time::Duration::from_millis(100);
    })
    .await;
    let mut wire = Wire::open(receiver.address()).await;
    let token = crate::support::http::API_TOKEN;
    wire.send(format!(
        "PUT /api/v1/deliveries/{ID} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\ncontent-length: 9\r\n\r\n{{"
    ))
    .await;
    let answer = wire.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.ends_with("request body came too late"), "{answer}");
}

async fn the_store_away_is_told(database: Database) {
    let receiver = crate::support::receiver::Receiver::start_with(&database, |options| {
        options.http.answer_timeout = std::time::Duration::from_millis(200);
    })
    .await;
    let hold = database.hold_writers().await;
    let path = format!("/api/v1/deliveries/{ID}");
    let told = tokio::time::timeout(PATIENCE, receiver.client().send_with(Method::PUT, &path, KNOWN)).await;
    let answer = told.unwrap();
    assert_eq!((answer.refusal().0, answer.refusal().1.as_str()), (503, "store_unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
    hold.close().await;
}
