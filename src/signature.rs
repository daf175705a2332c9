//! Raw bytes become [`Verified`] here, or they go no further.
//!
//! Lives here: the only HMAC of the crate. Does not: HTTP; the layer in `http/webhook.rs` brings header and body.

use std::fmt;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::secret::Secret;

/// What a signature header's value begins with.
const SCHEME: &[u8] = b"sha256=";

/// An HMAC-SHA256, as sent in `X-NEXO-Signature`. Not yet compared with anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signature([u8; 32]);

/// The header's value is not `sha256=` and 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `sha256=` followed by 64 lower-case hex digits")]
pub struct MalformedSignature;

impl Signature {
    /// Parses a header's value.
    ///
    /// # Errors
    /// [`MalformedSignature`], also for upper-case hex: the provider's guide compares text.
    pub fn parse(value: &[u8]) -> Result<Self, MalformedSignature> {
        let digits = value.strip_prefix(SCHEME).ok_or(MalformedSignature)?;
        if digits.iter().any(u8::is_ascii_uppercase) {
            return Err(MalformedSignature);
        }
        let mut mac = [0; 32];
        hex::decode_to_slice(digits, &mut mac).map_err(|_| MalformedSignature)?;
        Ok(Self(mac))
    }

    /// From the bytes kept as evidence.
    #[must_use]
    pub fn from_bytes(mac: [u8; 32]) -> Self {
        Self(mac)
    }

    /// The bytes to keep as evidence.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256={}", hex::encode(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Signs bodies, and checks signatures, with one key.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// The provider's key: the SHA-256 digest, 32 bytes, of the plaintext secret (provider's guide).
    #[must_use]
    pub fn from_secret(secret: &Secret) -> Self {
        Self::from_key(&Sha256::digest(secret.reveal()))
    }

    /// Any bytes as the key: for telling apart the ways in which people get the key wrong.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// Signs a body.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> Signature {
        Signature(self.0.clone().chain_update(body).finalize().into_bytes().into())
    }

    /// Whether this is the body's signature; takes as long whichever byte differs.
    fn matches(&self, body: &[u8], signature: &Signature) -> Choice {
        self.sign(body).0.ct_eq(&signature.0)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The SHA-256 of a body: what makes two arrivals one event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digests a body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// From bytes kept in a store.
    #[must_use]
    pub fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The bytes to keep in a store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that the provider has signed. Only [`Keyring::verify`] makes one, and the store for evidence kept earlier.
#[derive(Clone)]
pub struct Verified {
    body: Bytes,
    digest: Digest,
    signature: Signature,
}

impl Verified {
    /// Evidence that was verified before it was stored.
    pub(crate) fn from_evidence(body: Bytes, digest: Digest, signature: Signature) -> Self {
        Self { body, digest, signature }
    }

    /// The bytes exactly as received.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body's digest: equal for the same event sent again.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The signature that was checked.
    #[must_use]
    pub fn signature(&self) -> Signature {
        self.signature
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({} bytes, {:?})", self.body.len(), self.digest)
    }
}

/// The signature is not this body's under any active secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the signature of these bytes under any active secret")]
pub struct Mismatch;

/// The active secrets: one, or two while a secret is being rotated.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: SigningKey,
    previous: Option<SigningKey>,
}

impl Keyring {
    /// A keyring of the present secret and, while it is being rotated out, the one before.
    #[must_use]
    pub fn new(current: &Secret, previous: Option<&Secret>) -> Self {
        Self { current: SigningKey::from_secret(current), previous: previous.map(SigningKey::from_secret) }
    }

    /// Checks a signature over a body's raw bytes, for each secret in constant time. How long it takes tells which of
    /// the active secrets has made a signature, which its sender knows, and nothing of one that none has made.
    ///
    /// # Errors
    /// [`Mismatch`] when no active secret made it.
    pub fn verify(&self, body: Bytes, signature: Signature) -> Result<Verified, Mismatch> {
        let matches = |key: &SigningKey| bool::from(key.matches(&body, &signature));
        if matches(&self.current) || self.previous.as_ref().is_some_and(matches) {
            Ok(Verified { digest: Digest::of(&body), body, signature })
        } else {
            Err(Mismatch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn takes_lower_case_hex_of_the_right_length_only() {
        let good = format!("sha256={}", "0a".repeat(32));
        assert_eq!(Signature::parse(good.as_bytes()).unwrap().to_string(), good);
        for wrong in [
            String::new(),
            "0a".repeat(32),
            good.to_uppercase(),
            good.replace("0a", "0A"),
            format!("{good}0"),
            format!("{good}00"),
            good[..good.len() - 1].to_owned(),
            good.replace("sha256", "sha1"),
            format!("{good},{good}"),
            format!(" {good}"),
        ] {
            assert_eq!(Signature::parse(wrong.as_bytes()), Err(MalformedSignature), "{wrong}");
        }
    }

    #[test]
    fn both_secrets_count_while_one_is_rotated_out() {
        let body = Bytes::from_static(b"{}");
        let old = SigningKey::from_secret(&secret("old")).sign(&body);
        assert!(Keyring::new(&secret("new"), Some(&secret("old"))).verify(body.clone(), old).is_ok());
        assert_eq!(Keyring::new(&secret("new"), None).verify(body, old).unwrap_err(), Mismatch);
    }

    #[test]
    fn no_key_and_no_body_is_printed() {
        let body = Bytes::from_static(b"+84981234567");
        let keyring = Keyring::new(&secret("new"), Some(&secret("old")));
        assert_eq!(format!("{keyring:?}"), "Keyring { current: ***, previous: Some(***) }");
        let signature = SigningKey::from_secret(&secret("old")).sign(&body);
        assert_eq!(format!("{signature:?}"), signature.to_string());
        let verified = keyring.verify(body, signature).unwrap();
        let digest = hex::encode(verified.digest().as_bytes());
        assert_eq!(format!("{verified:?}"), format!("Verified(12 bytes, {digest})"));
    }

    proptest! {
        #[test]
        fn any_changed_byte_breaks_the_signature(body in vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let keyring = Keyring::new(&secret("s"), None);
            let signature = SigningKey::from_secret(&secret("s")).sign(&body);
            let verified = keyring.verify(body.clone().into(), signature).unwrap();
            prop_assert_eq!(verified.body(), &body);

            let mut changed = body.clone();
            changed[at.index(body.len())] ^= flip;
            prop_assert_eq!(keyring.verify(changed.into(), signature).unwrap_err(), Mismatch);

            let mut forged = *signature.as_bytes();
            forged[at.index(32)] ^= flip;
            prop_assert_eq!(keyring.verify(body.into(), Signature::from_bytes(forged)).unwrap_err(), Mismatch);
        }

        #[test]
        fn parsing_undoes_printing_and_never_panics(mac in any::<[u8; 32]>(), noise in vec(any::<u8>(), 0..90)) {
            let signature = Signature::from_bytes(mac);
            prop_assert_eq!(Signature::parse(signature.to_string().as_bytes()).unwrap(), signature);
            if let Ok(parsed) = Signature::parse(&noise) {
                prop_assert_eq!(parsed.to_string().into_bytes(), noise);
            }
        }
    }
}
