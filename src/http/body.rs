//! The body of a caller with a token: read whole, within its limit and deadline.
//!
//! Lives here: [`BodyLimits`], and whether a body was read at all ([`Followed`]). Does not: a webhook's body, which nobody
//! vouches for (`webhook`).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    Options,
    answer::{closing, text},
    refusal::Refusal,
};

/// The answer to a body that keeps us waiting.
pub(super) const BODY_TOO_SLOW: &str = "request body came too late";

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
            Err(_) => Err(closing(text(StatusCode::REQUEST_TIMEOUT, BODY_TOO_SLOW))),
        }
    }
}

/// A request's body that tells whether it was read to its end. If it was not, its connection can't be used again: what
/// is still to come would be taken for the next request.
pub(super) struct Followed {
    body: Incoming,
    was_read: Arc<AtomicBool>,
}

impl Followed {
    /// The body, and whether it was read.
    pub(super) fn new(body: Incoming) -> (Self, Arc<AtomicBool>) {
        let was_read = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, was_read: Arc::clone(&was_read) }, was_read)
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if matches!(poll, Poll::Ready(None)) || self.body.is_end_stream() {
            self.was_read.store(true, Ordering::Relaxed);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
