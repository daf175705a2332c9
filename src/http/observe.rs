//! What every request leaves behind: an id, a time in the metrics, a line in the log.
//!
//! Lives here: the outermost layer. Does not: anything of a path, a query or a header in a log line or a label,
//! other than a request id that has the form of one.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::metrics::{Counted, Gauge, Metrics};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What tells one request's log lines from another's: a proxy's id where it gives a plain one, else one of ours, which
/// is a text only once it is needed.
pub(crate) enum RequestId {
    Given(HeaderValue),
    Ours(u64),
}

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        match headers.get(&HEADER).filter(|value| is_plain(value.as_bytes())) {
            Some(given) => Self::Given(given.clone()),
            None => Self::Ours(COUNT.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// As a header has it. One of ours is a random beginning for each process, then a count.
    pub(crate) fn to_value(&self) -> HeaderValue {
        static PROCESS: LazyLock<String> =
            LazyLock::new(|| format!("{:.12}-", uuid::Uuid::new_v4().simple().to_string()));
        match self {
            Self::Given(value) => value.clone(),
            // Each request pays for this: `format!` would take several times as long.
            Self::Ours(count) => HeaderValue::try_from([PROCESS.as_str(), &count.to_string()].concat())
                .expect("hex digits, a dash and a number are a header's value"),
        }
    }
}

fn is_plain(id: &[u8]) -> bool {
    (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// A request on its way, counted as in flight for as long as this lives.
pub(crate) struct Observed<'a> {
    metrics: &'a Metrics,
    id: RequestId,
    started: Instant,
    _in_flight: Counted<&'a Gauge>,
}

impl<'a> Observed<'a> {
    /// Gives the request an id, and starts its time.
    pub(crate) fn begin(metrics: &'a Metrics, headers: &HeaderMap) -> Self {
        let _in_flight = Counted::in_gauge(&metrics.in_flight);
        Self { metrics, id: RequestId::of(headers), started: Instant::now(), _in_flight }
    }

    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Notes what was answered, on one of our routes, and tells the caller the request's id.
    pub(crate) fn end(self, route: &str, mut response: Response) -> Response {
        let (status, took) = (response.status().as_u16(), self.started.elapsed());
        self.metrics.answered(route, status, took);
        let id = self.id.to_value();
        let (request_id, seconds) = (id.to_str().ok(), took.as_secs_f64());
        tracing::debug!(request_id, route, status, seconds, "request");
        response.headers_mut().insert(HEADER, id);
        response
    }
}
