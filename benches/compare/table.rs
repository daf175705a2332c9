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
            "  {:<14}{:>10}{:>10}{:>10}{:>11}  | ms of processor per 1,000: {:>8}{:>10}{:>8}  | {:>6}",
            "", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "server", "database", "flood", "MiB"
        );
        for peer in results.peers() {
            let Some(it) = results.median(peer.name, load) else { continue };
            let _ = writeln!(
                text,
                "  {:<14}{:>10.0}{:>10.2}{:>10.2}{:>11.2}  | {:>26} {:>8.1}{:>10.1}{:>8.1}  | {:>6.1}",
                peer.name,
                it.events_per_second,
                it.p50_ms,
                it.p99_ms,
                it.p999_ms,
                "",
                it.server_ms,
                it.database_ms,
                it.flood_ms,
                it.memory_mib
            );
        }
        text.push('\n');
    }
    text + &ratios(results)
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
    if text.is_empty() { text } else { format!("At {HIGHEST}, unless it says otherwise:\n{text}") }
}
