//! OTPs that go through this service to the provider: each on record before the call, and called once.
//!
//! Lives here: [`Sending`]: who makes a send, who waits for another's, and what is done when its outcome is not known.
//! Does not: HTTP; how the provider is called (`provider`); what stands in the record (`store::sends`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at},
};

use crate::{
    answers,
    clock::Timestamp,
    event::Arrival,
    metrics::{Metrics, SendFate},
    phone::Phone,
    provider::{CallError, Code, Options, Provider, Refusal},
    signature::{Signature, SigningKey},
    store::{
        Store, StoreError,
        sends::{Begun, SendKey, SendOutcome, SendRecord},
    },
    writer::Writer,
};

/// How often another replica's end of a send is asked for.
const PAUSE: Duration = Duration::from_millis(100);

/// How long, beyond the call itself, a send may be under way: to be put on record and taken off it.
const MARGIN: Duration = Duration::from_secs(10);

/// A request to send an OTP.
pub struct Request {
    /// The caller's word for it; requests with the same are one.
    pub key: Option<SendKey>,
    /// Who is called.
    pub phone: Phone,
    /// What is told.
    pub code: Code,
}

/// What a caller is told.
#[derive(Debug)]
pub enum Told {
    /// The provider has accepted it, with this answer.
    Accepted(Bytes),
    /// The provider says no.
    Refused(Refusal),
    /// It may have been sent, or was and could not be recorded. It is never sent again by itself.
    MayHaveBeenSent,
    /// Certainly not sent: the provider was not reached, for this reason.
    NotReached(String),
    /// Certainly not sent: another request has its key.
    OtherRequest,
    /// Certainly not sent: it could not be put on record.
    NotOnRecord(StoreError),
}

/// What a caller is told, and whether another one was told it before.
#[derive(Debug)]
pub struct Answer {
    /// What.
    pub told: Told,
    /// Whether it is the answer to an earlier request with the same key.
    pub again: bool,
}

/// Sends, as this replica makes them.
pub struct Sending {
    provider: Provider,
    store: Arc<dyn Store>,
    writer: Writer,
    metrics: Arc<Metrics>,
    fingerprints: SigningKey,
    /// How long after its beginning a send is certainly no longer under way.
    lease: Duration,
    /// Told whenever one of this replica's has ended.
    ended: Notify,
}

