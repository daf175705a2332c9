//! What a caller of the API tells of an OTP that it has sent by itself.
//!
//! Lives here: the only parsing of such a body. Does not: HTTP, nor how little it counts beside what the provider says,
//! which is `delivery`'s.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, Source, Standing, Status},
    event::{Arrival, Event, Meaning, NotUnderstood, cost, label, phone, time},
    proof::Proof,
};

/// What stands as the event's kind.
const KIND: &str = "watch";

/// What is wrong with a body, in a sentence. It repeats names of fields, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidWatch(String);

/// All that may be told; null is as good as missing. A field that is not known is refused: it may be the code.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    phone: Option<&'a RawValue>,
    #[serde(borrow)]
    carrier: Option<&'a RawValue>,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
}

/// Reads what a caller tells of an OTP: that it was sent, at least. An empty body tells no more than that.
///
/// # Errors
/// [`InvalidWatch`].
pub fn watched(id: DeliveryId, body: Bytes, received_at: Timestamp) -> Result<Arrival, InvalidWatch> {
    let fields = fields(&body)?;
    let known = |raw: Option<&RawValue>| raw.filter(|raw| raw.get() != "null").map(RawValue::to_owned);
    let proof = Proof::unsigned(body.clone());
    let told = Delivery {
        id,
        phone: known(fields.phone).map(|raw| phone(Some(&raw))).transpose()?,
        carrier: known(fields.carrier).map(|raw| label("carrier", Some(&raw))).transpose()?,
        status: Status::Sent,
        cost: known(fields.cost).map(|raw| cost(Some(&raw))).transpose()?,
        error_code: None,
        created_at: known(fields.created_at).map(|raw| time("created_at", Some(&raw))).transpose()?.flatten(),
        completed_at: None,
        received_at,
        source: Source::Send,
        standing: Standing::of_a_word(proof.digest()),
    };
    let event = Event { kind: KIND.to_owned(), told };
    Ok(Arrival { received_at, times: 1, meaning: Meaning::Event(event, proof) })
}

fn fields(body: &[u8]) -> Result<Fields<'_>, InvalidWatch> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Ok(Fields::default());
    }
    // serde would also take an array of four, and repeat the value of anything else.
    if !body.starts_with(b"{") {
        return Err(InvalidWatch("the body is no JSON object".into()));
    }
    serde_json::from_slice(body).map_err(|error| {
        let name: String = error.to_string().chars().take(200).flat_map(char::escape_debug).collect();
        InvalidWatch(format!("the body is no JSON object of known fields: {}", name.replace("\\'", "'")))
    })
}

impl From<NotUnderstood> for InvalidWatch {
    fn from(problem: NotUnderstood) -> Self {
        Self(problem.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Delivery, String> {
        let id = DeliveryId::parse("a".into()).unwrap();
        let arrival = watched(id, Bytes::copy_from_slice(body.as_bytes()), Timestamp::EARLIEST);
        arrival.map(|arrival| arrival.event().unwrap().told.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_is_optional() {
        for nothing in ["", " \n", "{}", r#"{"phone":null,"cost":null}"#] {
            let told = read(nothing).unwrap();
            assert_eq!((told.phone, told.carrier, told.cost, told.created_at), (None, None, None, None));
        }
        let told = read(
            r#"{"phone":"+84981234567","carrier":"viettel","cost":0.022,"created_at":"2026-05-26T10:00:00Z"}"#,
        );
        let told = told.unwrap();
        assert_eq!(told.phone.unwrap().reveal(), "+84981234567");
        assert_eq!(told.cost.unwrap().to_string(), "0.022");
        assert_eq!(told.created_at.unwrap().to_string(), "2026-05-26T10:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        for (body, problem) in [
            (
                r#"{"code":"482917"}"#,
                "unknown field `code`, expected one of `phone`, `carrier`, `cost`, `created_at`",
            ),
            (r#"{"cost":1,"cost":2}"#, "duplicate field `cost`"),
            (r#"{"phone":"0981234567"}"#, "`phone` is not an E.164 phone number"),
            (r#"{"phone":84981234567}"#, "`phone` is not a text"),
            (r#"{"cost":"0.022"}"#, "`cost` is not an exact decimal"),
            (r#"{"created_at":"yesterday"}"#, "`created_at` is not an RFC 3339 time"),
            ("\"0981234567\"", "the body is no JSON object"),
            ("[]", "the body is no JSON object"),
            ("{", "the body is no JSON object of known fields: EOF"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(problem), "{body}: {error}");
            assert!(
                !["482917", "981234567", "yesterday"].iter().any(|value| error.contains(value)),
                "{error}"
            );
        }
    }
}
