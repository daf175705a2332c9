//! What the service counts and times, in Prometheus' terms.
//!
//! Lives here: every metric's name, help and labels. Does not: serving them (`http/operation`). Labels are enums
//! and constants of ours: never an id, a phone, or a caller's text.

use std::{fmt::Write as _, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, prometheus_text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::batch::Outcome;

/// What became of one webhook call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// Committed.
    Kept(Outcome),
    /// Not signed with an active secret.
    BadSignature,
    /// Over the size limit.
    TooLarge,
    /// The body took too long.
    TooSlow,
    /// The sender hung up, or broke off the body.
    BrokenOff,
    /// No room in memory or in the queue.
    Full,
    /// The store did not keep it, or not in time.
    StoreUnavailable,
}

impl Fate {
    const ALL: [Self; 10] = [
        Self::Kept(Outcome::New),
        Self::Kept(Outcome::Kept),
        Self::Kept(Outcome::Seen),
        Self::Kept(Outcome::Quarantined),
        Self::BadSignature,
        Self::TooLarge,
        Self::TooSlow,
        Self::BrokenOff,
        Self::Full,
        Self::StoreUnavailable,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Kept(Outcome::New) => "new",
            Self::Kept(Outcome::Kept) => "older",
            Self::Kept(Outcome::Seen) => "repeated",
            Self::Kept(Outcome::Quarantined) => "quarantined",
            Self::BadSignature => "bad_signature",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::BrokenOff => "broken_off",
            Self::Full => "full",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

impl EncodeLabelValue for Fate {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(self.label())
    }
}

/// What became of one request to send an OTP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SendFate {
    /// The provider has accepted it.
    Accepted,
    /// The provider said no.
    Refused,
    /// It may have been sent.
    MayHaveBeenSent,
    /// Nothing was sent: the provider was not reached.
    NotReached,
    /// Nothing was sent: its key was another request's, or the store away.
    NotMade,
    /// Answered as an earlier one with its key.
    Again,
}

impl SendFate {
    const ALL: [Self; 6] =
        [Self::Accepted, Self::Refused, Self::MayHaveBeenSent, Self::NotReached, Self::NotMade, Self::Again];
}

impl EncodeLabelValue for SendFate {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::MayHaveBeenSent => "may_have_been_sent",
            Self::NotReached => "not_reached",
            Self::NotMade => "not_made",
            Self::Again => "again",
        })
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct SendLabels {
    outcome: SendFate,
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
    requests: Family<RequestLabels, Histogram, Seconds>,
    batch_events: Histogram,
    commit_seconds: Histogram,
    /// Arrivals that wait for the writer.
    pub queue_depth: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Requests whose answer is not ready.
    pub in_flight: Gauge,
    /// Callers who wait for a delivery to be settled.
    pub waiters: Gauge,
}

/// One more in a gauge, for as long as this lives.
pub struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    /// Counts one more.
    #[must_use]
    pub fn in_gauge(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
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
            requests: Family::new_with_constructor(Seconds),
            batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit_seconds: Seconds.new_metric(),
            queue_depth: Gauge::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            waiters: Gauge::default(),
            registry: Registry::default(),
        };
        for outcome in SendFate::ALL {
            drop(metrics.sends.get_or_create(&SendLabels { outcome }));
        }
        registry.register("sends", "Requests to send an OTP by what became of them", metrics.sends.clone());
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
        registry.register("queue_depth", "Arrivals waiting for the writer", metrics.queue_depth.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("in_flight", "Requests whose answer is not ready", metrics.in_flight.clone());
        registry.register(
            "waiters",
            "Callers who wait for a delivery to be settled",
            metrics.waiters.clone(),
        );
        registry.register_with_unit(
            "http_request",
            "Time from a request's head to its answer",
            Unit::Seconds,
            metrics.requests.clone(),
        );
        registry.register(
            "build",
            "The running version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self { registry, ..metrics }
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
