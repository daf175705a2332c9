//! Sends that go through this service: each is on record before the provider is called.
//!
//! Lives here: what stands in the record, for both databases alike. Does not: calling (`sending`).

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use crate::{clock::Timestamp, phone::Phone, provider::Refusal, signature::Signature};

/// For how long a key stands for its first request.
pub const KEPT_HOURS: u32 = 24;

/// The longest key of a caller's, in bytes.
const LONGEST_KEY: usize = 255;

/// What a send is found again by: the caller's own word for it, or one of ours where it has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendKey(String);

/// The text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has 1 to {LONGEST_KEY} characters of visible ASCII, a UUID for example")]
pub struct InvalidSendKey;

impl SendKey {
    /// Parses a caller's key.
    ///
    /// # Errors
    /// [`InvalidSendKey`] for anything but 1 to 255 characters of visible ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidSendKey> {
        let fits =
            (1..=LONGEST_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidSendKey) }
    }

    /// A key that nobody has.
    #[must_use]
    pub fn fresh() -> Self {
        Self(format!("own {}", Uuid::new_v4()))
    }

    /// Its text; of one of ours it has a space, which no caller's has.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A send that is about to be made.
#[derive(Clone, Debug)]
pub struct SendRecord {
    /// What it is found again by.
    pub key: SendKey,
    /// What tells another request under the same key: a keyed hash, since a code of few digits could be guessed from
    /// any other.
    pub fingerprint: Signature,
    /// Who is called.
    pub phone: Phone,
    /// When.
    pub began_at: Timestamp,
}

/// What is known of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begun {
    /// Nothing was: the send is on record now, and whoever asked makes it.
    Now,
    /// Somebody makes it since then, or had an end in the middle of it.
    UnderWay(Timestamp),
    /// It was made.
    Ended(SendOutcome),
    /// Another request has this key.
    OtherRequest,
}

/// What came of a send.
#[derive(Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The provider has accepted it, with this answer.
    Accepted(Bytes),
    /// The provider says no: nothing was sent.
    Refused(Refusal),
    /// It may have been sent, and nobody will ever know from the answer.
    Unclear,
}

impl SendOutcome {
    /// The word that a store keeps.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Refused(_) => "refused",
            Self::Unclear => "unclear",
        }
    }
}

impl fmt::Debug for SendOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands in the record beside the outcome: the answer or the refusal's word, and where to pay in.
pub(super) fn word(outcome: &SendOutcome) -> (Option<&[u8]>, Option<&str>) {
    match outcome {
        SendOutcome::Accepted(answer) => (Some(answer), None),
        SendOutcome::Refused(refusal) => (Some(refusal.word().as_bytes()), refusal.deposit_url()),
        SendOutcome::Unclear => (None, None),
    }
}

/// The outcome that stands in the record, if it has one.
pub(super) fn outcome(
    outcome: Option<&str>,
    answer: Option<Vec<u8>>,
    deposit_url: Option<String>,
) -> Option<SendOutcome> {
    let answer = answer.unwrap_or_default();
    Some(match outcome? {
        "accepted" => SendOutcome::Accepted(answer.into()),
        "refused" => SendOutcome::Refused(Refusal::of(&String::from_utf8_lossy(&answer), deposit_url)),
        _ => SendOutcome::Unclear,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii() {
        for right in ["1", "8e03978e-40d5-43dd-bc93-6894a57f9324", &"x".repeat(255)] {
            assert_eq!(SendKey::parse(right).unwrap().as_str(), right);
        }
        for wrong in ["", "a b", "é", "a\n", &"x".repeat(256), SendKey::fresh().as_str()] {
            assert_eq!(SendKey::parse(wrong), Err(InvalidSendKey), "{wrong}");
        }
        assert_ne!(SendKey::fresh(), SendKey::fresh());
    }
}
