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
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Layer;

use super::{
    Options,
    answer::{closing, text},
    body::BODY_TOO_SLOW,
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
        let (body, _room) = match call.deadlines.within(self.body_timeout, self.read(body)).await {
            Some(read) => read?,
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

    /// Reads a body whole, within the limit; the bytes that it takes are counted against all that are in flight.
    async fn read<B>(&self, mut body: B) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refused>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        // What the head announces, if it does.
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > self.body_bytes {
            return Err(self.too_large());
        }
        let mut whole = Whole::Nothing;
        let mut room: Option<OwnedSemaphorePermit> = None;
        while !body.is_end_stream()
            && let Some(frame) = body.frame().await
        {
            let Ok(frame) = frame else {
                return Err((
                    Fate::BrokenOff,
                    closing(text(StatusCode::BAD_REQUEST, "the body was broken off")),
                ));
            };
            // Trailers are no part of what is signed.
            let Ok(bytes) = frame.into_data() else { continue };
            if whole.len() + bytes.len() > self.body_bytes {
                return Err(self.too_large());
            }
            // What is whole is verified at once, and needs no room to wait in.
            if !body.is_end_stream() {
                let count = u32::try_from(bytes.len()).ok();
                let taken = count.and_then(|count| Arc::clone(&self.room).try_acquire_many_owned(count).ok());
                let Some(taken) = taken else { return Err((Fate::Full, closing(busy()))) };
                match &mut room {
                    Some(room) => room.merge(taken),
                    None => room = Some(taken),
                }
            }
            whole.push(bytes, announced);
        }
        Ok((whole.into_bytes(), room))
    }

    fn too_large(&self) -> Refused {
        let message = format!("the body is over {} bytes", self.body_bytes);
        (Fate::TooLarge, closing(text(StatusCode::PAYLOAD_TOO_LARGE, message)))
    }
}

/// A body as it comes in; most come in one piece and are not copied.
enum Whole {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Whole {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    /// Adds a piece of a body of, if that was announced, so many bytes: memory for more is not taken.
    fn push(&mut self, more: Bytes, announced: usize) {
        *self = match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Self::One(more),
            Self::One(first) => {
                let mut bytes = BytesMut::with_capacity(announced.max(first.len() + more.len()));
                bytes.extend_from_slice(&first);
                bytes.extend_from_slice(&more);
                Self::Many(bytes)
            }
            Self::Many(mut bytes) => {
                bytes.extend_from_slice(&more);
                Self::Many(bytes)
            }
        };
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
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
