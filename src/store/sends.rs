//! Sends that go through this service: each is on record before the provider is called.
//!
//! Lives here: what stands in the record, for both databases alike. Does not: calling (`sending`).
//!
//! A send is put on record in three steps, each a commit that may be repeated: **begun**, by a claim; **called**, just
//! before the provider is; and its end. Whoever finds a record that was begun and not called may take it over, since
//! `called` is only ever set by the claim that the record holds. So a key is free again whatever happens before that
//! step: an answer that was lost, a database that is away, a crash. A record that was called and has no end may have
//! been sent, and stands for ever. What was refused, or never reached the provider, is deleted.

use std::{fmt, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    phone::Phone,
    provider::Code,
    signature::{Signature, SigningKey},
};

/// For how long a key stands for its first request.
pub const KEPT_HOURS: u32 = 24;

/// How old a record that was begun and not called must be to be taken over. A begin and the call are milliseconds apart.
pub const TAKEN_OVER_AFTER: Duration = Duration::from_secs(2);

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

/// Who has begun a send. Random: whoever repeats a begin whose answer was lost recognizes its own record by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim(Uuid);

impl Claim {
    /// One that nobody has.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Tells another request under the same key: a random key and, under it, an HMAC of phone and code. Empty where no key
/// is given, since nobody can ask for that send again.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<u8>);

/// Bytes of a fingerprint's random key, which come first.
const FINGERPRINT_KEY: usize = 16;

/// Bytes of the HMAC after it.
const FINGERPRINT_MAC: usize = 32;

impl Fingerprint {
    /// Of no request.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Of a request, under a new key.
    #[must_use]
    pub fn of(phone: &Phone, code: &Code) -> Self {
        let key: [u8; FINGERPRINT_KEY] = Uuid::new_v4().into_bytes();
        let mac = mac(&key, phone, code);
        Self([key.as_slice(), mac.as_bytes()].concat())
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn mac(key: &[u8], phone: &Phone, code: &Code) -> Signature {
    SigningKey::from_key(key).sign(format!("{} {}", phone.reveal(), code.reveal()).as_bytes())
}

/// A send that is about to be made.
#[derive(Clone)]
pub struct SendRecord {
    /// What it is found again by.
    pub key: SendKey,
    /// Who makes it.
    pub claim: Claim,
    /// What tells another request under the same key.
    pub fingerprint: Fingerprint,
    /// Who is called.
    pub phone: Phone,
    /// When, by [`super::Store::now`].
    pub began_at: Timestamp,
}

impl SendRecord {
    /// A record begun before this is no longer answered to its key.
    pub(super) fn expired_before(&self) -> Timestamp {
        self.began_at.hours_before(KEPT_HOURS)
    }

    /// A record begun before this, and not called, is taken over.
    pub(super) fn taken_over_before(&self) -> Timestamp {
        let micros = i64::try_from(TAKEN_OVER_AFTER.as_micros()).unwrap_or(i64::MAX);
        let before = self.began_at.micros().saturating_sub(micros);
        Timestamp::from_micros(before).unwrap_or(Timestamp::EARLIEST)
    }
}

/// What came of asking for a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begun {
    /// The send is on record under this claim, which may go on.
    Now,
    /// Another claim has the key.
    Known(Recorded),
}

/// A record that another claim has put there.
#[derive(Clone, PartialEq, Eq)]
pub struct Recorded {
    pub(super) fingerprint: Vec<u8>,
    pub(super) phone: String,
    /// What has become of it.
    pub state: SendState,
}

/// What has become of a send on record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SendState {
    /// It was begun then, and has no end.
    UnderWay(Timestamp),
    /// It was made.
    Ended(SendOutcome),
}

impl Recorded {
    /// Whether it is of this request. A fingerprint of an earlier version was made with the provider's key, which may
    /// have changed since: then the phone decides.
    #[must_use]
    pub fn is_of(&self, phone: &Phone, code: &Code) -> bool {
        match self.fingerprint.split_at_checked(FINGERPRINT_KEY) {
            Some((key, kept)) if kept.len() == FINGERPRINT_MAC => {
                kept == mac(key, phone, code).as_bytes().as_slice()
            }
            _ => self.phone == phone.reveal(),
        }
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

/// What came of a send that was made, or may have been. Of any other nothing is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The provider has accepted it, with this answer.
    Accepted(Bytes),
    /// It may have been sent, and nobody will ever know from the answer.
    Unclear,
}

impl SendOutcome {
    /// The word that a store keeps. An earlier version has also kept `refused`, which frees its key.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Unclear => "unclear",
        }
    }

    /// What stands in the record beside the word.
    pub(super) fn answer(&self) -> Option<&[u8]> {
        match self {
            Self::Accepted(answer) => Some(answer),
            Self::Unclear => None,
        }
    }
}

impl fmt::Debug for SendOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What has become of a record, by its columns.
pub(super) fn state(began_at: Timestamp, outcome: Option<&str>, answer: Option<Vec<u8>>) -> SendState {
    match outcome {
        None => SendState::UnderWay(began_at),
        Some("accepted") => SendState::Ended(SendOutcome::Accepted(answer.unwrap_or_default().into())),
        Some(_) => SendState::Ended(SendOutcome::Unclear),
    }
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

    #[test]
    fn a_fingerprint_tells_requests_apart_and_is_never_the_same_twice() {
        let phone = |text| Phone::parse(text).unwrap();
        let code = |text| Code::parse(text).unwrap();
        let (ours, secret) = (phone("+84981234567"), code("482917"));
        let fingerprint = Fingerprint::of(&ours, &secret);
        assert_ne!(fingerprint.as_bytes(), Fingerprint::of(&ours, &secret).as_bytes());
        let kept = |fingerprint: Vec<u8>| Recorded {
            fingerprint,
            phone: ours.reveal().to_owned(),
            state: SendState::Ended(SendOutcome::Unclear),
        };
        let known = kept(fingerprint.as_bytes().to_vec());
        assert!(known.is_of(&ours, &secret));
        assert!(!known.is_of(&ours, &code("482918")) && !known.is_of(&phone("+84981234568"), &secret));
        // Of an earlier version, and of a send without a key.
        for other in [vec![7; 32], Vec::new()] {
            let known = kept(other);
            assert!(known.is_of(&ours, &code("482918")) && !known.is_of(&phone("+84981234568"), &secret));
        }
    }
}
