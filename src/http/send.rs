//! `POST /send-otp`: an OTP passed on to the provider, in the provider's own form.
//!
//! Lives here: the request's fields and header, and what each end of a send is answered. Does not: who makes it, and
//! what is on record (`sending`).

use std::sync::Arc;

use axum::{
    extract::{RawQuery, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::{answer::json_text, body::BodyLimits, parameters, refusal::Refusal};
use crate::{
    phone::Phone,
    provider::{Code, Refusal as ProvidersRefusal},
    sending::{self, Sending, Told},
    store::sends::SendKey,
};

/// The header of draft-ietf-httpapi-idempotency-key-header.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that the answer is an earlier request's.
const AGAIN: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Where sends are taken in.
#[derive(Clone)]
pub(super) struct Counter {
    /// `None` when there is no key to call the provider with.
    pub(super) sending: Option<Arc<Sending>>,
    pub(super) limits: BodyLimits,
}

/// Sends an OTP.
pub(super) async fn send(
    State(counter): State<Counter>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Response> {
    let sending = counter.sending.ok_or_else(|| Refusal::NoProviderKey.into_response())?;
    parameters::none(query.as_deref()).map_err(Refusal::into_response)?;
    let key = key(request.headers()).map_err(Refusal::into_response)?;
    let body = counter.limits.read(request.into_body()).await?;
    let (phone, code) = fields(&body).map_err(Refusal::into_response)?;
    drop(body);
    let answer = sending.send(sending::Request { key, phone, code }).await;
    let again = answer.again;
    let mut response = shown(answer.told).unwrap_or_else(Refusal::into_response);
    if again {
        response.headers_mut().insert(AGAIN, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The caller's word for the request: a text in quotes, as the draft has it, or without.
fn key(headers: &HeaderMap) -> Result<Option<SendKey>, Refusal> {
    let mut given = headers.get_all(KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Refusal::InvalidKey("it is given more than once".into()));
    }
    let text = value.to_str().unwrap_or_default();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    SendKey::parse(bare).map(Some).map_err(|error| Refusal::InvalidKey(error.to_string()))
}

/// The provider's own fields. No message repeats a value.
fn fields(body: &[u8]) -> Result<(Phone, Code), Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        phone: String,
        code: String,
    }
    // serde would also take an array of two, and repeat the value of what is no text.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let fields = is_object.then(|| serde_json::from_slice::<Fields>(body).ok()).flatten();
    let form = r#"the body is not {"phone":"+84…","code":"4 to 8 digits"}, both texts and nothing else"#;
    let Fields { phone, code } = fields.ok_or_else(|| Refusal::InvalidBody(form.into()))?;
    let phone = Phone::parse(&phone).map_err(|_| Refusal::Providers(ProvidersRefusal::InvalidPhone))?;
    let code = Code::parse(&code).map_err(|_| Refusal::Providers(ProvidersRefusal::InvalidCode))?;
    Ok((phone, code))
}

/// What the caller is answered: the provider's own bytes where it has accepted.
fn shown(told: Told) -> Result<Response, Refusal> {
    Err(match told {
        Told::Accepted(body) => return Ok(json_text(StatusCode::ACCEPTED, body)),
        Told::Refused(refusal) => Refusal::Providers(refusal),
        Told::MayHaveBeenSent => Refusal::MayHaveBeenSent,
        Told::NotReached(reason) => {
            tracing::warn!(reason, "the provider was not reached: nothing was sent");
            Refusal::ProviderNotReached
        }
        Told::OtherRequest => Refusal::KeyOfAnotherRequest,
        Told::NotOnRecord(error) => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (KEY, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_key_may_stand_in_quotes() {
        for value in ["8e03978e", "\"8e03978e\""] {
            assert_eq!(key(&given(&[value])).unwrap().unwrap().as_str(), "8e03978e");
        }
        assert_eq!(key(&given(&[])).unwrap(), None);
        for wrong in [&[""][..], &["\"\""], &["a b"], &["a", "a"]] {
            assert!(matches!(key(&given(wrong)), Err(Refusal::InvalidKey(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_body_is_a_phone_and_a_code_and_nothing_else() {
        assert!(fields(br#"{"code":"482917","phone":"+84981234567"}"#).is_ok());
        for (body, error) in [
            (r#"{"phone":"0981234567","code":"482917"}"#, "invalid_phone"),
            (r#"{"phone":"+84981234567","code":"48"}"#, "invalid_code"),
            (r#"{"phone":"+84981234567","code":482917}"#, "invalid_body"),
            (r#"{"phone":"+84981234567"}"#, "invalid_body"),
            (r#"{"phone":"+84981234567","code":"482917","text":"x"}"#, "invalid_body"),
            (r#"["+84981234567","482917"]"#, "invalid_body"),
            ("", "invalid_body"),
        ] {
            let refusal = fields(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.code(), error, "{body}");
            assert!(!["981234567", "482917"].iter().any(|value| refusal.message().contains(value)));
        }
    }
}
