//! What a run found, for people and for machines.
//!
//! Lives here: figures and their wording. Does not: counting (`tally`).

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};

use super::{
    Plan,
    tally::{Acknowledged, Tally},
};

/// A run's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it went.
    pub target: String,
    /// Requests a second that were to be sent; none for as many as possible.
    pub rate: Option<u32>,
    /// Connections.
    pub connections: usize,
    /// From the start to the last answer.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub elapsed: Duration,
    /// Requests sent, or begun to be.
    pub sent: u64,
    /// Answers a second.
    pub answers_per_second: f64,
    /// Answers by status.
    pub answers: BTreeMap<u16, u64>,
    /// Of the requests, those that were the one before again.
    pub repeats: u64,
    /// Connections that broke or could not be made.
    pub connection_errors: u64,
    /// What was wrong with the first of them.
    pub first_error: Option<String>,
    /// Requests that were still without an answer at the end.
    pub unanswered: u64,
    /// Requests that were due and never sent, since every connection was busy.
    pub unsent: u64,
    /// Times from when a request was due until its answer was there.
    #[serde(rename = "latency_ms")]
    pub latency: Latency,
    /// Processor time that the run took itself.
    #[serde(serialize_with = "seconds", rename = "processor_seconds")]
    pub processor: Duration,
    /// The events that were answered 200.
    #[serde(skip)]
    pub acknowledged: Acknowledged,
    /// What the ids of the run's events are made of.
    #[serde(skip)]
    pub(super) ids: super::events::Ids,
}

/// Times within which a share of the answers came.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of them.
    #[serde(serialize_with = "milliseconds")]
    pub p50: Duration,
    /// 90 percent.
    #[serde(serialize_with = "milliseconds")]
    pub p90: Duration,
    /// 99 percent.
    #[serde(serialize_with = "milliseconds")]
    pub p99: Duration,
    /// 99.9 percent.
    #[serde(serialize_with = "milliseconds", rename = "p99.9")]
    pub p999: Duration,
    /// All.
    #[serde(serialize_with = "milliseconds")]
    pub max: Duration,
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e3).round() / 1e3)
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let within = |share| Duration::from_nanos(histogram.value_at_quantile(share));
        Self {
            p50: within(0.5),
            p90: within(0.9),
            p99: within(0.99),
            p999: within(0.999),
            max: Duration::from_nanos(histogram.max()),
        }
    }
}

/// Processor time of this process so far, its threads' all together.
pub(super) fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        start: Instant,
        sent: u64,
        tally: &mut Tally,
        [unanswered, unsent]: [u64; 2],
        ids: super::events::Ids,
    ) -> Self {
        let elapsed = tally.last_answer.duration_since(start);
        let answered = tally.answered_in_all();
        Self {
            target: plan.target.to_string(),
            rate: plan.rate.map(std::num::NonZeroU32::get),
            connections: plan.connections,
            elapsed,
            sent,
            answers_per_second: per_second(answered, elapsed),
            answers: std::mem::take(&mut tally.answers),
            repeats: tally.repeats,
            connection_errors: tally.broken,
            first_error: tally.first_error.take(),
            unanswered,
            unsent,
            latency: Latency::of(&tally.latency),
            processor: Duration::ZERO,
            acknowledged: std::mem::take(&mut tally.acknowledged),
            ids,
        }
    }

    /// Whether something was sent, and everything that was due was answered 200.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let all = self.answers.len() == 1 && self.answers.contains_key(&200);
        all && self.connection_errors + self.unanswered + self.unsent == 0
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { (count as f64 / time.as_secs_f64()).round() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.rate {
            Some(rate) => format!("{rate} a second were to be sent"),
            None => "as fast as answers came".to_owned(),
        };
        let Self { sent, connections, answers_per_second, .. } = self;
        let elapsed = self.elapsed.as_secs_f64();
        writeln!(f, "{sent} requests in {elapsed:.2} s over {connections} connections, {how}")?;
        writeln!(f, "answers    {answers_per_second:.0} a second")?;
        for (status, count) in &self.answers {
            writeln!(f, "  {status}      {count}")?;
        }
        let since = if self.rate.is_some() { "since each was due" } else { "since each was sent" };
        writeln!(f, "latency    {since}")?;
        let Latency { p50, p90, p99, p999, max } = self.latency;
        for (name, time) in [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p999), ("max", max)] {
            writeln!(f, "  {name:<8} {:.3} ms", time.as_secs_f64() * 1e3)?;
        }
        for (count, what) in [
            (self.repeats, "repeats of the request before"),
            (self.connection_errors, "connections broke or could not be made"),
            (self.unanswered, "without an answer at the end; their wait until then is counted"),
            (self.unsent, "due but not sent, every connection being busy; their wait is counted"),
        ] {
            if count > 0 {
                writeln!(f, "{count} {what}")?;
            }
        }
        if let Some(error) = &self.first_error {
            writeln!(f, "first error: {error}")?;
        }
        writeln!(f, "processor  {:.2} s of its own", self.processor.as_secs_f64())
    }
}
