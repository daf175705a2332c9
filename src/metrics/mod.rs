//! What the service counts and times, in Prometheus' terms.
//!
//! Lives here: every metric's name, help and labels. Does not: serving them (`http/operation`). Labels are enums
//! and constants of ours: never an id, a phone, or a caller's text.

mod fate;
mod process;

use std::{
    borrow::Borrow,
    fmt,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::{Family, MetricConstructor},
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

pub use prometheus_client::metrics::gauge::Gauge;

use crate::{money::Money, provider::Refusal};

pub use fate::{Fate, PollFate, SendFate};
use process::Process;

use crate::store::{Store, unreadable::Table};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct PollLabels {
    outcome: PollFate,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct SendLabels {
    outcome: SendFate,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusedLabels {
    error: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct EventLabels {
    outcome: Fate,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// The rows that a store has left out, asked for when the metrics are.
#[derive(Debug)]
struct UnreadableRows(Weak<dyn Store>);

impl Collector for UnreadableRows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(store) = self.0.upgrade() else { return Ok(()) };
        let help = "Rows left out of answers because they cannot be read";
        let mut rows = encoder.encode_descriptor("unreadable_rows", help, None, MetricType::Counter)?;
        for table in Table::ALL {
            let count = ConstCounter::new(store.unreadable_rows(table));
            count.encode(rows.encode_family(&[("table", table.as_str())])?)?;
        }
        Ok(())
    }
}

/// From 0.1 ms to 13 s.
#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
    }
}

/// All metrics of one running service.
pub struct Metrics {
    registry: Registry,
    /// In the order of [`Fate::ALL`].
    events: [Counter; Fate::ALL.len()],
    sends: Family<SendLabels, Counter>,
    sends_refused: Family<RefusedLabels, Counter>,
    /// For display: money is an exact decimal everywhere else.
    wallet_balance: Gauge<f64, AtomicU64>,
    polls: Family<PollLabels, Counter>,
    requests: Family<RequestLabels, Histogram, Seconds>,
    batch_events: Histogram,
    commit_seconds: Histogram,
    /// Arrivals that wait for the writer.
    pub queue_depth: Gauge,
    /// Bytes of the embedded store's log.
    pub store_log: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Connections that were closed to make room for others.
    pub connections_made_way: Counter,
    /// Requests whose answer is not ready.
    pub in_flight: Gauge,
    /// Callers who wait for a delivery to be settled.
    pub waiters: Gauge,
    /// Streams of changes that are open.
    pub streams: Gauge,
    /// Streams that were cut off because what came next was no longer kept.
    pub streams_cut_off: Counter,
    /// How long the oldest committed change has waited for an older transaction, in seconds.
    pub stream_held_seconds: Gauge,
    /// Deliveries given up, still `sent` after a day.
    pub given_up: Counter,
    /// Whether the provider is left alone, since it did not answer: 1, or 0.
    pub provider_paused: Gauge,
}

/// One more in a gauge, its own or a borrowed one, for as long as this lives.
pub struct Counted<G: Borrow<Gauge>>(G);

impl<G: Borrow<Gauge>> Counted<G> {
    /// Counts one more.
    #[must_use]
    pub fn in_gauge(gauge: G) -> Self {
        gauge.borrow().inc();
        Self(gauge)
    }
}

impl<G: Borrow<Gauge>> Drop for Counted<G> {
    fn drop(&mut self) {
        self.0.borrow().dec();
    }
}

impl Metrics {
    /// Metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("nexo");
        let events = Family::<EventLabels, Counter>::default();
        let metrics = Self {
            // An outcome that has not occurred yet is a zero, so that a rate over it is a number from the start.
            events: Fate::ALL.map(|outcome| events.get_or_create(&EventLabels { outcome }).clone()),
            sends: Family::default(),
            sends_refused: Family::default(),
            wallet_balance: Gauge::default(),
            polls: Family::default(),
            requests: Family::new_with_constructor(Seconds),
            batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit_seconds: Seconds.new_metric(),
            queue_depth: Gauge::default(),
            store_log: Gauge::default(),
            connections: Gauge::default(),
            connections_made_way: Counter::default(),
            in_flight: Gauge::default(),
            waiters: Gauge::default(),
            streams: Gauge::default(),
            streams_cut_off: Counter::default(),
            stream_held_seconds: Gauge::default(),
            given_up: Counter::default(),
            provider_paused: Gauge::default(),
            registry: Registry::default(),
        };
        for outcome in SendFate::ALL {
            drop(metrics.sends.get_or_create(&SendLabels { outcome }));
        }
        metrics.register_calls(&mut registry);
        registry.register("events", "Webhook calls by what became of them", events);
        registry.register(
            "batch_events",
            "Arrivals committed in one transaction",
            metrics.batch_events.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time that one commit took, failed ones included",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        metrics.register_store(&mut registry);
        metrics.register_connections(&mut registry);
        registry.register("in_flight", "Requests whose answer is not ready", metrics.in_flight.clone());
        metrics.register_followers(&mut registry);
        registry.register_with_unit(
            "http_request",
            "Time from a request's head to its answer",
            Unit::Seconds,
            metrics.requests.clone(),
        );
        registry.register_collector(Box::new(Process));
        registry.register(
            "build",
            "The running version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self { registry, ..metrics }
    }

    /// What waits for the store, and what the store has to copy.
    fn register_store(&self, registry: &mut Registry) {
        registry.register("queue_depth", "Arrivals waiting for the writer", self.queue_depth.clone());
        registry.register_with_unit(
            "store_log",
            "The embedded store's log, which grows while a reader needs all of it",
            Unit::Bytes,
            self.store_log.clone(),
        );
    }

    /// What has to do with connections.
    fn register_connections(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_made_way",
            "Connections closed while they waited for their peer, to make room for others",
            self.connections_made_way.clone(),
        );
    }

    /// Those who wait or follow.
    fn register_followers(&self, registry: &mut Registry) {
        registry.register("waiters", "Callers who wait for a delivery to be settled", self.waiters.clone());
        registry.register("streams", "Streams of changes that are open", self.streams.clone());
        registry.register(
            "streams_cut_off",
            "Streams that were cut off because what came next was no longer kept",
            self.streams_cut_off.clone(),
        );
        registry.register_with_unit(
            "stream_held",
            "Time that the oldest committed change has waited for an older transaction of the database",
            Unit::Seconds,
            self.stream_held_seconds.clone(),
        );
    }

    /// What has to do with calling the provider.
    fn register_calls(&self, registry: &mut Registry) {
        for outcome in PollFate::ALL {
            drop(self.polls.get_or_create(&PollLabels { outcome }));
        }
        registry.register(
            "polls",
            "Questions to the provider for a delivery by what became of them",
            self.polls.clone(),
        );
        registry.register("stale", "Deliveries given up: still sent after a day", self.given_up.clone());
        registry.register(
            "provider_paused",
            "Whether the provider is left alone because it does not answer",
            self.provider_paused.clone(),
        );
        registry.register("sends", "Requests to send an OTP by what became of them", self.sends.clone());
        for error in Refusal::CODES {
            drop(self.sends_refused.get_or_create(&RefusedLabels { error }));
        }
        registry.register(
            "sends_refused",
            "Sends that the provider refused by its error code",
            self.sends_refused.clone(),
        );
        // No number compares with it, so that no alarm goes off before there is one.
        self.wallet_balance.set(f64::NAN);
        registry.register(
            "wallet_balance_usd",
            "What the provider's wallet held by its last answer to a send of this replica's; NaN before the first",
            self.wallet_balance.clone(),
        );
    }

    /// Shows how many rows this store has left out of answers.
    pub fn watch(&mut self, store: &Arc<dyn Store>) {
        self.registry.register_collector(Box::new(UnreadableRows(Arc::downgrade(store))));
    }

    /// Counts one webhook call.
    pub fn count(&self, outcome: Fate) {
        for (_, counter) in Fate::ALL.iter().zip(&self.events).filter(|(fate, _)| **fate == outcome) {
            counter.inc();
        }
    }

    /// Counts one request to send an OTP.
    pub fn sent(&self, outcome: SendFate) {
        self.sends.get_or_create(&SendLabels { outcome }).inc();
    }

    /// Counts a send that the provider has refused.
    pub fn send_refused(&self, refusal: &Refusal) {
        self.sends_refused.get_or_create(&RefusedLabels { error: refusal.code() }).inc();
    }

    /// Notes what the wallet holds, to the next binary floating point number.
    pub fn wallet(&self, balance: Money) {
        self.wallet_balance.set(balance.to_string().parse().unwrap_or(f64::NAN));
    }

    /// Counts one question to the provider for a delivery.
    pub fn polled(&self, outcome: PollFate) {
        self.polls.get_or_create(&PollLabels { outcome }).inc();
    }

    /// Notes one commit, successful or not.
    pub fn committed(&self, arrivals: usize, took: Duration) {
        // A batch has far fewer members than an f64 counts exactly.
        self.batch_events.observe(u32::try_from(arrivals).map_or(f64::INFINITY, f64::from));
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// Notes one answered request. `route` is one of ours, never the caller's path.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { route: route.to_owned(), status };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry).expect("a String takes all that is written");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
