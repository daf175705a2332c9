//! `POST /webhooks/nexo`: from a request's raw bytes to custody, or to a refusal.
//!
//! Lives here: the signature layer, which reads the body within its limits and hands on [`Verified`] bytes, and the
//! handler behind it. Does not: the HMAC (`signature`), the commit (`writer`).
//!
//! The handler takes a `Request<Verified>`. Nothing but the layer makes one, so that the handler can't stand where
//! requests come in:
//!
//! ```compile_fail,E0277
//! # use nexo_receiver::http::webhook::{Custody, Handle};
//! fn serve(webhook: impl Handle<http::Request<axum::body::Body>>) {}
//! # fn mount(custody: Custody) {
//! serve(custody);
//! # }
//! ```

use std::{future::Future, sync::Arc, time::Duration};

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use tokio::sync::Semaphore;
use tower::Layer;

use super::{
    Options,
    answer::{closing, text},
    body::{self, BODY_TOO_SLOW, read_whole},
    deadline::Deadlines,
    strangers::Problem,
};
use crate::{
    clock::Timestamp,
    event::Arrival,
    metrics::{Fate, Metrics},
    signature::{Keyring, Signature, Verified},
    writer::{NotKept, Writer},
};

/// The header that carries the signature (provider's guide).
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("x-nexo-signature");

/// What is known of a request beside itself.
pub struct Call<'a> {
    pub(super) deadlines: &'a Deadlines,
}

/// What answers a request: as tower's `Service`, but with one future for all layers rather than a box for each.
pub trait Handle<R> {
    /// Answers one request.
    fn handle(&self, request: R, call: &Call<'_>) -> impl Future<Output = Response> + Send;
}

/// Lets through only what is signed: the inner service takes `Request<Verified>`.
#[derive(Clone)]
pub struct SignatureLayer(Arc<Gate>);

struct Gate {
    keyring: Keyring,
    body_bytes: usize,
    body_timeout: Duration,
    /// Bytes of bodies that may be in memory before they are verified and queued.
    room: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl SignatureLayer {
    /// A layer that knows the active secrets and the limits of a body.
    #[must_use]
    pub fn new(keyring: Keyring, options: &Options, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Gate {
            keyring,
            body_bytes: options.body_bytes,
            body_timeout: options.body_timeout,
            room: Arc::new(Semaphore::new(options.in_flight_bytes)),
            metrics,
        }))
    }
}

impl<S> Layer<S> for SignatureLayer {
    type Service = CheckSignature<S>;

    fn layer(&self, inner: S) -> CheckSignature<S> {
        CheckSignature { gate: Arc::clone(&self.0), inner }
    }
}

/// The layer around its inner service.
pub struct CheckSignature<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S, B> Handle<Request<B>> for CheckSignature<S>
where
    S: Handle<Request<Verified>> + Sync,
    B: http_body::Body<Data = Bytes> + Send + Unpin,
{
    async fn handle(&self, request: Request<B>, call: &Call<'_>) -> Response {
        match self.gate.admit(request, call).await {
            Ok(verified) => self.inner.handle(verified, call).await,
            Err((fate, response)) => {
                self.gate.metrics.count(fate);
                response
            }
        }
    }
}

type Refused = (Fate, Response);

impl Gate {
    async fn admit<B>(&self, request: Request<B>, call: &Call<'_>) -> Result<Request<Verified>, Refused>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        let read = read_whole(body, self.body_bytes, &self.room);
        let (body, _room) = match call.deadlines.within(self.body_timeout, read).await {
            Some(Ok(whole)) => whole.into_bytes(),
            Some(Err(problem)) => return Err(self.refuse(problem)),
            None => {
                let response = closing(text(StatusCode::REQUEST_TIMEOUT, BODY_TOO_SLOW));
                return Err((Fate::TooSlow, response));
            }
        };
        match self.verify(&head.headers, body) {
            Ok(verified) => Ok(Request::from_parts(head, verified)),
            Err(problem) => {
                let mut response = text(StatusCode::UNAUTHORIZED, "bad signature");
                response.extensions_mut().insert(Problem(problem));
                Err((Fate::BadSignature, response))
            }
        }
    }

    fn verify(&self, headers: &HeaderMap, body: Bytes) -> Result<Verified, &'static str> {
        let mut values = headers.get_all(&SIGNATURE).iter();
        let value = values.next().ok_or("X-NEXO-Signature is missing")?;
        if values.next().is_some() {
            return Err("X-NEXO-Signature is repeated");
        }
        let signature = Signature::parse(value.as_bytes())
            .map_err(|_| "X-NEXO-Signature is not `sha256=` and 64 lower-case hex digits")?;
        self.keyring
            .verify(body, signature)
            .map_err(|_| "not the signature of these bytes under any active secret")
    }

    fn refuse(&self, problem: body::Problem) -> Refused {
        let (fate, response) = match problem {
            body::Problem::TooLarge => {
                let message = format!("the body is over {} bytes", self.body_bytes);
                (Fate::TooLarge, text(StatusCode::PAYLOAD_TOO_LARGE, message))
            }
            body::Problem::BrokenOff => {
                (Fate::BrokenOff, text(StatusCode::BAD_REQUEST, "the body was broken off"))
            }
            body::Problem::NoRoom => (Fate::Full, busy()),
        };
        (fate, closing(response))
    }
}

/// Takes verified bytes into custody, and answers once they are committed.
pub struct Custody {
    writer: Writer,
    answer_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Custody {
    /// A handler that hands over to the writer.
    #[must_use]
    pub fn new(writer: Writer, options: &Options, metrics: Arc<Metrics>) -> Self {
        Self { writer, answer_timeout: options.answer_timeout, metrics }
    }

    async fn keep(&self, verified: Verified, deadlines: &Deadlines) -> Fate {
        let arrival = Arrival::understand(verified, Timestamp::now());
        let Ok(answer) = self.writer.submit(arrival) else { return Fate::Full };
        match deadlines.within(self.answer_timeout, answer).await {
            Some(Ok(Ok(outcome))) => Fate::Kept(outcome),
            Some(Ok(Err(NotKept::Contended))) => Fate::Contended,
            Some(Ok(Err(NotKept::Refused(_)))) => Fate::Refused,
            // The writer gone, or too late: it may be committed yet, but nothing is promised.
            Some(Ok(Err(NotKept::Unavailable)) | Err(_)) | None => Fate::StoreUnavailable,
        }
    }
}

impl Handle<Request<Verified>> for Custody {
    async fn handle(&self, request: Request<Verified>, call: &Call<'_>) -> Response {
        let fate = self.keep(request.into_body(), call.deadlines).await;
        self.metrics.count(fate);
        match fate {
            Fate::Kept(_) => text(StatusCode::OK, "ok"),
            _ => busy(),
        }
    }
}

fn busy() -> Response {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "not kept: send it again");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
