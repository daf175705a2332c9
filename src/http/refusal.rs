//! Every refusal in JSON: `{"ok":false,"error":"<code>","message":"<what to do>"}`, the provider's own shape.
//!
//! Lives here: codes, statuses, headers. Does not: the webhook's answers, which are plain text (`webhook`).

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::answer::json;
use crate::{provider, store::StoreError};

/// Why a call was refused. No message holds a parameter's value: it may be a phone number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No token, or not an active one.
    Unauthorized,
    /// Nothing is here; what, or where else to look.
    NotFound(&'static str),
    /// A parameter is wrong; which, and what would be right.
    InvalidParameter(String),
    /// The body is wrong; what of it, and what would be right.
    InvalidBody(String),
    /// The body is over the limit of so many bytes.
    BodyTooLarge(usize),
    /// The header `Idempotency-Key` is wrong; what of it.
    InvalidKey(String),
    /// The key stands for a request with another body.
    KeyOfAnotherRequest,
    /// There is no key to call the provider with.
    NoProviderKey,
    /// Commits do not note what they change.
    NoChanges,
    /// What changed since is no longer kept, or never was here.
    ChangesExpired,
    /// The provider says no.
    Providers(provider::Refusal),
    /// The provider was not reached; nothing was sent.
    ProviderNotReached,
    /// A send of which nobody knows whether it was made.
    MayHaveBeenSent,
    /// The path knows other methods; the router adds `Allow`.
    MethodNotAllowed,
    /// The webhook's path knows one method only.
    NotAPost,
    /// The database refuses what was to be kept; what it says.
    RefusedByStore(String),
    /// Another transaction has locked the delivery.
    DeliveryLocked,
    /// Too much is under way already.
    Busy,
    /// The store does not answer now.
    StoreUnavailable,
    /// What was asked for cannot be read; what of it.
    Unreadable(String),
    /// A fault of ours; the log says which.
    Internal,
}

#[derive(Serialize)]
struct Body<'a> {
    ok: bool,
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deposit_url: Option<&'a str>,
}

impl Refusal {
    /// No such path.
    pub(crate) const UNKNOWN_PATH: Self =
        Self::NotFound("no such path: the API's base is /api/v1, and /api/v1/openapi.json describes it");

