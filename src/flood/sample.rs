//! Events as the provider sends them, made by hand and signed.
//!
//! Lives here: a body's fields in the provider's order, the request around it. Does not: many of them at once
//! (`events`).

use std::time::Duration;

use serde::Serialize;

use super::target::Target;
use crate::{
    clock::Timestamp,
    money::Money,
    phone::Phone,
    signature::{Signature, SigningKey},
};

/// What became of an OTP.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It reached the phone, and costs this much.
    Delivered(Money),
    /// It did not, for this reason.
    Failed(String),
}

/// One event.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The OTP's id.
    pub id: String,
    /// Whom the OTP was sent to.
    pub phone: Phone,
    /// Over which carrier.
    pub carrier: String,
    /// What became of it.
    pub outcome: Outcome,
    /// When it was sent.
    pub created_at: Timestamp,
    /// When it became what it is.
    pub completed_at: Timestamp,
}

#[derive(Serialize)]
struct Fields<'a> {
    r#type: &'a str,
    id: &'a str,
    phone: &'a str,
    carrier: &'a str,
    status: &'a str,
    cost: Money,
    error_code: Option<&'a str>,
    created_at: Timestamp,
    completed_at: Timestamp,
}

impl Sample {
    /// The body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let (r#type, status, cost, error_code) = match &self.outcome {
            Outcome::Delivered(cost) => ("otp.delivered", "delivered", *cost, None),
            Outcome::Failed(code) => ("otp.failed", "failed", Money::ZERO, Some(code.as_str())),
        };
        let fields = Fields {
            r#type,
            id: &self.id,
            phone: self.phone.reveal(),
            carrier: &self.carrier,
            status,
            cost,
            error_code,
            created_at: self.created_at,
            completed_at: self.completed_at,
        };
        serde_json::to_vec(&fields).expect("texts, a number and times are JSON")
    }
}

/// The whole second: the provider writes times without a fraction.
#[must_use]
pub fn whole_second(time: Timestamp) -> Timestamp {
    let micros = time.micros();
    Timestamp::from_micros(micros - micros.rem_euclid(1_000_000)).unwrap_or(time)
}

/// The time so long before; `time` itself where nothing is.
#[must_use]
pub fn before(time: Timestamp, earlier: Duration) -> Timestamp {
    let earlier = i64::try_from(earlier.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(time.micros().saturating_sub(earlier)).unwrap_or(time)
}

/// How long an OTP is under way, in events made here.
pub const UNDER_WAY: Duration = Duration::from_secs(25);

/// A signed webhook, ready to be sent.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The whole request.
    pub request: Vec<u8>,
    /// The body's signature.
    pub signature: Signature,
}

impl Webhook {
    /// Signs a body.
    #[must_use]
    pub fn new(target: &Target, body: &[u8], key: &SigningKey) -> Self {
        let signature = key.sign(body);
        let digits = hex::encode(signature.as_bytes());
        let mut request =
            format!("{}{digits}\r\ncontent-length: {}\r\n\r\n", target.webhook_head(), body.len())
                .into_bytes();
        request.extend_from_slice(body);
        Self { request, signature }
    }
}
