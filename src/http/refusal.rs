//! Every refusal in JSON: `{"ok":false,"error":"<code>","message":"<what to do>"}`, the provider's own shape.
//!
//! Lives here: codes, statuses, headers. Does not: the webhook's answers, which are plain text (`webhook`).

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::answer::json;
use crate::store::StoreError;

/// Why a call was refused. No message holds a parameter's value: it may be a phone number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
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
    /// The path knows other methods; the router adds `Allow`.
    MethodNotAllowed,
    /// The webhook's path knows one method only.
    NotAPost,
    /// The store does not answer now.
    StoreUnavailable,
    /// A fault of ours; the log says which.
    Internal,
}

#[derive(Serialize)]
struct Body<'a> {
    ok: bool,
    error: &'a str,
    message: &'a str,
}

impl Refusal {
    /// No such path.
    pub(crate) const UNKNOWN_PATH: Self =
        Self::NotFound("no such path: the API's base is /api/v1, and /api/v1/openapi.json describes it");

    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::InvalidParameter(_) | Self::InvalidBody(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MethodNotAllowed | Self::NotAPost => StatusCode::METHOD_NOT_ALLOWED,
            Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::NotFound(_) => "not_found",
            Self::InvalidParameter(_) => "invalid_parameter",
            Self::InvalidBody(_) => "invalid_body",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::MethodNotAllowed | Self::NotAPost => "method_not_allowed",
            Self::StoreUnavailable => "store_unavailable",
            Self::Internal => "internal",
        }
    }

    fn message(&self) -> Cow<'_, str> {
        let message = match self {
            Self::Unauthorized => {
                "send one header `Authorization: Bearer <token>` with an API token of this service"
            }
            Self::NotFound(message) => message,
            Self::InvalidParameter(message) | Self::InvalidBody(message) => message,
            Self::BodyTooLarge(limit) => return format!("send a body of {limit} bytes at most").into(),
            Self::MethodNotAllowed | Self::NotAPost => "use a method that the `Allow` header names",
            Self::StoreUnavailable => "the store does not answer: try again in a second",
            Self::Internal => "the service failed to answer: its log says why",
        };
        message.into()
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Unauthorized => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::NotAPost => Some((header::ALLOW, HeaderValue::from_static("POST"))),
            Self::StoreUnavailable => Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Body { ok: false, error: self.code(), message: &self.message() };
        let mut response = json(self.status(), &body);
        response.headers_mut().extend(self.header());
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "a question went unanswered");
                Self::StoreUnavailable
            }
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
