//! Bytes that say what became of an OTP, and who vouches for them.
//!
//! Lives here: [`Proof`]. Does not: how a signature is checked (`signature`), what the bytes say (`event`, `watch`, `answers`).

use std::fmt;

use bytes::Bytes;

use crate::signature::{Digest, Signature, Verified};

/// The bytes of an event, exactly as they came: what the event can be held to at any later time.
#[derive(Clone)]
pub enum Proof {
    /// The provider has signed them.
    Signed(Verified),
    /// Nobody has: a caller with a token told them, or the provider itself when it was called.
    Unsigned(Unsigned),
}

/// Bytes that nobody has signed.
#[derive(Clone)]
pub struct Unsigned {
    body: Bytes,
    digest: Digest,
}

impl Proof {
    /// Bytes without a signature.
    #[must_use]
    pub fn unsigned(body: Bytes) -> Self {
        Self::Unsigned(Unsigned { digest: Digest::of(&body), body })
    }

    /// What a store has kept.
    pub(crate) fn from_evidence(body: Bytes, digest: Digest, signature: Option<Signature>) -> Self {
        match signature {
            Some(signature) => Self::Signed(Verified::from_evidence(body, digest, signature)),
            None => Self::Unsigned(Unsigned { body, digest }),
        }
    }

    /// The bytes exactly as received.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Signed(verified) => verified.body(),
            Self::Unsigned(unsigned) => &unsigned.body,
        }
    }

    /// The bytes' digest: equal for the same event received again.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Signed(verified) => verified.digest(),
            Self::Unsigned(unsigned) => unsigned.digest,
        }
    }

    /// The signature that was checked, if the bytes are signed.
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        match self {
            Self::Signed(verified) => Some(verified.signature()),
            Self::Unsigned(_) => None,
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(verified) => verified.fmt(f),
            Self::Unsigned(Unsigned { body, digest }) => {
                write!(f, "Unsigned({} bytes, {digest:?})", body.len())
            }
        }
    }
}
