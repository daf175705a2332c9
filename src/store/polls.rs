//! Deliveries that the provider is to be asked for, since no webhook has told what became of them.
//!
//! Lives here: what replicas agree on through the database. Does not: asking (`reconcile`).
//!
//! A commit of a delivery that is still `sent` puts it in a queue. Who asks takes a turn first: as many deliveries as
//! may be asked for in it, each with the time at which it is to be asked for again, should whoever took it not live to
//! ask. The next turn, any replica's, begins when this one's time is over: so all of them together keep one pace. Times
//! are the database's clock's, which is one for all replicas.

use std::time::Duration;

use crate::delivery::DeliveryId;

/// What is to be agreed on for one turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// How long after its creation a delivery is asked for first.
    pub after: Duration,
    /// How many may be asked for in this turn.
    pub most: u32,
    /// From one call to the next.
    pub pace: Duration,
    /// For how long at least nobody else asks for them.
    pub lease: Duration,
}

/// The longest time from one poll of a delivery to the next.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// What a turn has brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turned {
    /// To be asked for now.
    pub polls: Vec<DeliveryId>,
    /// Taken out of the queue: a webhook has told of them.
    pub settled: u64,
    /// Likewise: they are too old, and stay `sent`.
    pub given_up: u64,
}

/// How many are taken out of the queue in one turn at most.
pub(super) const TAKEN_OUT: u32 = 5_000;

/// Whole microseconds, as databases count.
pub(super) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
