//! What the provider would send: bodies and their signatures.

use bytes::Bytes;
use nexo_receiver::{
    secret::Secret,
    signature::{Keyring, SigningKey, Verified},
};

/// The webhook secret of every service under test.
pub const WEBHOOK_SECRET: &str = "whsec_under_test";

/// The signature header's value for a body, under the secret of the service under test.
pub fn sign(body: &[u8]) -> String {
    sign_with(WEBHOOK_SECRET, body)
}

/// The signature header's value for a body, under any secret.
pub fn sign_with(secret: &str, body: &[u8]) -> String {
    SigningKey::from_secret(&Secret::new(secret.to_owned())).sign(body).to_string()
}

/// A body that was signed under any secret, and checked.
pub fn verified(secret: &str, body: &[u8]) -> Verified {
    let (body, secret) = (Bytes::copy_from_slice(body), Secret::new(secret.to_owned()));
    let signature = SigningKey::from_secret(&secret).sign(&body);
    Keyring::new(&secret, None).verify(body, signature).unwrap()
}

/// An event as the provider's guide shows it.
pub fn event(id: &str, status: &str) -> Vec<u8> {
    format!(
        "{{\"type\":\"otp.{status}\",\"id\":\"{id}\",\"phone\":\"+84981234567\",\"carrier\":\"viettel\",\
         \"status\":\"{status}\",\"cost\":0.022,\"error_code\":null,\"created_at\":\"2026-05-26T10:00:00Z\",\
         \"completed_at\":\"2026-05-26T10:00:25Z\"}}"
    )
    .into_bytes()
}

/// A signed webhook as bytes of HTTP/1.1.
pub fn request(body: &[u8]) -> Vec<u8> {
    let mut request = head(body.len(), &sign(body)).into_bytes();
    request.extend(body);
    request
}

/// The head of a webhook that announces a body.
pub fn head(length: usize, signature: &str) -> String {
    format!(
        "POST /webhooks/nexo HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         x-nexo-signature: {signature}\r\ncontent-length: {length}\r\n\r\n"
    )
}
