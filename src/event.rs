//! What verified bytes say: the only parsing of a body.
//!
//! Lives here: [`Arrival`], [`Event`], [`NotUnderstood`]. Does not: which event wins (`delivery`). Understanding
//! never fails: what is no event this version knows is kept for a later one, with the reason.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, LONGEST_TEXT, Source, Standing, Status},
    money::Money,
    phone::Phone,
    signature::Verified,
};

/// The id of the provider's hand-made test event (its cURL guide). No OTP was sent, so it is no delivery.
const TEST_PING_ID: &str = "test";

/// Verified bytes, when they came, and what they say.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The evidence.
    pub verified: Verified,
    /// When it came; for one out of quarantine, when it first came.
    pub received_at: Timestamp,
    /// How many times it came: once, or as often as quarantine counted.
    pub times: u64,
    /// What it says.
    pub meaning: Result<Event, NotUnderstood>,
}

impl Arrival {
    /// Reads what the bytes say.
    #[must_use]
    pub fn understand(verified: Verified, received_at: Timestamp) -> Self {
        let meaning = Event::parse(&verified, received_at);
        Self { verified, received_at, times: 1, meaning }
    }
}

/// An event of the provider's: the state that it alone tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The provider's word for what happened, `otp.delivered` or `otp.failed` so far; new ones may come.
    pub kind: String,
    /// The state it tells of its OTP.
    pub told: Delivery,
}

/// Why verified bytes are no event that this version understands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotUnderstood {
    /// Not a JSON object in UTF-8, or one that names a field twice.
    #[error("not a JSON object: {0}")]
    NotJson(String),
    /// A field that every event has is missing or null.
    #[error("`{0}` is missing")]
    MissingField(&'static str),
    /// A field holds what it can't.
    #[error("`{field}` is {problem}")]
    IllTypedField {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it; never its value.
        problem: String,
    },
    /// A status that this version does not know.
    #[error("`status` is none of sent, delivered, failed")]
    UnknownStatus,
    /// The provider's test ping.
    #[error("a test ping (id `{TEST_PING_ID}`): no OTP was sent")]
    TestPing,
    /// An event, but the database refused to hold it.
    #[error("the database refused to keep it as an event")]
    RefusedByStore,
}

impl NotUnderstood {
    /// A word for the reason, for filters and metrics; one of a fixed few.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "not_json",
            Self::MissingField(_) => "missing_field",
            Self::IllTypedField { .. } => "ill_typed_field",
            Self::UnknownStatus => "unknown_status",
            Self::TestPing => "test_ping",
            Self::RefusedByStore => "refused_by_store",
        }
    }
}

/// The fields of an event (provider's guide), each as its own text, so that a number keeps its digits and an
/// ill-typed field can be named.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    phone: Option<&'a RawValue>,
    #[serde(borrow)]
    carrier: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    completed_at: Option<&'a RawValue>,
}

impl Event {
    /// Parses a body. `error_code`, `created_at` and `completed_at` may be null or missing; all else must be there.
    fn parse(verified: &Verified, received_at: Timestamp) -> Result<Self, NotUnderstood> {
        let fields = fields(verified.body())?;
        let id = text("id", fields.id)?;
        if id == TEST_PING_ID {
            return Err(NotUnderstood::TestPing);
        }
        let id = DeliveryId::parse(id.into_owned()).map_err(|error| ill_typed("id", error))?;
        let status = Status::parse(&text("status", fields.status)?).ok_or(NotUnderstood::UnknownStatus)?;
        let completed_at = time("completed_at", fields.completed_at)?;
        Ok(Self {
            kind: label("type", fields.r#type)?,
            told: Delivery {
                id,
                phone: Phone::parse(&text("phone", fields.phone)?)
                    .map_err(|error| ill_typed("phone", error))?,
                carrier: label("carrier", fields.carrier)?,
                status,
                cost: cost(fields.cost)?,
                error_code: fields.error_code.map(|raw| label("error_code", Some(raw))).transpose()?,
                created_at: time("created_at", fields.created_at)?,
                completed_at,
                received_at,
                source: Source::Webhook,
                standing: Standing::new(status, completed_at, verified.digest()),
            },
        })
    }
}

fn fields(body: &[u8]) -> Result<Fields<'_>, NotUnderstood> {
    let body = std::str::from_utf8(body).map_err(|_| NotUnderstood::NotJson("not UTF-8".into()))?;
    // serde would also take an array of nine for the nine fields.
    if !body.trim_start().starts_with('{') {
        return Err(NotUnderstood::NotJson("no `{` at its start".into()));
    }
    serde_json::from_str(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let problem = if error.is_data() { "a field is named twice" } else { "a syntax error" };
        NotUnderstood::NotJson(format!("{problem} at {place}"))
    })
}

