//! `reconcile`: a range of deliveries held against the provider's account of them.

use std::{fmt::Write as _, time::Duration};

use super::{Answer, progress};
use crate::{
    clock::Timestamp,
    money::Money,
    provider::Provider,
    reconcile::range::{Difference, Range, Reconciled, reconcile},
    settings::Settings,
    store::open,
};

/// Which deliveries.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Created at or after this time, such as 2026-05-26T00:00:00Z.
    #[arg(long, value_parser = Timestamp::parse)]
    from: Timestamp,
    /// And before this time; now, unless told.
    #[arg(long, value_parser = Timestamp::parse)]
    to: Option<Timestamp>,
}

/// Asks for each, and says what differed; the exit code is 0 when nothing did.
pub(super) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let provider = Provider::new(&settings.provider()?)?;
    let pace = Duration::from_secs(1) / settings.reconcile.calls_per_second;
    let range = Range { from: args.from, to: args.to.unwrap_or_else(Timestamp::now), pace };
    let store = open::open_existing(&settings.location).await?;
    let reconciled = async {
        let bar = progress::over(&*store, range.from, range.to, "asked for").await?;
        let reconciled = reconcile(&*store, &provider, range, || bar.inc(1)).await;
        bar.finish_and_clear();
        anyhow::Ok(reconciled?)
    };
    let reconciled = reconciled.await;
    store.close().await;
    let reconciled = reconciled?;
    let text = shown(&reconciled);
    let Reconciled { differences, unknown, unread, unreadable, .. } = &reconciled;
    let good = differences.is_empty() && unknown.is_empty() && unread.is_empty() && unreadable.is_empty();
    Ok(if good { Answer::good(text) } else { Answer::bad(text) })
}

fn shown(reconciled: &Reconciled) -> String {
    let Reconciled { asked, differences, unknown, unread, unreadable, told_cost, charged_cost } = reconciled;
    let mut text = String::new();
    for Difference { known, told } in differences {
        let _ = write!(text, "{}", known.id.as_str().escape_debug());
        let mut field = |name, known: String, told: String| {
            if known != told {
                let _ = write!(text, "  {name} {known} -> {told}");
            }
        };
        field("status", known.status.as_str().into(), told.status.as_str().into());
        field("error_code", label(known.error_code.as_deref()), label(told.error_code.as_deref()));
        field("cost", cost(known.cost), cost(told.cost));
        field("carrier", label(known.carrier.as_deref()), label(told.carrier.as_deref()));
        if known.phone != told.phone {
            text.push_str("  another phone");
        }
        text.push('\n');
    }
    for id in unknown {
        let _ = writeln!(text, "{}  the provider does not know it", id.as_str().escape_debug());
    }
    for row in unreadable {
        let _ = writeln!(text, "{row}: it was not asked for");
    }
    for (id, problem) in unread {
        let _ =
            writeln!(text, "{}  the provider's answer can't be read: {problem}", id.as_str().escape_debug());
    }
    let _ = writeln!(
        text,
        "asked for {asked}: {} differed and are kept as the provider says, {} it does not know, {} can't be read",
        differences.len(),
        unknown.len(),
        unread.len()
    );
    let _ = writeln!(text, "cost as we were told {told_cost} USD, as charged {charged_cost} USD");
    text
}

fn label(text: Option<&str>) -> String {
    text.map_or_else(|| "none".to_owned(), |text| text.escape_debug().to_string())
}

fn cost(cost: Option<Money>) -> String {
    cost.map_or_else(|| "unknown".to_owned(), |cost| cost.to_string())
}
