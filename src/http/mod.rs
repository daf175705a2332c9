//! All HTTP serving and nothing else.
//!
//! Lives here: every route and layer on one screen. Does not: SQL, waiting for a commit, what an event means.

mod again;
pub(crate) mod answer;
pub mod bearer;
mod body;
mod budget;
mod client;
mod connection;
mod deadline;
mod deliveries;
mod misdirected;
pub(crate) mod observe;
mod openapi;
pub(crate) mod operation;
pub mod parameters;
mod places;
mod quarantine;
pub mod refusal;
mod seldom;
mod send;
pub(crate) mod serve;
mod stats;
mod strangers;
mod stream;
mod watch;
pub mod webhook;

use std::{
    convert::Infallible,
    future::poll_fn,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::MatchedPath,
    handler::Handler as _,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use tower::{Layer, Service};

use crate::{
    feed::Feed, metrics::Metrics, sending::Sending, signature::Keyring, store::Store, waiting::Waiters,
    writer::Writer,
};
use answer::closing;
use bearer::Tokens;
use body::{BodyLimits, Followed};
use budget::Budget;
use deadline::Deadlines;
use deliveries::Lookup;
use misdirected::Misdirected;
use observe::Observed;
use operation::Readiness;
use refusal::Refusal;
use send::Counter;
use strangers::Strangers;
use stream::Streams;
use watch::Desk;
use webhook::{Call, CheckSignature, Custody, Handle, SignatureLayer};

/// Limits of what callers may ask of the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a webhook's body at most.
    pub body_bytes: usize,
    /// Bytes of all webhooks' bodies together that may be in memory unverified at most.
    pub in_flight_bytes: usize,
    /// Bytes of answers that may wait to be read, all together, at most.
    pub answer_bytes: usize,
    /// Open connections at most; for one more, the one that has waited longest for its peer is closed.
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
    /// Whose word about a client's address is taken: proxies in front.
    pub trusted_proxies: Vec<IpNet>,
    /// Calls of one address that are refused for lack of a right at once, in a second; 0 for any number.
    pub refused_per_address: u32,
    /// Likewise of all addresses together.
    pub refused_per_second: u32,
}

impl Options {
    fn shortest_timeout(&self) -> Duration {
        let Self { head_timeout, body_timeout, idle_timeout, write_timeout, answer_timeout, .. } = *self;
        let shortest =
            head_timeout.min(body_timeout).min(idle_timeout).min(write_timeout).min(answer_timeout);
        if self.refused_per_address + self.refused_per_second > 0 {
            shortest.min(strangers::PAUSE)
        } else {
            shortest
        }
    }
}

/// What the routes need.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) writer: Writer,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) feed: Arc<Feed>,
    /// Where there is a key to call the provider with.
    pub(crate) sending: Option<Arc<Sending>>,
    pub(crate) keyring: Keyring,
    pub(crate) tokens: Tokens,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Readiness,
}

/// Bytes of `/metrics` that may wait to be read.
const METRICS_BYTES: usize = 1 << 20;

/// Where the provider's events come in.
const WEBHOOK: &str = "/webhooks/nexo";

