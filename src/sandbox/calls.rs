//! What the sandbox is asked: each call of its API, and outages in which it answers none of them.
//!
//! Lives here: the record, kept in memory, and what an outage looks like. Does not: the calls themselves (`api`).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{Method, StatusCode, header::RETRY_AFTER};

use super::provider::Provider;

/// So many calls are kept at least; twice as many at most.
const KEPT: usize = 100_000;

/// A call of the provider's API, with the right key or without.
#[derive(Debug, Clone)]
pub struct Call {
    /// When its head had come.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Its path, `/api/v1/send-otp` for example.
    pub path: String,
    /// Whether it met an outage.
    pub refused: bool,
}

/// Why no call is answered as it should be. What the provider does then is not documented: these are the sandbox's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// 503, with a page of HTML as a proxy has it.
    Down,
    /// 429, with a `Retry-After` of whole seconds.
    TooManyCalls(Duration),
}

/// All calls, and the present outage.
#[derive(Default)]
pub(super) struct CallLog(Mutex<(Vec<Call>, Option<Outage>)>);

impl CallLog {
    fn lock(&self) -> MutexGuard<'_, (Vec<Call>, Option<Outage>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn all(&self) -> Vec<Call> {
        self.lock().0.clone()
    }

    pub(super) fn set_outage(&self, outage: Option<Outage>) {
        self.lock().1 = outage;
    }

    /// Notes a call; the outage that it meets.
    fn note(&self, request: &Request) -> Option<Outage> {
        let (calls, outage) = &mut *self.lock();
        if calls.len() == 2 * KEPT {
            calls.drain(..KEPT);
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        calls.push(Call { at: Instant::now(), method, path, refused: outage.is_some() });
        *outage
    }
}

/// Around every call of the provider's.
pub(super) async fn noted(State(provider): State<Arc<Provider>>, request: Request, next: Next) -> Response {
    match provider.calls.note(&request) {
        None => next.run(request).await,
        Some(Outage::Down) => (StatusCode::SERVICE_UNAVAILABLE, "<html>no upstream</html>").into_response(),
        Some(Outage::TooManyCalls(time)) => {
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, time.as_secs().to_string())]).into_response()
        }
    }
}
