//! All HTTP serving and nothing else.
//!
//! Lives here: every route and layer on one screen. Does not: SQL, waiting for a commit, what an event means.

pub(crate) mod answer;
pub mod bearer;
mod deliveries;
mod openapi;
mod parameters;
mod quarantine;
pub(crate) mod refusal;
mod stats;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};

use crate::store::Store;
use bearer::Tokens;
use refusal::Refusal;

/// The read API, to be nested at `/api/v1`: every path and method under it needs a token, known or not.
pub fn api(store: Arc<dyn Store>, tokens: Tokens) -> Router {
    Router::new()
        .route("/deliveries", get(deliveries::list))
        .route("/deliveries/{id}", get(deliveries::one))
        .route("/deliveries/{id}/events", get(deliveries::events))
        .route("/stats", get(stats::stats))
        .route("/quarantine", get(quarantine::list))
        .route("/openapi.json", get(openapi::document))
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .fallback(async || Refusal::UNKNOWN_PATH)
        .layer(middleware::from_fn_with_state(tokens, bearer::require))
        .with_state(store)
}
