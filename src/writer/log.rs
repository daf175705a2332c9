//! The log lines of what was committed: a summary once a second, and lines for single events.

use std::time::{Duration, Instant};

use tracing::field::display;

use crate::{
    batch::{Batch, FoldedEvent, FoldedQuarantine, Outcome},
    logs::Events,
    store::Kept,
};

/// Shortest time between two summaries. A line for each commit costs a lone one an eighth of its processor time.
const PAUSE: Duration = Duration::from_secs(1);

/// Lines for single events between two summaries with [`Events::Sampled`]: all events of a quiet service, and at full
/// speed too few to be measured.
const SAMPLE: usize = 20;

/// What was committed since the last summary.
pub(super) struct Log {
    events: Events,
    new: usize,
    older: usize,
    repeated: usize,
    /// Events that got a line of their own.
    shown: usize,
    /// Events that did not because there were too many.
    left_out: usize,
    /// When to write the next summary, if there is anything to write.
    pub(super) due: Option<Instant>,
    written: Option<Instant>,
}

impl Log {
    pub(super) fn new(events: Events) -> Self {
        Self { events, new: 0, older: 0, repeated: 0, shown: 0, left_out: 0, due: None, written: None }
    }

    /// Logs each quarantined body, single events as configured, and a summary when one is due.
    pub(super) fn report(&mut self, batch: &Batch, kept: &[Kept]) {
        let (events, bodies) = kept.split_at(batch.events.len());
        let quarantined_bodies = batch.quarantine.iter().zip(bodies).filter(|(_, kept)| kept.is_ok());
        quarantined_bodies.for_each(|(body, _)| quarantined(body));
        for (event, kept) in batch.events.iter().zip(events) {
            let Ok(outcome) = kept else { continue };
            match self.events {
                Events::Off => {}
                Events::Sampled if self.shown >= SAMPLE => self.left_out += 1,
                Events::Sampled | Events::All => {
                    self.shown += 1;
                    committed(event, *outcome);
                }
            }
            match outcome {
                Outcome::New => self.new += 1,
                Outcome::Kept => self.older += 1,
                Outcome::Seen | Outcome::Quarantined | Outcome::TestPing => self.repeated += 1,
            }
        }
        if events.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = *self.due.get_or_insert_with(|| self.written.map_or(now, |written| written + PAUSE));
        if due <= now {
            self.write();
        }
    }

    /// Writes the summary, if anything was committed since the last one.
    pub(super) fn write(&mut self) {
        let Self { new, older, repeated, left_out, due, .. } =
            std::mem::replace(self, Self::new(self.events));
        self.written = Some(Instant::now());
        if due.is_some() {
            let left_out = (left_out > 0).then_some(left_out);
            tracing::info!(new, older, repeated, left_out, "committed");
        }
    }
}

fn committed(event: &FoldedEvent, outcome: Outcome) {
    let told = &event.event.told;
    let phone = told.phone.as_ref().map(display);
    tracing::info!(
        id = told.id.as_str(),
        status = told.status.as_str(),
        carrier = told.carrier,
        phone,
        outcome = outcome.word(),
        times = event.times,
        "event"
    );
}

fn quarantined(body: &FoldedQuarantine) {
    let digest = body.verified.digest();
    match body.outcome() {
        Outcome::TestPing => tracing::info!(%digest, "test ping: kept in quarantine, not a delivery"),
        _ => {
            let (reason, detail) = (body.reason.code(), &body.reason);
            tracing::warn!(reason, %detail, %digest, "quarantined: verified, but not understood");
        }
    }
}
