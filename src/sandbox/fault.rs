//! What can go wrong with a webhook, on demand.
//!
//! Lives here: the faults and their names. Does not: how they are done (`courier`).

use std::fmt;

/// A fault of the webhook of one OTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Sent twice: the same bytes, the same signature.
    Twice,
    /// Sent long after the OTP's state is final.
    Late,
    /// After the final event comes an older one that says `sent`.
    SentAfter,
    /// After the final event comes an older one that says the opposite.
    OppositeAfter,
    /// Before the final event comes an older one that says the opposite.
    OppositeBefore,
    /// Signed with another secret.
    WrongSignature,
    /// Signed rightly, but the body is another: that of the `sent` event.
    StaleBody,
    /// Never sent.
    Dropped,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Twice,
        Self::Late,
        Self::SentAfter,
        Self::OppositeAfter,
        Self::OppositeBefore,
        Self::WrongSignature,
        Self::StaleBody,
        Self::Dropped,
    ];

    /// Its name, as it is given on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Twice => "twice",
            Self::Late => "late",
            Self::SentAfter => "sent-after",
            Self::OppositeAfter => "opposite-after",
            Self::OppositeBefore => "opposite-before",
            Self::WrongSignature => "wrong-signature",
            Self::StaleBody => "stale-body",
            Self::Dropped => "dropped",
        }
    }

    /// The fault of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Twice => "the webhook comes twice",
            Self::Late => "the webhook comes late",
            Self::SentAfter => "an older event, `sent`, comes after it",
            Self::OppositeAfter => "an older event that says the opposite comes after it",
            Self::OppositeBefore => "an older event that says the opposite comes before it",
            Self::WrongSignature => "the webhook is signed with another secret",
            Self::StaleBody => "the webhook's body is not the one that was signed",
            Self::Dropped => "the webhook never comes",
        })
    }
}
