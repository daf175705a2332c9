//! All runs, as CSV, and their medians.

use std::fmt::Write as _;

use crate::{
    load::Load,
    measure::Figures,
    peer::{PEERS, Peer},
};

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) round: u32,
    pub(crate) load: Load,
    pub(crate) peer: &'static Peer,
    pub(crate) figures: Figures,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) kept: Vec<Run>,
    /// Runs of turns that were dropped because of what others took.
    pub(crate) dropped: Vec<Run>,
    pub(crate) dropped_turns: usize,
}

/// A figure: its name as a column, and where it is.
type Column = (&'static str, fn(&mut Figures) -> &mut f64);

const COLUMNS: [Column; 9] = [
    ("events_per_second", |it| &mut it.events_per_second),
    ("p50_ms", |it| &mut it.p50_ms),
    ("p99_ms", |it| &mut it.p99_ms),
    ("p99.9_ms", |it| &mut it.p999_ms),
    ("server_ms_per_1000", |it| &mut it.server_ms),
    ("database_ms_per_1000", |it| &mut it.database_ms),
    ("flood_ms_per_1000", |it| &mut it.flood_ms),
    ("memory_mib", |it| &mut it.memory_mib),
    ("others_share", |it| &mut it.others),
];

impl Results {
    /// The loads that were measured.
    pub(crate) fn loads(&self) -> Vec<Load> {
        let mut loads: Vec<_> = self.kept.iter().map(|run| run.load).collect();
        loads.sort();
        loads.dedup();
        loads
    }

    /// The peers that were measured.
    pub(crate) fn peers(&self) -> Vec<&'static Peer> {
        let is_there = |peer: &&Peer| self.kept.iter().any(|run| run.peer.name == peer.name);
        PEERS.iter().filter(is_there).collect()
    }

    /// Of each round in which both were measured, one peer's figure divided by the other's.
    pub(crate) fn pairs(
        &self,
        peer: &str,
        other: &str,
        load: Load,
        figure: impl Fn(Figures) -> f64,
    ) -> Vec<f64> {
        let of = |name: &str| {
            let runs = self.kept.iter().filter(|run| run.peer.name == name && run.load == load);
            runs.map(|run| (run.round, figure(run.figures))).collect::<Vec<_>>()
        };
        let others = of(other);
        let pair = |(round, value): (u32, f64)| {
            others.iter().find(|(other, _)| *other == round).map(|(_, other)| value / other)
        };
        of(peer).into_iter().filter_map(pair).collect()
    }

    /// The median of each figure by itself.
    pub(crate) fn median(&self, peer: &str, load: Load) -> Option<Figures> {
        let ours = |run: &&Run| run.peer.name == peer && run.load == load;
        let runs: Vec<_> = self.kept.iter().filter(ours).map(|run| run.figures).collect();
        let mut whole = *runs.first()?;
        for (_, figure) in COLUMNS {
            let mut values: Vec<_> = runs.iter().map(|run| *figure(&mut run.clone())).collect();
            values.sort_by(f64::total_cmp);
            let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
            *figure(&mut whole) = f64::midpoint(low, high);
        }
        Some(whole)
    }

    /// A line for each run.
    pub(crate) fn as_csv(&self) -> String {
        let names = COLUMNS.map(|(name, _)| name).join(",");
        let mut text = format!("round,load,peer,kept,{names}\n");
        for (kept, runs) in [(true, &self.kept), (false, &self.dropped)] {
            for Run { round, load, peer, figures } in runs {
                let mut figures = *figures;
                let values = COLUMNS.map(|(_, figure)| format!("{:.3}", figure(&mut figures))).join(",");
                let _ = writeln!(text, "{},{load},{},{kept},{values}", round + 1, peer.name);
            }
        }
        text
    }
}