impl Sending {
    /// Ready to send.
    #[must_use]
    pub fn new(
        options: &Options,
        provider: Provider,
        store: Arc<dyn Store>,
        writer: Writer,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            provider,
            store,
            writer,
            metrics,
            fingerprints: SigningKey::from_secret(&options.key),
            lease: options.timeout + MARGIN,
            ended: Notify::new(),
        })
    }

    /// Sends an OTP, or answers what came of the first request with its key.
    pub async fn send(self: &Arc<Self>, request: Request) -> Answer {
        let answer = self.answer(request).await;
        self.metrics.sent(fate(&answer));
        answer
    }

    async fn answer(self: &Arc<Self>, Request { key, phone, code }: Request) -> Answer {
        let began_at = match self.store.now().await {
            Ok(now) => now,
            Err(error) => return Answer { told: Told::NotOnRecord(error), again: false },
        };
        let key = key.unwrap_or_else(SendKey::fresh);
        let fingerprint = self.fingerprint(&phone, &code);
        let send = SendRecord { key, fingerprint, phone, began_at };
        let patience = Instant::now() + self.lease;
        let again = |told| Answer { told, again: true };
        loop {
            // From before the look at the record on, so that no end is missed.
            let ended = self.ended.notified();
            match self.store.begin_send(&send).await {
                Err(error) => return Answer { told: Told::NotOnRecord(error), again: false },
                Ok(Begun::OtherRequest) => return Answer { told: Told::OtherRequest, again: false },
                Ok(Begun::Ended(SendOutcome::Accepted(answer))) => return again(Told::Accepted(answer)),
                Ok(Begun::Ended(SendOutcome::Refused(refusal))) => return again(Told::Refused(refusal)),
                Ok(Begun::Ended(SendOutcome::Unclear)) => return again(Told::MayHaveBeenSent),
                Ok(Begun::UnderWay(since)) => {
                    if began_at.since(since) > self.lease || Instant::now() > patience {
                        return again(Told::MayHaveBeenSent);
                    }
                    let _ = timeout(PAUSE, ended).await;
                }
                Ok(Begun::Now) => {
                    // A task, so that it comes to its end also when the caller hangs up.
                    let made = tokio::spawn(Arc::clone(self).make(send, code)).await;
                    return Answer { told: made.unwrap_or(Told::MayHaveBeenSent), again: false };
                }
            }
        }
    }

    /// A keyed hash: a code has so few digits that any other hash tells it.
    fn fingerprint(&self, phone: &Phone, code: &Code) -> Signature {
        self.fingerprints.sign(format!("{} {}", phone.reveal(), code.reveal()).as_bytes())
    }

    /// Makes a send that is on record, and keeps what came of it before anybody is told.
    async fn make(self: Arc<Self>, send: SendRecord, code: Code) -> Told {
        let deadline = Instant::now() + self.lease;
        let called = self.provider.send(&send.phone, &code).await;
        drop(code);
        let told = match called {
            Ok(answered) => {
                let (id, body) = (answered.answer.id.clone(), answered.body.clone());
                let arrival = answers::sent(send.phone.clone(), answered, Timestamp::now());
                if timeout_at(deadline, self.keep(&arrival)).await.is_err() {
                    tracing::error!(id = id.as_str(), "an OTP was sent, but could not be recorded");
                    return Told::MayHaveBeenSent;
                }
                Told::Accepted(body)
            }
            Err(CallError::NotReached(reason)) => Told::NotReached(reason),
            Err(CallError::Refused(refusal)) => Told::Refused(refusal),
            Err(CallError::Unclear(reason)) => {
                tracing::warn!(reason, phone = %send.phone, "an OTP may have been sent: the provider's answer is missing");
                Told::MayHaveBeenSent
            }
        };
        if timeout_at(deadline, self.end(&send.key, &told)).await.is_err() {
            tracing::error!(phone = %send.phone, "what came of a send could not be kept: its key stands for one that may have been sent");
        }
        self.ended.notify_waiters();
        told
    }

    /// Commits what is known of the delivery; tries until it works.
    async fn keep(&self, arrival: &Arrival) {
        let mut pace = pace();
        loop {
            pace.tick().await;
            if let Ok(kept) = self.writer.submit(arrival.clone())
                && let Ok(Ok(_)) = kept.await
            {
                return;
            }
        }
    }

    /// Keeps what the next request with this key is told; tries until it works.
    async fn end(&self, key: &SendKey, told: &Told) {
        let outcome = match told {
            Told::Accepted(body) => Some(SendOutcome::Accepted(body.clone())),
            Told::MayHaveBeenSent => Some(SendOutcome::Unclear),
            // Of the moment, and not of the request: the next one is made.
            Told::Refused(Refusal::Unauthorized | Refusal::TooManyCalls { .. }) => None,
            Told::Refused(refusal) => Some(SendOutcome::Refused(refusal.clone())),
            Told::NotReached(_) | Told::OtherRequest | Told::NotOnRecord(_) => None,
        };
        let mut pace = pace();
        loop {
            pace.tick().await;
            if self.store.end_send(key, outcome.as_ref()).await.is_ok() {
                return;
            }
        }
    }
}

fn fate(answer: &Answer) -> SendFate {
    match answer.told {
        _ if answer.again => SendFate::Again,
        Told::Accepted(_) => SendFate::Accepted,
        Told::Refused(_) => SendFate::Refused,
        Told::MayHaveBeenSent => SendFate::MayHaveBeenSent,
        Told::NotReached(_) => SendFate::NotReached,
        Told::OtherRequest | Told::NotOnRecord(_) => SendFate::NotMade,
    }
}

/// Of tries; one that took long is not made up for.
fn pace() -> Interval {
    let mut pace = interval(PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
