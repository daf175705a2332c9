//! What every request leaves behind: an id, a time in the metrics, a line in the log.
//!
//! Lives here: the outermost layer. Does not: anything of a path, a query or a header in a log line or a label,
//! other than a request id that has the form of one.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::metrics::{Counted, Metrics};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What tells one request's log lines from another's: a proxy's id where it gives a plain one, else one of ours.
#[derive(Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&HEADER).filter(|value| is_plain(value.as_bytes()));
        given.cloned().map_or_else(Self::next, Self)
    }

    /// A random beginning for each process, then a count.
    fn next() -> Self {
        static PROCESS: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().simple().to_string());
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let id = format!("{}-{}", &PROCESS[..12], COUNT.fetch_add(1, Ordering::Relaxed));
        Self(HeaderValue::try_from(id).expect("hex digits, a dash and a number are a header's value"))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_plain(id: &[u8]) -> bool {
    (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// Gives the request an id, times it, and logs it: server errors as warnings, all else at `debug`.
pub(crate) async fn observe(
    State(metrics): State<Arc<Metrics>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let _in_flight = Counted::in_gauge(&metrics.in_flight);
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;

    let took = started.elapsed();
    let status = response.status();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics.answered(route, status.as_u16(), took);
    let (request_id, status, seconds) = (id.as_str(), status.as_u16(), took.as_secs_f64());
    tracing::debug!(request_id, route, status, seconds, "request");
    response.headers_mut().insert(HEADER, id.0);
    response
}
