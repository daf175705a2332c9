//! How far a command has come that looks at every delivery of a time.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    clock::Timestamp,
    store::{Store, query::StatsQuestion},
};

/// A bar as long as there are deliveries; `done` says what becomes of each.
pub(super) async fn over(
    store: &dyn Store,
    from: Timestamp,
    to: Timestamp,
    done: &str,
) -> anyhow::Result<ProgressBar> {
    anyhow::ensure!(from < to, "--from is not before --to: the range is empty");
    let all = store.stats(&StatsQuestion { from, to, by: None }).await?.total;
    let bar = ProgressBar::new(all.sent + all.delivered + all.failed);
    bar.set_style(ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {done}, {{eta}} left"))?);
    Ok(bar)
}