    /// No such path, and likely not meant for the API.
    pub(crate) const WEBHOOK_ELSEWHERE: Self = Self::NotFound(
        "no such path: webhooks are taken by POST /webhooks/nexo, without a slash at the end: set exactly this path at \
         the provider, and in what forwards to this service",
    );

    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::InvalidParameter(_) | Self::InvalidBody(_) | Self::InvalidKey(_) => StatusCode::BAD_REQUEST,
            Self::KeyOfAnotherRequest | Self::RefusedByStore(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoProviderKey | Self::NoChanges => StatusCode::NOT_IMPLEMENTED,
            Self::ChangesExpired => StatusCode::GONE,
            Self::Providers(refusal) => status_of(refusal),
            Self::MayHaveBeenSent => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MethodNotAllowed | Self::NotAPost => StatusCode::METHOD_NOT_ALLOWED,
            Self::StoreUnavailable | Self::DeliveryLocked | Self::ProviderNotReached | Self::Busy => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreadable(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn code(&self) -> &str {
        match self {
            Self::InvalidKey(_) => "invalid_idempotency_key",
            Self::KeyOfAnotherRequest => "idempotency_key_reused",
            Self::NoProviderKey => "no_provider_key",
            Self::NoChanges => "no_changes",
            Self::ChangesExpired => "position_expired",
            Self::Providers(provider::Refusal::Unauthorized) => "provider_key_refused",
            Self::Providers(provider::Refusal::NoSuchCall) => "provider_has_no_such_call",
            Self::Providers(refusal) => refusal.word(),
            Self::ProviderNotReached => "provider_not_reached",
            Self::MayHaveBeenSent => "may_have_been_sent",
            Self::Unauthorized => "unauthorized",
            Self::NotFound(_) => "not_found",
            Self::InvalidParameter(_) => "invalid_parameter",
            Self::InvalidBody(_) => "invalid_body",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::MethodNotAllowed | Self::NotAPost => "method_not_allowed",
            Self::RefusedByStore(_) => "refused_by_store",
            Self::DeliveryLocked => "delivery_locked",
            Self::Busy => "busy",
            Self::StoreUnavailable => "store_unavailable",
            Self::Unreadable(_) => "unreadable",
            Self::Internal => "internal",
        }
    }

    /// What is wrong and what to do, in a sentence.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        let message = match self {
            Self::InvalidKey(problem) => {
                return format!("the header `Idempotency-Key` is wrong: {problem}").into();
            }
            Self::KeyOfAnotherRequest => {
                "this `Idempotency-Key` stands for a request with another phone or code: take a new one"
            }
            Self::NoChanges => "this service does not note what changes: set STORE_CHANGES=true",
            Self::ChangesExpired => {
                "what changed since then is no longer kept: read GET /api/v1/deliveries, then follow again without an id"
            }
            Self::NoProviderKey => "this service has no key for the provider: set NEXO_KEY",
            Self::Providers(refusal) => return refusal.to_string().into(),
            Self::ProviderNotReached => {
                "the provider was not reached, and nothing was sent: try again in a second"
            }
            Self::MayHaveBeenSent => {
                "the provider's answer is missing: it may have been sent and charged, and is not sent again by itself; \
                 see whether GET /api/v1/deliveries?phone=… has it in a minute before you send another"
            }
            Self::Unauthorized => {
                "send one header `Authorization: Bearer <token>` with an API token of this service"
            }
            Self::NotFound(message) => message,
            Self::InvalidParameter(message) | Self::InvalidBody(message) => message,
            Self::Unreadable(what) => {
                return format!(
                    "{what}. Others are not affected: `nexo-receiver rebuild --check` lists every such row"
                )
                .into();
            }
            Self::BodyTooLarge(limit) => return format!("send a body of {limit} bytes at most").into(),
            Self::MethodNotAllowed | Self::NotAPost => "use a method that the `Allow` header names",
            Self::RefusedByStore(why) => {
                return format!(
                    "the database refuses to keep this, and would again ({why}): send other values, or have the database put right"
                )
                .into();
            }
            Self::DeliveryLocked => "another transaction has locked this delivery: try again in a second",
            Self::Busy => {
                "too many bodies are being sent, or answers being read, at this time: try again in a second"
            }
            Self::StoreUnavailable => "the store does not answer: try again in a second",
            Self::Internal => "the service failed to answer: its log says why",
        };
        message.into()
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Unauthorized => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::NotAPost => Some((header::ALLOW, HeaderValue::from_static("POST"))),
            Self::StoreUnavailable | Self::DeliveryLocked | Self::ProviderNotReached | Self::Busy => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("1")))
            }
            Self::Providers(provider::Refusal::TooManyCalls { retry_after }) => {
                let seconds = retry_after.map_or(1, |time| time.as_secs().max(1));
                Some((header::RETRY_AFTER, HeaderValue::from(seconds)))
            }
            _ => None,
        }
    }
}

/// The statuses of most of the provider's refusals are not documented: these are ours.
fn status_of(refusal: &provider::Refusal) -> StatusCode {
    use provider::Refusal;
    match refusal {
        Refusal::InvalidPhone | Refusal::InvalidCode | Refusal::Other(_) => StatusCode::BAD_REQUEST,
        Refusal::InsufficientBalance { .. } => StatusCode::PAYMENT_REQUIRED,
        Refusal::NoRoute => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::IpNotAllowed => StatusCode::FORBIDDEN,
        Refusal::NotFound => StatusCode::NOT_FOUND,
        Refusal::TooManyCalls { .. } => StatusCode::TOO_MANY_REQUESTS,
        // The caller's own token and path were right.
        Refusal::Unauthorized | Refusal::NoSuchCall => StatusCode::BAD_GATEWAY,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let deposit_url = match &self {
            Self::Providers(refusal) => refusal.deposit_url(),
            _ => None,
        };
        let body = Body { ok: false, error: self.code(), message: &self.message(), deposit_url };
        let mut response = json(self.status(), &body);
        response.headers_mut().extend(self.header());
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Contended(_) => {
                tracing::warn!(%error, "a question went unanswered");
                Self::StoreUnavailable
            }
            // Whoever met the row has logged it.
            StoreError::Unreadable(row) => Self::Unreadable(row.to_string()),
            StoreError::Refused(_) | StoreError::Corrupt(_) | StoreError::Broken(_) => {
                tracing::error!(%error, "a question could not be answered");
                Self::Internal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_is_asked_again_and_its_faults_are_told_nobody() {
        let away = Refusal::from(StoreError::Unavailable("10.0.0.7 refused".into()));
        assert_eq!(away, Refusal::StoreUnavailable);
        let answer = away.into_response();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (503, &HeaderValue::from(1))
        );
        for fault in [StoreError::Corrupt("row 7".into()), StoreError::Refused("row 7".into())] {
            let fault = Refusal::from(fault);
            assert_eq!(fault, Refusal::Internal);
            assert!(!fault.message().contains("row 7"));
            assert_eq!(fault.into_response().status(), 500);
        }
    }
}
