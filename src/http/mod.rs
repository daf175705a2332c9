//! All HTTP serving and nothing else.
//!
//! Lives here: every route and layer on one screen. Does not: SQL, waiting for a commit, what an event means.

pub(crate) mod answer;
pub mod bearer;
mod connection;
mod deliveries;
pub(crate) mod observe;
mod openapi;
pub(crate) mod operation;
mod parameters;
mod quarantine;
pub(crate) mod refusal;
pub(crate) mod serve;
mod stats;
pub mod webhook;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    response::{IntoResponse, Response},
    routing::{any, get, post_service},
};
use tower::Layer;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{metrics::Metrics, signature::Keyring, store::Store, writer::Writer};
use bearer::Tokens;
use operation::Readiness;
use refusal::Refusal;
use webhook::{Custody, SignatureLayer};

/// Limits of what callers may ask of the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a webhook's body at most.
    pub body_bytes: usize,
    /// Bytes of all webhooks' bodies together that may be in memory unverified at most.
    pub in_flight_bytes: usize,
    /// Open connections at most; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// How long a request's head may take from its first byte.
    pub head_timeout: Duration,
    /// How long a webhook's body may take as a whole.
    pub body_timeout: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// How long a caller may leave an answer unread.
    pub write_timeout: Duration,
    /// How long a webhook may wait for its commit before it is refused.
    pub answer_timeout: Duration,
}

/// What the routes need.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) writer: Writer,
    pub(crate) keyring: Keyring,
    pub(crate) tokens: Tokens,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
}

/// Every route and layer.
pub(crate) fn router(parts: Parts, options: &Options) -> Router {
    let Parts { store, writer, keyring, tokens, metrics, readiness } = parts;
    let bearer = middleware::from_fn_with_state(tokens, bearer::require);
    let signed = SignatureLayer::new(keyring, options, Arc::clone(&metrics));
    let custody = Custody::new(writer, options, Arc::clone(&metrics));

    let api = Router::new()
        .route("/deliveries", get(deliveries::list))
        .route("/deliveries/{id}", get(deliveries::one))
        .route("/deliveries/{id}/events", get(deliveries::events))
        .route("/stats", get(stats::stats))
        .route("/quarantine", get(quarantine::list))
        .route("/openapi.json", get(openapi::document))
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .fallback(async || Refusal::UNKNOWN_PATH)
        .layer(bearer.clone())
        .with_state(store);

    Router::new()
        .route("/webhooks/nexo", post_service(signed.layer(custody)))
        .nest("/api/v1", api)
        // What `nest` leaves out; under the API nothing is told without a token.
        .route("/api/v1/", any(async || Refusal::UNKNOWN_PATH).layer(bearer.clone()))
        .route("/healthz", get(operation::healthz))
        .route("/readyz", get(operation::readyz).with_state(readiness))
        .route("/metrics", get(operation::metrics).layer(bearer).with_state(Arc::clone(&metrics)))
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .fallback(async || Refusal::UNKNOWN_PATH)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(metrics, observe::observe))
}

/// A panic is a fault of ours and ends one request, not the service.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Refusal::Internal.into_response()
}
