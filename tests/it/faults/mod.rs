//! The promises held against what happens to a service.
//!
//! Each test has a count that is small enough for every day. The long run is
//! `tests/run --rounds N --seed N -- faults::NAME --nocapture`, and `RELIABILITY.md` says what it found.

#![expect(clippy::print_stdout, reason = "the figures of a long run")]

mod away;
mod canary;
mod clocks;
mod contention;
mod disk;
mod endurance;
mod failing_calls;
mod hostile;
mod idle;
mod kill;
mod lost_writes;
mod proxies;
mod readers;
mod restored;
mod sends;
mod wire;

use nexo_receiver::{cli::rebuild::check, store::Store};

use crate::support::{ledger::Ledger, rounds, seed};

/// Holds a store against the record of all answers, and its states against their evidence.
async fn judge(what: &str, ledger: &Ledger, store: &dyn Store) {
    let kept = ledger.holds_in(store).await;
    let checked = check(store, None, None, || {}).await.unwrap();
    assert!(checked.differing.is_empty(), "{checked}");
    println!(
        "{what}: {} answers of 200 for {kept} events, none lost, none twice; {} of 503, {} without an answer; {} states \
         are what {} events say",
        ledger.kept(),
        ledger.refused(),
        ledger.unanswered(),
        checked.deliveries,
        checked.events
    );
}
