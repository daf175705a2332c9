//! What becomes of what is counted: the values of the label `outcome`.
//!
//! Lives here: enums, and their words. Does not: the counters (the parent).

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::batch::Outcome;

/// What became of one webhook call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// Committed.
    Kept(Outcome),
    /// Not signed with an active secret.
    BadSignature,
    /// Over the size limit.
    TooLarge,
    /// The body took too long.
    TooSlow,
    /// The sender hung up, or broke off the body.
    BrokenOff,
    /// Sent to a path that is not the webhook's.
    WrongPath,
    /// No room in memory or in the queue.
    Full,
    /// Its delivery is locked by another transaction.
    Contended,
    /// The store refuses it, in quarantine too.
    Refused,
    /// The store did not keep it, or not in time.
    StoreUnavailable,
}

impl Fate {
    /// Every one, so that each is a number from the start.
    pub(super) const ALL: [Self; 14] = [
        Self::Kept(Outcome::New),
        Self::Kept(Outcome::Kept),
        Self::Kept(Outcome::Seen),
        Self::Kept(Outcome::Quarantined),
        Self::Kept(Outcome::TestPing),
        Self::BadSignature,
        Self::TooLarge,
        Self::TooSlow,
        Self::BrokenOff,
        Self::WrongPath,
        Self::Full,
        Self::Contended,
        Self::Refused,
        Self::StoreUnavailable,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Kept(outcome) => outcome.word(),
            Self::BadSignature => "bad_signature",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::BrokenOff => "broken_off",
            Self::WrongPath => "wrong_path",
            Self::Full => "full",
            Self::Contended => "contended",
            Self::Refused => "refused",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

impl EncodeLabelValue for Fate {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(self.label())
    }
}

/// What became of one request to send an OTP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SendFate {
    /// The provider has accepted it.
    Accepted,
    /// The provider said no.
    Refused,
    /// It may have been sent.
    MayHaveBeenSent,
    /// Nothing was sent: the provider was not reached.
    NotReached,
    /// Nothing was sent: its key was another request's, or the store away.
    NotMade,
    /// Answered as an earlier one with its key.
    Again,
}

impl SendFate {
    /// Every one, so that each is a number from the start.
    pub(super) const ALL: [Self; 6] =
        [Self::Accepted, Self::Refused, Self::MayHaveBeenSent, Self::NotReached, Self::NotMade, Self::Again];
}

impl EncodeLabelValue for SendFate {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::MayHaveBeenSent => "may_have_been_sent",
            Self::NotReached => "not_reached",
            Self::NotMade => "not_made",
            Self::Again => "again",
        })
    }
}

/// What became of one question to the provider for a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PollFate {
    /// It is delivered or failed, and that is committed.
    Settled,
    /// It is still on its way.
    StillSent,
    /// The provider does not know it.
    NotFound,
    /// The answer can't be read.
    NotUnderstood,
    /// The provider does not want to be asked.
    Refused,
    /// No answer came.
    NoAnswer,
    /// The answer could not be committed.
    NotKept,
}

impl PollFate {
    /// Every one, so that each is a number from the start.
    pub(super) const ALL: [Self; 7] = [
        Self::Settled,
        Self::StillSent,
        Self::NotFound,
        Self::NotUnderstood,
        Self::Refused,
        Self::NoAnswer,
        Self::NotKept,
    ];
}

impl PollFate {
    /// Its word in log lines and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::StillSent => "still_sent",
            Self::NotFound => "not_found",
            Self::NotUnderstood => "not_understood",
            Self::Refused => "refused",
            Self::NoAnswer => "no_answer",
            Self::NotKept => "not_kept",
        }
    }
}

impl EncodeLabelValue for PollFate {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(self.word())
    }
}
