//! What people read: a table for each load, and how ours and the others compare.

use std::fmt::Write as _;

use crate::{load::Load, measure::Figures, results::Results};

/// The load whose ratios are told.
const HIGHEST: Load = Load::Closed(256);
/// The load of nobody in a hurry.
const ALONE: Load = Load::Closed(1);

/// A table for each load.
pub(crate) fn tables(results: &Results) -> String {
    let mut text = String::new();
    for load in results.loads() {
        let _ = writeln!(text, "{load}: {}", load.describe());
        let _ = writeln!(
            text,
            "  {:<14}{:>9}{:>10}{:>10}{:>10}{:>11}{:>13}{:>10}{:>7}",
            "", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "server ms*", "database ms*", "flood ms*", "MiB"
        );
        for peer in results.peers() {
            let Some(it) = results.median(peer.name, load) else { continue };
            let Figures { events_per_second, p50_ms, p99_ms, p999_ms, server_ms, database_ms, .. } = it;
            let Figures { flood_ms, memory_mib, .. } = it;
            let _ = write!(text, "  {:<14}{events_per_second:>9.0}{p50_ms:>10.2}{p99_ms:>10.2}", peer.name);
            let _ = write!(text, "{p999_ms:>10.2}{server_ms:>11.1}{database_ms:>13.1}{flood_ms:>10.1}");
            let _ = writeln!(text, "{memory_mib:>7.1}");
        }
        text.push('\n');
    }
    text += "* processor time for 1,000 events; MiB: the most memory that the server had\n";
    if results.dropped_turns > 0 {
        let _ = writeln!(
            text,
            "{} turns were dropped, for all peers, since others took too much of the machine",
            results.dropped_turns
        );
    }
    text + &ratios(results) + &old_and_new(results)
}

/// The new build beside the old one, round by round: the median of the ratios, and the least and the greatest.
fn old_and_new(results: &Results) -> String {
    type Figure = (&'static str, fn(Figures) -> f64);
    let figures: [Figure; 4] = [
        ("events/s", |it| it.events_per_second),
        ("processor", |it| it.server_ms + it.database_ms),
        ("p50", |it| it.p50_ms),
        ("p99", |it| it.p99_ms),
    ];
    let mut text = String::new();
    for (new, old) in [("ours-postgres", "old-postgres"), ("ours-sqlite", "old-sqlite")] {
        for load in results.loads() {
            let mut line = String::new();
            for (name, figure) in figures {
                let mut ratios = results.pairs(new, old, load, figure);
                ratios.sort_by(f64::total_cmp);
                let [least, .., greatest] = ratios[..] else { continue };
                let middle = f64::midpoint(ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
                let _ = write!(line, "  {name} {middle:.3} ({least:.2} to {greatest:.2})");
            }
            if !line.is_empty() {
                let _ = writeln!(text, "{:<24}{line}", format!("{new}, {load}:"));
            }
        }
    }
    if text.is_empty() { text } else { format!("\nNew : old, round by round, median (range):\n{text}") }
}

/// Ours in relation to others, as far as they were measured.
fn ratios(results: &Results) -> String {
    let at = |peer: &str| results.median(peer, HIGHEST);
    let ours = at("ours-postgres");
    let best_node = ["express-pg", "fastify-pg"]
        .into_iter()
        .filter_map(at)
        .max_by(|a, b| a.events_per_second.total_cmp(&b.events_per_second));
    let rate = |it: Figures| it.events_per_second;
    let processor = |it: Figures| it.server_ms + it.database_ms;
    let ratio = |a: Option<Figures>, b: Option<Figures>, of: &dyn Fn(Figures) -> f64| Some(of(a?) / of(b?));
    let lines = [
        ("events/s, ours-postgres : guide", ratio(ours, at("guide"), &rate)),
        ("events/s, ours-postgres : one-by-one", ratio(ours, at("one-by-one"), &rate)),
        ("events/s, ours-postgres : the better of express-pg and fastify-pg", ratio(ours, best_node, &rate)),
        ("events/s, ours-postgres : bare", ratio(ours, at("bare"), &rate)),
        ("events/s, ours-sqlite : guide", ratio(at("ours-sqlite"), at("guide"), &rate)),
        (
            "processor of server and database, one-by-one : ours-postgres",
            ratio(at("one-by-one"), ours, &processor),
        ),
        (
            "p50 at 1 connection, one-by-one : ours-postgres",
            ratio(results.median("one-by-one", ALONE), results.median("ours-postgres", ALONE), &|it| {
                it.p50_ms
            }),
        ),
    ];
    let mut text = String::new();
    for (what, ratio) in lines {
        if let Some(ratio) = ratio {
            let _ = writeln!(text, "{ratio:>6.2}  {what}");
        }
    }
    if text.is_empty() { text } else { format!("\nAt {HIGHEST}, unless it says otherwise:\n{text}") }
}
