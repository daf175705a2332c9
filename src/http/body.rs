//! The body of a caller with a token: read whole, within its limit and deadline.
//!
//! Lives here: [`BodyLimits`]. Does not: a webhook's body, which nobody vouches for (`webhook`).

use std::time::Duration;

use axum::{
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::{
    Options,
    answer::{closing, text},
    refusal::Refusal,
};

/// How much, and within which time.
#[derive(Clone, Copy)]
pub(super) struct BodyLimits {
    bytes: usize,
    timeout: Duration,
}

impl BodyLimits {
    pub(super) fn new(options: &Options) -> Self {
        Self { bytes: options.body_bytes, timeout: options.body_timeout }
    }

    /// The whole body, or what to answer.
    pub(super) async fn read(self, body: Body) -> Result<Bytes, Response> {
        let too_large = || closing(Refusal::BodyTooLarge(self.bytes).into_response());
        // What the head announces, if it does.
        if body.size_hint().lower() > self.bytes as u64 {
            return Err(too_large());
        }
        match timeout(self.timeout, Limited::new(body, self.bytes).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => {
                Err(closing(Refusal::InvalidBody("the body was broken off".into()).into_response()))
            }
            Err(_) => Err(closing(text(StatusCode::REQUEST_TIMEOUT, "request body came too late"))),
        }
    }
}
