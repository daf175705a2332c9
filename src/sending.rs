//! OTPs that go through this service to the provider: each on record before the call, and called once.
//!
//! Lives here: [`Sending`]: who makes a send, who waits for another's, and what is done when its outcome is not known.
//! Does not: HTTP; how the provider is called (`provider`); what stands in the record (`store::sends`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{self, Notify},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at},
};

use crate::{
    answers,
    clock::Timestamp,
    event::Arrival,
    metrics::{Metrics, SendFate},
    phone::Phone,
    provider::{CallError, Code, Options, Provider, Refusal},
    store::{
        Store, StoreError,
        sends::{Begun, Claim, Fingerprint, SendKey, SendOutcome, SendRecord, SendState},
    },
    writer::Writer,
};

/// How often another replica's end of a send is asked for.
const PAUSE: Duration = Duration::from_millis(100);

/// How long, beyond the call itself, a send may be under way: to be put on record and taken off it.
const MARGIN: Duration = Duration::from_secs(10);

/// How long a send that was certainly not made is tried to be taken off the record while the store does not answer.
const RELEASED_WITHIN: Duration = Duration::from_secs(3_600);

/// The least time between two log lines about refusals with one code.
const LOG_PAUSE: Duration = Duration::from_secs(1);

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
    /// Certainly not sent: it could not be put on record, and its key is free.
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
    /// How long after its beginning a send is certainly no longer under way.
    lease: Duration,
    /// Notified whenever one of this replica's has ended.
    ended: Notify,
    /// Held by the one that tries to be taken off the record, so that a store that comes back meets no storm.
    releasing: sync::Mutex<()>,
    refusals: RefusalLog,
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
            lease: options.timeout.saturating_add(MARGIN),
            ended: Notify::new(),
            releasing: sync::Mutex::default(),
            refusals: RefusalLog::default(),
        })
    }

    /// Sends an OTP, or answers what came of the first request with its key.
    pub async fn send(self: &Arc<Self>, request: Request) -> Answer {
        let answer = self.answer(request).await;
        self.metrics.sent(fate(&answer));
        answer
    }

    async fn answer(self: &Arc<Self>, Request { key, phone, code }: Request) -> Answer {
        let first = |told| Answer { told, again: false };
        let again = |told| Answer { told, again: true };
        let (now, started) = match self.store.now().await {
            Ok(now) => (now, Instant::now()),
            Err(error) => return first(Told::NotOnRecord(error)),
        };
        // A send without a key can't be asked for again.
        let fingerprint = key.as_ref().map_or_else(Fingerprint::none, |_| Fingerprint::of(&phone, &code));
        let key = key.unwrap_or_else(SendKey::fresh);
        let mut send = SendRecord { key, claim: Claim::fresh(), fingerprint, phone, began_at: now };
        loop {
            // From before the look at the record on, so that no end is missed.
            let ended = self.ended.notified();
            send.began_at = now.later_by(started.elapsed());
            let known = match twice(|| self.store.begin_send(&send)).await {
                Err(error) => return first(Told::NotOnRecord(error)),
                Ok(Begun::Known(known)) => known,
                Ok(Begun::Now) => {
                    // A task, so that it comes to its end also when the caller hangs up.
                    let made = tokio::spawn(Arc::clone(self).make(send.clone(), code.clone())).await;
                    match made.unwrap_or(Some(Told::MayHaveBeenSent)) {
                        Some(told) => return first(told),
                        // Another claim was faster.
                        None => continue,
                    }
                }
            };
            if !known.is_of(&send.phone, &code) {
                return first(Told::OtherRequest);
            }
            match known.state {
                SendState::Ended(SendOutcome::Accepted(answer)) => return again(Told::Accepted(answer)),
                SendState::Ended(SendOutcome::Unclear) => return again(Told::MayHaveBeenSent),
                SendState::UnderWay(since) => {
                    if send.began_at.since(since) > self.lease || started.elapsed() > self.lease {
                        return again(Told::MayHaveBeenSent);
                    }
                    let _ = timeout(PAUSE, ended).await;
                }
            }
        }
    }

    /// Makes a send that is on record, and keeps what came of it before anybody is told. `None` when another claim has
    /// taken it over.
    async fn make(self: Arc<Self>, send: SendRecord, code: Code) -> Option<Told> {
        let deadline = Instant::now() + self.lease;
        match twice(|| self.store.call_send(&send.key, send.claim)).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                tokio::spawn(self.release(send));
                return Some(Told::NotOnRecord(error));
            }
        }
        let told = self.call(&send.phone, code, deadline).await;
        let outcome = match &told {
            Told::Accepted(body) => Some(SendOutcome::Accepted(body.clone())),
            Told::MayHaveBeenSent => Some(SendOutcome::Unclear),
            // What was certainly not sent frees its key.
            Told::Refused(_) | Told::NotReached(_) | Told::OtherRequest | Told::NotOnRecord(_) => None,
        };
        let is_certain = outcome.is_none();
        match timeout_at(deadline, self.end(&send, outcome)).await {
            Ok(()) => {}
            Err(_) if is_certain => drop(tokio::spawn(Arc::clone(&self).release(send))),
            Err(_) => tracing::error!(
                phone = %send.phone,
                "the outcome of a send could not be stored: its key stands for one that may have been sent"
            ),
        }
        self.ended.notify_waiters();
        Some(told)
    }

    /// Calls the provider, and commits a delivery that it has accepted.
    async fn call(&self, phone: &Phone, code: Code, deadline: Instant) -> Told {
        match self.provider.send(phone, &code).await {
            Ok(answered) => {
                self.metrics.wallet(answered.answer.balance);
                let (id, body) = (answered.answer.id.clone(), answered.body.clone());
                let arrival = answers::sent(phone.clone(), answered, Timestamp::now());
                if timeout_at(deadline, self.keep(&arrival)).await.is_err() {
                    tracing::error!(id = id.as_str(), "an OTP was sent, but could not be recorded");
                    return Told::MayHaveBeenSent;
                }
                Told::Accepted(body)
            }
            Err(CallError::NotReached(reason)) => Told::NotReached(reason),
            Err(CallError::Refused(refusal)) => {
                self.note(&refusal, phone);
                Told::Refused(refusal)
            }
            Err(CallError::Unclear(reason)) => {
                tracing::warn!(reason, %phone, "an OTP may have been sent: the provider's answer is missing");
                Told::MayHaveBeenSent
            }
        }
    }

    /// Logs and counts what the provider refused.
    fn note(&self, refusal: &Refusal, phone: &Phone) {
        self.metrics.send_refused(refusal);
        if let Some(omitted) = self.refusals.admit(refusal.code(), Instant::now()) {
            let (error, word) = (refusal.code(), refusal.word());
            tracing::warn!(error, word, %phone, omitted, "the provider refuses a send: {refusal}");
        }
    }

    /// Takes a send that was certainly not made off the record, in the background.
    async fn release(self: Arc<Self>, send: SendRecord) {
        let released = timeout(RELEASED_WITHIN, async {
            let _one = self.releasing.lock().await;
            self.end(&send, None).await;
        });
        if released.await.is_err() {
            tracing::error!(
                phone = %send.phone,
                "a send that was not made could not be taken off the record: its key stands for one that may have been sent"
            );
        }
        self.ended.notify_waiters();
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
    async fn end(&self, send: &SendRecord, outcome: Option<SendOutcome>) {
        let mut pace = pace();
        loop {
            pace.tick().await;
            if self.store.end_send(&send.key, send.claim, outcome.as_ref()).await.is_ok() {
                return;
            }
        }
    }
}

