//! What a peer is put under: the loads, and one run of `flood` as a process of its own.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::process::Process;

/// Connections of an open loop.
const OPEN: u32 = 64;

/// How long `flood` may take beyond its time; by itself it waits ten seconds for what was due.
const OVERTIME: Duration = Duration::from_secs(20);

/// What `flood` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// As fast as answers come, over so many connections.
    Closed(u32),
    /// So many events a second, whatever becomes of those before.
    Open(u32),
}

/// The loads that are measured unless told otherwise.
pub(crate) const USUAL: [Load; 6] = [
    Load::Closed(1),
    Load::Closed(64),
    Load::Closed(256),
    Load::Open(1_000),
    Load::Open(5_000),
    Load::Open(10_000),
];

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(connections) => write!(f, "closed-{connections}"),
            Self::Open(rate) => write!(f, "open-{rate}"),
        }
    }
}

impl FromStr for Load {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "closed-CONNECTIONS or open-RATE is needed, such as closed-256 or open-5000";
        let (kind, number) = text.split_once('-').ok_or(wrong)?;
        match (kind, number.parse()) {
            ("closed", Ok(connections @ 1..=4096)) => Ok(Self::Closed(connections)),
            ("open", Ok(rate @ 1..)) => Ok(Self::Open(rate)),
            _ => Err(wrong),
        }
    }
}

impl Load {
    /// What it is, in words.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Closed(1) => "1 connection, as fast as answers come".to_owned(),
            Self::Closed(connections) => format!("{connections} connections, as fast as answers come"),
            Self::Open(rate) => format!("{rate} events a second over {OPEN} connections"),
        }
    }

    /// Events a second, if that is fixed.
    pub(crate) fn rate(self) -> Option<u32> {
        match self {
            Self::Closed(_) => None,
            Self::Open(rate) => Some(rate),
        }
    }

    fn arguments(self) -> Vec<String> {
        match self {
            Self::Closed(connections) => vec![format!("--connections={connections}")],
            Self::Open(rate) => vec![format!("--connections={OPEN}"), format!("--rate={rate}")],
        }
    }
}

/// What `flood` found.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) answers_per_second: f64,
    pub(crate) answers: BTreeMap<u16, u64>,
    connection_errors: u64,
    first_error: Option<String>,
    unanswered: u64,
    unsent: u64,
    pub(crate) latency_ms: Latency,
    pub(crate) processor_seconds: f64,
}

/// Milliseconds within which a share of the answers came.
#[derive(Debug, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
}

impl Report {
    /// Events that were answered 200.
    pub(crate) fn events(&self) -> u64 {
        self.answers.get(&200).copied().unwrap_or_default()
    }

    /// Nothing but 200 was answered, and to everything, other than what a fixed rate left no time for.
    fn check(&self, load: Load) -> anyhow::Result<()> {
        ensure!(self.connection_errors == 0, "connections broke: {:?}", self.first_error);
        ensure!(self.answers.keys().eq([&200]), "answers other than 200: {:?}", self.answers);
        let behind = self.unanswered + self.unsent;
        ensure!(matches!(load, Load::Open(_)) || behind == 0, "{behind} events had no answer");
        Ok(())
    }
}

/// Floods `url` for so long.
pub(crate) fn flood(
    binary: &Path,
    url: &str,
    secret: &str,
    load: Load,
    time: Duration,
) -> anyhow::Result<Report> {
    let mut command = Command::new(binary);
    command.args(["flood", "--json", "--url", url]).arg(format!("--duration={}ms", time.as_millis()));
    command.args(load.arguments()).env_clear().env("NEXO_WEBHOOK_SECRET", secret).stdout(Stdio::piped());
    let flood = Process::start(&mut command)?;
    let text = flood.output(time + OVERTIME).context("flood does not end")?;
    let report: Report =
        serde_json::from_str(&text).with_context(|| format!("flood answers what is no report: {text}"))?;
    report.check(load)?;
    Ok(report)
}