fn ill_typed(field: &'static str, problem: impl ToString) -> NotUnderstood {
    NotUnderstood::IllTypedField { field, problem: problem.to_string() }
}

fn text<'a>(field: &'static str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, NotUnderstood> {
    let raw = raw.ok_or(NotUnderstood::MissingField(field))?.get();
    // Most texts hold no escape, and are then their own value.
    if let Some(plain) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        && !plain.contains('\\')
    {
        return Ok(Cow::Borrowed(plain));
    }
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| ill_typed(field, "not a text"))
}

/// A text that is kept as a field of its own, so that it has to fit an index and a database's text.
fn label(field: &'static str, raw: Option<&RawValue>) -> Result<String, NotUnderstood> {
    let text = text(field, raw)?;
    if text.len() > LONGEST_TEXT {
        return Err(ill_typed(field, format!("longer than {LONGEST_TEXT} bytes")));
    }
    if text.contains('\0') {
        return Err(ill_typed(field, "a text with U+0000"));
    }
    Ok(text.into_owned())
}

fn cost(raw: Option<&RawValue>) -> Result<Money, NotUnderstood> {
    let raw = raw.ok_or(NotUnderstood::MissingField("cost"))?.get();
    Money::parse(raw).map_err(|error| ill_typed("cost", error))
}

fn time(field: &'static str, raw: Option<&RawValue>) -> Result<Option<Timestamp>, NotUnderstood> {
    raw.map(|raw| Timestamp::parse(&text(field, Some(raw))?).map_err(|error| ill_typed(field, error)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};

    use super::*;
    use crate::signature::{Digest, Signature};

    fn read(body: &[u8]) -> Result<Event, NotUnderstood> {
        let body = Bytes::copy_from_slice(body);
        let digest = Digest::of(&body);
        let verified = Verified::from_evidence(body, digest, Signature::from_bytes([0; 32]));
        Arrival::understand(verified, Timestamp::from_micros(0).unwrap()).meaning
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
        assert_eq!(event.told.phone.reveal(), "+84981234567");
        assert_eq!(event.told.cost.to_string(), "0.022");
        assert_eq!(event.told.error_code, None);
        assert_eq!(event.told.completed_at.unwrap().to_string(), "2026-05-26T10:00:25Z");
    }

    #[test]
    fn keeps_the_digits_of_a_cost() {
        let body = delivered().to_string().replace("0.022", "0.1234567890123456789012345678");
        assert_eq!(read(body.as_bytes()).unwrap().told.cost.to_string(), "0.1234567890123456789012345678");
    }

    #[test]
    fn takes_what_it_does_not_know_beside_a_known_status() {
        for body in [
            with("type", json!("otp.answered")),
            with("carrier", json!("itel")),
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
        for field in ["type", "id", "phone", "carrier", "status", "cost"] {
            let mut event = delivered();
            event.as_object_mut().unwrap().remove(field);
            assert_eq!(read(event.to_string().as_bytes()), Err(NotUnderstood::MissingField(field)));
            assert_eq!(read(&with(field, Value::Null)), Err(NotUnderstood::MissingField(field)));
        }
        for field in ["error_code", "created_at", "completed_at"] {
            let mut event = delivered();
            event.as_object_mut().unwrap().remove(field);
            assert!(read(event.to_string().as_bytes()).is_ok(), "{field}");
        }
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
            prop_assert_eq!(told.carrier, carrier);
        }
    }
}
