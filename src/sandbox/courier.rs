//! One OTP on its way: the wait, its end, and the webhooks that tell of it, with the faults asked for.
//!
//! Lives here: posting, sending again. Does not: deciding what is to become of it (`script`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use tokio::time::{Instant, sleep_until, timeout};
use url::Url;

use super::{
    Retry, attempt::Attempt, fault::Fault, otp::Otp, outcome::Outcome, provider::Provider, script::Plan,
};
use crate::{call::call, clock::Timestamp, secret::Secret, signature::SigningKey};

/// The most of an answer's text that is kept, in characters.
const KEPT_TEXT: usize = 200;

/// Where webhooks go, and how.
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) key: SigningKey,
    pub(super) retry: Retry,
    /// How long a receiver may take to answer.
    pub(super) timeout: Duration,
}

/// The bytes of one webhook.
struct Webhook {
    status: &'static str,
    body: Bytes,
    signature: String,
}

impl Webhook {
    fn signed(otp: &Otp, key: &SigningKey) -> Self {
        let body = otp.event();
        Self { status: otp.status(), signature: key.sign(&body).to_string(), body }
    }
}

/// What carries one OTP to its end. As long as it lives the OTP counts as under way.
pub(super) struct Courier {
    provider: Arc<Provider>,
    id: String,
    plan: Plan,
}

impl Courier {
    pub(super) fn new(provider: Arc<Provider>, id: String, plan: Plan) -> Self {
        provider.under_way.send_modify(|count| *count += 1);
        Self { provider, id, plan }
    }

    pub(super) async fn run(self) {
        wait(self.plan.delay).await;
        let Some(otp) = self.finish() else { return };
        let Some(target) = &self.provider.target else { return };
        if self.plan.fault == Some(Fault::Late) {
            let slow = self.provider.state().script.slow;
            wait(slow).await;
        }
        let mut sent = Vec::new();
        for webhook in webhooks(&otp, &target.key, self.plan.fault) {
            let before = sent.iter().filter(|body| **body == webhook.body).count();
            sent.push(webhook.body.clone());
            self.post(target, &webhook, u32::try_from(before).unwrap_or(u32::MAX)).await;
        }
    }

    fn finish(&self) -> Option<Otp> {
        let error_code = match &self.plan.outcome {
            Outcome::Failed(code) => Some(code.clone()),
            _ => None,
        };
        let mut state = self.provider.state();
        let otp = state.otps.get_mut(&self.id)?;
        otp.finish(error_code);
        Some(otp.clone())
    }

    /// Posts until the receiver takes it, or as often as is tried.
    async fn post(&self, target: &Target, webhook: &Webhook, before: u32) {
        let mut pause = target.retry.pause;
        for nth in 1..=target.retry.attempts {
            let attempt = self.attempt(target, webhook, before.saturating_add(nth)).await;
            let is_taken = attempt.is_taken();
            self.provider.attempts.add(attempt);
            if is_taken || nth == target.retry.attempts {
                return;
            }
            wait(pause).await;
            pause = pause.saturating_mul(2);
        }
    }

    async fn attempt(&self, target: &Target, webhook: &Webhook, nth: u32) -> Attempt {
        let request = Request::post("/")
            .header(CONTENT_TYPE, "application/json")
            .header("X-NEXO-Signature", &webhook.signature);
        let (sent_at, started) = (Timestamp::now(), Instant::now());
        let answer = match timeout(target.timeout, call(&target.url, request, webhook.body.clone())).await {
            Ok(Ok(reply)) => Ok((reply.status.as_u16(), reply.text.chars().take(KEPT_TEXT).collect())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let attempt = Attempt {
            id: self.id.clone(),
            status: webhook.status,
            nth,
            fault: self.plan.fault,
            body: webhook.body.clone(),
            signature: webhook.signature.clone(),
            sent_at,
            took: started.elapsed(),
            answer,
        };
        let (answer, seconds) = (attempt.answered(), attempt.took.as_secs_f64());
        let error = attempt.answer.as_ref().err();
        tracing::info!(id = attempt.id, status = attempt.status, nth, answer, error, seconds, "webhook");
        attempt
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.provider.under_way.send_modify(|count| *count -= 1);
    }
}

async fn wait(how_long: Duration) {
    match Instant::now().checked_add(how_long) {
        Some(then) => sleep_until(then).await,
        // Beyond the end of all clocks.
        None => std::future::pending().await,
    }
}

/// What is posted for a final state, in order.
fn webhooks(otp: &Otp, key: &SigningKey, fault: Option<Fault>) -> Vec<Webhook> {
    let right = || Webhook::signed(otp, key);
    let Some(fault) = fault else { return vec![right()] };
    match fault {
        Fault::Twice => vec![right(), right()],
        Fault::Late => vec![right()],
        Fault::SentAfter => vec![right(), Webhook::signed(&otp.unfinished(), key)],
        Fault::OppositeAfter => vec![right(), Webhook::signed(&otp.opposite(), key)],
        Fault::OppositeBefore => vec![Webhook::signed(&otp.opposite(), key), right()],
        Fault::WrongSignature => {
            let wrong = SigningKey::from_secret(&Secret::new("another secret than the receiver's".into()));
            vec![Webhook::signed(otp, &wrong)]
        }
        Fault::StaleBody => vec![Webhook { body: otp.unfinished().event(), ..right() }],
        Fault::Dropped => vec![],
    }
}
