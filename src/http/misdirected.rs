//! Webhooks that are sent to a path where nothing takes them: an answer that says where to, a log line, a count.
//!
//! Lives here: which paths are meant to be the webhook's. Does not: the webhook's own path with another method (`mod`).

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::HeaderMap,
};
use percent_encoding::percent_decode_str;

use super::{WEBHOOK, refusal::Refusal, seldom::Seldom, webhook::SIGNATURE};
use crate::metrics::{Fate, Metrics};

/// A longer path is no slip.
const LONGEST: usize = 128;

/// So many letters may be wrong, missing, too many or exchanged.
const SLIPS: usize = 2;

/// What counts misdirected webhooks.
#[derive(Clone)]
pub(super) struct Misdirected {
    metrics: Arc<Metrics>,
    log: Arc<Seldom>,
}

impl Misdirected {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, log: Arc::default() }
    }
}

/// Answers what is on no path of ours.
pub(super) async fn answer(State(misdirected): State<Misdirected>, request: Request) -> Refusal {
    if !is_misdirected(request.uri().path(), request.headers()) {
        return Refusal::UNKNOWN_PATH;
    }
    misdirected.metrics.count(Fate::WrongPath);
    if let Some(requests) = misdirected.log.due() {
        tracing::warn!(
            requests,
            "webhooks are sent to a wrong path and are lost: the right one is {WEBHOOK}"
        );
    }
    Refusal::WEBHOOK_ELSEWHERE
}

/// Whether a request that is on no path of ours is meant to be a webhook: it is signed, or its path is nearly the
/// webhook's, is a part of it, or holds it.
fn is_misdirected(path: &str, headers: &HeaderMap) -> bool {
    if headers.contains_key(&SIGNATURE) {
        return true;
    }
    if path.len() > LONGEST {
        return false;
    }
    let path = percent_decode_str(path).decode_utf8_lossy().to_lowercase();
    let parts: Vec<_> = path.split(['/', '\\']).map(str::trim).filter(|part| !part.is_empty()).collect();
    let path = format!("/{}", parts.join("/"));
    path.contains(WEBHOOK) || path == "/webhooks" || strsim::osa_distance(&path, WEBHOOK) <= SLIPS
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_path_near_the_webhooks_is_meant_to_be_it() {
        for path in [
            "/webhooks/nexo/",
            "//webhooks/nexo",
            "/webhooks//nexo",
            "/Webhooks/NEXO",
            "/webhook/nexo",
            "/webhooks/nex0",
            "/webhooks/nexo%20",
            "/webhooks%2Fnexo",
            "/webhooks/nexo/v1",
            "/receiver/webhooks/nexo",
            "/webhooks",
        ] {
            assert!(is_misdirected(path, &HeaderMap::new()), "{path}");
        }
        for path in
            ["/", "/favicon.ico", "/metric", "/api/v2/deliveries", "/healthz/", &"/webhooks/nexo".repeat(100)]
        {
            assert!(!is_misdirected(path, &HeaderMap::new()), "{path}");
        }
        let signed = HeaderMap::from_iter([(SIGNATURE, HeaderValue::from_static("sha256=00"))]);
        assert!(is_misdirected("/", &signed), "it is signed");
    }
}