/// Every route and layer.
pub(crate) fn site(parts: Parts, options: &Options) -> Site {
    let Parts { store, writer, waiters, feed, sending, keyring, tokens, metrics, readiness } = parts;
    let bearer = middleware::from_fn_with_state(tokens, bearer::require);
    let signed = SignatureLayer::new(keyring, options, Arc::clone(&metrics));
    let lookup = Lookup { store: Arc::clone(&store), waiters, metrics: Arc::clone(&metrics) };
    let feed = store.notes_changes().then_some(feed);
    let streams = Streams { feed, metrics: Arc::clone(&metrics) };
    let limits = BodyLimits::new(options);
    let desk = Desk::new(Arc::clone(&store), writer.clone(), limits.clone(), options);
    let counter = Counter { sending, limits };
    let spend = |bytes| middleware::from_fn_with_state(Budget::new(bytes), Budget::spend);
    // What watches the service is not kept waiting by those who read from it.
    let (budget, watching) = (spend(options.answer_bytes), spend(METRICS_BYTES));
    let custody = Custody::new(writer, options, Arc::clone(&metrics));
    let misdirected = Misdirected::new(Arc::clone(&metrics));
    let (strangers, proxies) = (Strangers::new(options), options.trusted_proxies.clone());

    let measured = Arc::clone(&store);
    let api = Router::new()
        .route("/send-otp", post(send::send).with_state(counter))
        .route("/deliveries", get(deliveries::list).layer(budget.clone()))
        .route("/deliveries/stream", get(stream::follow).with_state(streams))
        .route(
            "/deliveries/{id}",
            get(deliveries::one).with_state(lookup).merge(put(watch::watch).with_state(desk)),
        )
        .route("/deliveries/{id}/events", get(deliveries::events).layer(budget.clone()))
        .route("/stats", get(stats::stats).layer(budget.clone()))
        .route("/quarantine", get(quarantine::list).layer(budget.clone()))
        .route("/openapi.json", get(openapi::document).layer(budget))
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .fallback(async || Refusal::UNKNOWN_PATH)
        .layer(bearer.clone())
        .with_state(store);

    let others = Router::new()
        .route(WEBHOOK, any(async || Refusal::NotAPost))
        .nest("/api/v1", api)
        // What `nest` leaves out; under the API nothing is told without a token.
        .route("/api/v1/", any(async || Refusal::UNKNOWN_PATH).layer(bearer.clone()))
        .route("/healthz", get(operation::healthz))
        .route("/readyz", get(operation::readyz).with_state(readiness))
        .route(
            "/metrics",
            get(operation::metrics)
                .layer(watching)
                .layer(bearer)
                .with_state((Arc::clone(&metrics), measured)),
        )
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .fallback_service(misdirected::answer.with_state(misdirected))
        .layer(middleware::from_fn(routed));
    Site { webhook: signed.layer(custody), others, strangers, proxies, metrics }
}

/// All that is served. A webhook does not go through the router, whose boxes would cost as much as all the rest.
pub(crate) struct Site {
    webhook: CheckSignature<Custody>,
    others: Router,
    strangers: Strangers,
    proxies: Vec<IpNet>,
    metrics: Arc<Metrics>,
}

impl Site {
    /// Answers one request of a peer.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        deadlines: &Deadlines,
    ) -> Result<Response, Infallible> {
        let observed = Observed::begin(&self.metrics, request.headers());
        let client = client::address(peer, request.headers(), &self.proxies);
        let (route, mut response) = if request.method() == Method::POST && request.uri().path() == WEBHOOK {
            (None, contained(self.webhook.handle(request, &Call { deadlines })).await)
        } else {
            let (head, body) = request.into_parts();
            let (body, was_read) = Followed::new(body);
            let request = Request::from_parts(head, Body::new(body));
            let mut response = self.others.clone().call(request).await?;
            if !was_read.load(Ordering::Relaxed) {
                response = closing(response);
            }
            (Some(response.extensions().get::<MatchedPath>().cloned()), response)
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            response = self.strangers.refuse(response, client, observed.id(), deadlines).await;
        }
        Ok(observed.end(
            match &route {
                None => WEBHOOK,
                Some(route) => route.as_ref().map_or("none", MatchedPath::as_str),
            },
            response,
        ))
    }
}

/// The router's innermost layer: tells those outside of it which route was taken.
async fn routed(request: axum::extract::Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = contained(next.run(request)).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// A panic is a fault of ours and ends one request, not the connection with all that it carries.
async fn contained(answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    poll_fn(|context| {
        let poll = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context)));
        poll.unwrap_or_else(|_| Poll::Ready(Refusal::Internal.into_response()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_500() {
        let response = contained(async { panic!("of a test") }).await;
        assert_eq!(response.status(), 500);
    }
}
