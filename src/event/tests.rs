//! What bodies say, and what of them is no event.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::*;
use crate::signature::Signature;

fn read(body: &[u8]) -> Result<Event, NotUnderstood> {
    let body = Bytes::copy_from_slice(body);
    let digest = Digest::of(&body);
    let verified = Verified::from_evidence(body, digest, Signature::from_bytes([0; 32]));
    match Arrival::understand(verified, Timestamp::from_micros(0).unwrap()).meaning {
        Meaning::Event(event, _) => Ok(event),
        Meaning::NotUnderstood(reason, _) => Err(reason),
    }
}

fn delivered() -> Value {
    json!({
        "type": "otp.delivered", "id": "8f2e1c4d", "phone": "+84981234567", "carrier": "viettel",
        "status": "delivered", "cost": 0.022, "error_code": null,
        "created_at": "2026-05-26T10:00:00Z", "completed_at": "2026-05-26T10:00:25Z",
    })
}

fn with(field: &str, value: Value) -> Vec<u8> {
    let mut event = delivered();
    event[field] = value;
    event.to_string().into_bytes()
}

#[test]
fn reads_the_guides_event() {
    let event = read(delivered().to_string().as_bytes()).unwrap();
    assert_eq!(event.kind, "otp.delivered");
    assert_eq!(event.told.id.as_str(), "8f2e1c4d");
    assert_eq!(event.told.phone.unwrap().reveal(), "+84981234567");
    assert_eq!(event.told.cost.unwrap().to_string(), "0.022");
    assert_eq!(event.told.error_code, None);
    assert_eq!(event.told.completed_at.unwrap().to_string(), "2026-05-26T10:00:25Z");
}

#[test]
fn keeps_the_digits_of_a_cost() {
    let body = delivered().to_string().replace("0.022", "0.1234567890123456789012345678");
    assert_eq!(
        read(body.as_bytes()).unwrap().told.cost.unwrap().to_string(),
        "0.1234567890123456789012345678"
    );
}

#[test]
fn takes_what_it_does_not_know_beside_a_known_status() {
    for body in [
        with("type", json!("otp.answered")),
        with("carrier", json!("itel")),
        with("carrier", json!("x".repeat(255))),
        with("attempt", json!({"deep": ["\u{0}", 1e300]})),
        with("created_at", Value::Null),
        with("completed_at", Value::Null),
        with("id", json!("mật-\"khẩu\"-🔐")),
    ] {
        assert!(read(&body).is_ok(), "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn a_missing_field_is_named() {
    for field in ["id", "status"] {
        let mut event = delivered();
        event.as_object_mut().unwrap().remove(field);
        assert_eq!(read(event.to_string().as_bytes()), Err(NotUnderstood::MissingField(field)));
        assert_eq!(read(&with(field, Value::Null)), Err(NotUnderstood::MissingField(field)));
    }
    for field in ["type", "phone", "carrier", "cost", "error_code", "created_at", "completed_at"] {
        let mut event = delivered();
        event.as_object_mut().unwrap().remove(field);
        assert!(read(event.to_string().as_bytes()).is_ok(), "{field}");
        assert!(read(&with(field, Value::Null)).is_ok(), "{field}");
    }
    let bare = read(br#"{"id":"a","status":"failed"}"#).unwrap();
    assert_eq!((bare.kind.as_str(), bare.told.phone, bare.told.cost), ("", None, None));
}

#[test]
fn an_ill_typed_field_is_named() {
    for (field, value) in [
        ("type", json!(1)),
        ("type", json!("a\u{0}b")),
        ("id", json!(17)),
        ("id", json!("")),
        ("id", json!("x".repeat(256))),
        ("id", json!("a\u{0}")),
        ("phone", json!("0981234567")),
        ("phone", json!(84_981_234_567_u64)),
        ("carrier", json!("x".repeat(256))),
        ("cost", json!("0.022")),
        ("cost", json!([])),
        ("error_code", json!(404)),
        ("created_at", json!("26/05/2026")),
        ("completed_at", json!(1_779_789_625)),
    ] {
        match read(&with(field, value.clone())) {
            Err(NotUnderstood::IllTypedField { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field} = {value}: {other:?}"),
        }
    }
    let lone_surrogate = delivered().to_string().replace("viettel", "\\ud800");
    assert_eq!(read(lone_surrogate.as_bytes()).unwrap_err().code(), "ill_typed_field");
    let huge = delivered().to_string().replace("0.022", "1e400000");
    assert_eq!(read(huge.as_bytes()).unwrap_err().code(), "ill_typed_field");
}

#[test]
fn anything_but_one_json_object_is_no_json() {
    let event = delivered().to_string();
    let twice = event.replace("\"cost\"", "\"id\":\"b\",\"cost\"");
    let array =
        json!(["otp.delivered", "a", "+84981234567", "viettel", "sent", 0, null, null, null]).to_string();
    for body in [
        "",
        "hello",
        "null",
        "[]",
        "{",
        &array,
        &twice,
        &format!("\u{feff}{event}"),
        &format!("{event}{event}"),
    ] {
        assert_eq!(read(body.as_bytes()).unwrap_err().code(), "not_json", "{body}");
    }
    assert_eq!(read(b"{\"type\":\"\xff\xfe\"}").unwrap_err().code(), "not_json");
}

#[test]
fn an_unknown_status_and_a_test_ping_are_told_apart() {
    assert_eq!(read(&with("status", json!("expired"))), Err(NotUnderstood::UnknownStatus));
    assert_eq!(read(&with("id", json!("test"))), Err(NotUnderstood::TestPing));
}

proptest! {
    #[test]
    fn never_panics(body in vec(any::<u8>(), 0..200)) {
        let _ = read(&body);
    }

    #[test]
    fn never_panics_on_broken_events(cut in any::<prop::sample::Index>(), noise in ".{0,8}") {
        let event = delivered().to_string();
        let at = cut.index(event.len());
        let _ = read(format!("{}{noise}{}", &event[..at], &event[at..]).as_bytes());
    }

    #[test]
    fn a_text_means_what_serde_json_says(id in "\\PC{1,40}", carrier in any::<String>()) {
        let mut event = delivered();
        event["id"] = json!(id);
        event["carrier"] = json!(carrier);
        prop_assume!(id != "test" && id.len() <= 255 && carrier.len() <= 255 && !carrier.contains('\0'));
        let told = read(event.to_string().as_bytes()).unwrap().told;
        prop_assert_eq!(told.id.as_str(), id);
        prop_assert_eq!(told.carrier, Some(carrier));
    }
}