/// Does what is safe to repeat, and once more if its outcome is not known: a connection may have ended with the answer
/// on its way.
async fn twice<T, F: Future<Output = Result<T, StoreError>>>(step: impl Fn() -> F) -> Result<T, StoreError> {
    match step().await {
        Err(StoreError::Unavailable(_)) => step().await,
        done => done,
    }
}

/// Which refusals are logged: one in [`LOG_PAUSE`] for each of the fixed few codes.
#[derive(Default)]
struct RefusalLog(Mutex<BTreeMap<&'static str, (Instant, u64)>>);

impl RefusalLog {
    /// Whether one is logged now, and then how many were not since the last.
    fn admit(&self, code: &'static str, now: Instant) -> Option<u64> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match log.get_mut(code) {
            Some((last, omitted)) if now.saturating_duration_since(*last) < LOG_PAUSE => {
                *omitted = omitted.saturating_add(1);
                None
            }
            _ => Some(log.insert(code, (now, 0)).map_or(0, |(_, omitted)| omitted)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_once_a_second_for_each_code() {
        let (log, now) = (RefusalLog::default(), Instant::now());
        assert_eq!(log.admit("insufficient_balance", now), Some(0));
        for _ in 0..3 {
            assert_eq!(log.admit("insufficient_balance", now + LOG_PAUSE / 2), None);
        }
        assert_eq!(log.admit("ip_not_allowed", now + LOG_PAUSE / 2), Some(0));
        assert_eq!(log.admit("insufficient_balance", now + LOG_PAUSE), Some(3));
        assert_eq!(log.admit("insufficient_balance", now + LOG_PAUSE * 2), Some(0));
    }
}
