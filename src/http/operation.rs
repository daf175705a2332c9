//! `GET /healthz`, `/readyz`, `/metrics`: for whoever runs the service.
//!
//! Lives here: these three answers. Does not: what is measured (`metrics`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Mutex;

use crate::{metrics::Metrics, store::Store, writer::Writer};

/// A look at the store answers all who ask within this time, so that asking can't load the database.
const FRESH: Duration = Duration::from_millis(250);

/// Whether the service can take webhooks now.
#[derive(Clone)]
pub(crate) struct Readiness(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    writer: Writer,
    stopping: AtomicBool,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Readiness {
    pub(crate) fn new(store: Arc<dyn Store>, writer: Writer) -> Self {
        Self(Arc::new(Inner { store, writer, stopping: AtomicBool::new(false), last: Mutex::new(None) }))
    }

    /// From now on the service is not ready.
    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Waits until the writer is gone, which while the service runs it should never be.
    pub(crate) async fn writer_ended(&self) {
        self.0.writer.ended().await;
    }

    async fn check(&self) -> Result<(), String> {
        if self.0.stopping.load(Ordering::Acquire) {
            return Err("the service is stopping".to_owned());
        }
        if !self.0.writer.is_alive() {
            return Err("the writer has ended: restart the service".to_owned());
        }
        let mut last = self.0.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = self.0.store.ready().await.map_err(|error| error.to_string());
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// The process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// Webhooks can be kept: the store takes writes and its schema is this version's; else 503 and why.
pub(crate) async fn readyz(State(readiness): State<Readiness>) -> Response {
    match readiness.check().await {
        Ok(()) => "ok".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response(),
    }
}

/// Prometheus' text format.
pub(crate) async fn metrics(State((metrics, store)): State<(Arc<Metrics>, Arc<dyn Store>)>) -> Response {
    metrics.store_log.set(i64::try_from(store.log_bytes()).unwrap_or(i64::MAX));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], metrics.encode()).into_response()
}
