//! What the sandbox saw of a receiver: each webhook that it sent, and what came back.
//!
//! Lives here: the record, kept in memory. Does not: sending (`courier`).

use std::{fmt, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;

use super::fault::Fault;
use crate::clock::Timestamp;

/// So many attempts are kept at least; twice as many at most.
const KEPT: usize = 10_000;

/// One webhook, sent once.
#[derive(Clone)]
pub struct Attempt {
    /// The OTP's id.
    pub id: String,
    /// The status that the event tells.
    pub status: &'static str,
    /// How many times this event has been sent by now: 1, more when it is repeated.
    pub nth: u32,
    /// What is wrong with it on purpose.
    pub fault: Option<Fault>,
    /// The body.
    pub body: Bytes,
    /// The signature header's value.
    pub signature: String,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// How long the receiver took.
    pub took: Duration,
    /// Status and text of the answer, or why there was none.
    pub answer: Result<(u16, String), String>,
}

impl Attempt {
    /// The status of the answer, if there was one.
    #[must_use]
    pub fn answered(&self) -> Option<u16> {
        self.answer.as_ref().ok().map(|(status, _)| *status)
    }

    /// Whether the receiver took it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.answered().is_some_and(|status| (200..300).contains(&status))
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, status, nth, fault, answer, took, .. } = self;
        write!(f, "Attempt({id} {status}, {nth}., {fault:?}: {answer:?} in {took:?})")
    }
}

/// All attempts, in the order in which they were answered.
pub(super) struct AttemptLog(watch::Sender<Vec<Attempt>>);

impl AttemptLog {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    pub(super) fn add(&self, attempt: Attempt) {
        self.0.send_modify(|attempts| {
            if attempts.len() == 2 * KEPT {
                attempts.drain(..KEPT);
            }
            attempts.push(attempt);
        });
    }

    /// Calls `look` with all of them.
    pub(super) fn with<T>(&self, look: impl FnOnce(&[Attempt]) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Waits until `enough` is content with what there is.
    pub(super) async fn until(&self, enough: impl Fn(&[Attempt]) -> bool) -> Vec<Attempt> {
        let mut changes = self.0.subscribe();
        let attempts = changes.wait_for(|attempts| enough(attempts)).await;
        attempts.expect("the sender is borrowed here").clone()
    }
}
