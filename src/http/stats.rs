//! `GET /stats`: counts, rates, times and cost over a range.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use serde::{Serialize, Serializer};

use super::{answer::Answer, parameters, refusal::Refusal};
use crate::{
    clock::Timestamp,
    money::Sum,
    store::{
        Store,
        query::{Figures, Group, GroupBy, Percentiles, Stats, StatsQuestion},
    },
};

/// Statistics and the question that they answer.
#[derive(Serialize)]
pub(crate) struct ShownStats {
    from: Timestamp,
    to: Timestamp,
    by: Option<&'static str>,
    total: ShownFigures,
    groups: Vec<ShownGroup>,
}

#[derive(Serialize)]
struct ShownGroup {
    key: Option<String>,
    #[serde(flatten)]
    figures: ShownFigures,
}

#[derive(Serialize)]
struct ShownFigures {
    total: u64,
    sent: u64,
    stale: u64,
    delivered: u64,
    failed: u64,
    delivery_rate: Option<f64>,
    #[serde(serialize_with = "seconds")]
    seconds: Option<Percentiles>,
    cost: Sum,
}

impl ShownStats {
    fn new(question: &StatsQuestion, stats: Stats) -> Self {
        let group = |it: Group| ShownGroup { figures: it.figures.into(), key: it.key };
        Self {
            from: question.from,
            to: question.to,
            by: question.by.map(GroupBy::as_str),
            total: stats.total.into(),
            groups: stats.groups.into_iter().map(group).collect(),
        }
    }
}

impl From<Figures> for ShownFigures {
    fn from(it: Figures) -> Self {
        Self {
            total: it.sent + it.delivered + it.failed,
            sent: it.sent,
            stale: it.stale,
            delivered: it.delivered,
            failed: it.failed,
            delivery_rate: rate(it.delivered, it.failed),
            seconds: it.seconds,
            cost: it.cost,
        }
    }
}

/// The delivered among the terminal, to four decimals; none when nothing is terminal.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts stay far below 2^53, and the result has four decimals"
)]
fn rate(delivered: u64, failed: u64) -> Option<f64> {
    let terminal = delivered + failed;
    (terminal > 0).then(|| (delivered as f64 / terminal as f64 * 10_000.0).round() / 10_000.0)
}

fn seconds<S: Serializer>(it: &Option<Percentiles>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        p50: f64,
        p95: f64,
        p99: f64,
    }
    it.map(|Percentiles { p50, p95, p99 }| Shown { p50, p95, p99 }).serialize(serializer)
}

/// `GET /stats`.
pub(crate) async fn stats(
    State(store): State<Arc<dyn Store>>,
    RawQuery(query): RawQuery,
) -> Result<Answer<ShownStats>, Refusal> {
    let question = parameters::stats(query.as_deref(), Timestamp::now())?;
    let stats = store.stats(&question).await?;
    Ok(Answer::new(ShownStats::new(&question, stats)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_four_decimals_and_needs_something_terminal() {
        assert_eq!(rate(0, 0), None);
        assert_eq!(rate(0, 3), Some(0.0));
        assert_eq!(rate(2, 1), Some(0.6667));
        assert_eq!(rate(3, 0), Some(1.0));
    }
}
