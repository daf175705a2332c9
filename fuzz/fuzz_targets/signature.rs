//! Any header's value: a signature prints as it was written, and nothing else is one.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nexo_receiver::{
    secret::Secret,
    signature::{Keyring, Signature, SigningKey},
};

static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new("fuzz".to_owned()));

fuzz_target!(|value: &[u8]| {
    let Ok(signature) = Signature::parse(value) else { return };
    assert_eq!(signature.to_string().as_bytes(), value);
    assert_eq!(Signature::from_bytes(*signature.as_bytes()), signature);
    let body = &value[..value.len() / 2];
    let is_right = SigningKey::from_secret(&SECRET).sign(body) == signature;
    let verified = Keyring::new(&SECRET, None).verify(body.to_vec().into(), signature);
    assert_eq!(verified.is_ok(), is_right);
});
