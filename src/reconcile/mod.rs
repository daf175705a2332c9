//! Finding out what no webhook has told: the provider is asked for deliveries that are still `sent`.
//!
//! Lives here: when, how often and how many at one time. Does not: which deliveries (`store::polls`); what an answer says
//! (`answers`). All replicas do it, and take turns.

mod breaker;
pub mod range;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{
    answers,
    background::told_within,
    clock::Timestamp,
    delivery::{DeliveryId, Status},
    metrics::{Metrics, PollFate},
    provider::{CallError, Provider, Refusal},
    store::{Store, polls::Turn},
    writer::Writer,
};
use breaker::{Breaker, Fault};

/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(1);

/// Calls under way at one time at most.
const MOST_CALLS: usize = 64;

/// When to ask, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long after its creation a delivery that is still `sent` is asked for.
    pub after: Duration,
    /// Calls a second at most, of all replicas together.
    pub calls_per_second: u32,
}

/// Asks the provider, as this replica does.
pub struct Reconciler {
    provider: Provider,
    store: Arc<dyn Store>,
    writer: Writer,
    metrics: Arc<Metrics>,
    turn: Turn,
    /// How long after a turn was taken a call may still begin, so that it ends within the lease.
    last_call: Duration,
    breaker: Mutex<Breaker>,
}

impl Reconciler {
    /// Ready to ask; `call_timeout` is how long a call to the provider may take.
    #[must_use]
    pub fn new(
        options: &Options,
        call_timeout: Duration,
        provider: Provider,
        store: Arc<dyn Store>,
        writer: Writer,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let turn = Turn {
            after: options.after,
            // What is due in a second.
            most: options.calls_per_second,
            pace: Duration::from_secs(1) / options.calls_per_second.max(1),
            // A call may begin at the turn's end, and its answer has to be committed.
            lease: call_timeout.saturating_mul(2).saturating_add(Duration::from_secs(1)),
        };
        let last_call = turn.lease.saturating_sub(call_timeout);
        Arc::new(Self { provider, store, writer, metrics, turn, last_call, breaker: Mutex::default() })
    }

    /// Asks until it is told to stop or nobody is left to tell. A call that is cut off then is made again later.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<()>) {
        let (mut calls, mut failing) = (JoinSet::new(), false);
        let mut pause = LOOK;
        while !told_within(pause, &mut stop).await {
            pause = LOOK;
            let Some(most) = self.breaker().allows(Instant::now(), self.turn.most) else { continue };
            let taken_at = Instant::now();
            let polls = match self.store.take_turn(&Turn { most, ..self.turn }).await {
                Ok(turned) => {
                    self.metrics.given_up.inc_by(turned.given_up);
                    failing = false;
                    turned.polls
                }
                Err(error) if failing => {
                    tracing::debug!(%error, "still nothing can be reconciled");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "what no webhook has told can't be asked for now");
                    failing = true;
                    continue;
                }
            };
            for id in polls {
                // This process was held up: the rest is due again soon, and may be another replica's by then.
                if taken_at.elapsed() > self.last_call {
                    break;
                }
                calls.spawn(Arc::clone(&self).poll(id));
                while calls.try_join_next().is_some() {}
                if told_within(self.turn.pace, &mut stop).await {
                    return;
                }
                while calls.len() >= MOST_CALLS {
                    calls.join_next().await;
                }
                // The others of the turn come again when they are due again.
                if self.breaker().allows(Instant::now(), 1).is_none() {
                    break;
                }
                pause = Duration::ZERO;
            }
        }
    }

    async fn poll(self: Arc<Self>, id: DeliveryId) {
        let answer = self.provider.delivery(&id).await;
        let fault = match &answer {
            Ok(_) | Err(CallError::Refused(Refusal::NotFound | Refusal::Other(_))) => None,
            Err(CallError::Refused(Refusal::TooManyCalls { retry_after })) => {
                Some(Fault::ToldOff(*retry_after))
            }
            Err(CallError::Refused(_)) => Some(Fault::ToldOff(None)),
            Err(CallError::NotReached(_) | CallError::Unclear(_)) => Some(Fault::NoAnswer),
        };
        self.note(fault, answer.as_ref().err());
        let fate = match answer {
            Ok(body) => self.keep(&id, body).await,
            Err(CallError::Refused(Refusal::NotFound)) => PollFate::NotFound,
            Err(CallError::Refused(_)) => PollFate::Refused,
            Err(CallError::NotReached(_) | CallError::Unclear(_)) => PollFate::NoAnswer,
        };
        tracing::debug!(id = id.as_str(), fate = fate.word(), "polled");
        self.metrics.polled(fate);
    }

    /// Commits what the provider answered, as any other event.
    async fn keep(&self, id: &DeliveryId, body: Bytes) -> PollFate {
        let arrival = match answers::polled(id, body, Timestamp::now()) {
            Ok(arrival) => arrival,
            Err(problem) => {
                tracing::warn!(id = id.as_str(), %problem, "the provider's answer to a poll tells nothing");
                return PollFate::NotUnderstood;
            }
        };
        let is_sent = arrival.event().is_some_and(|event| event.told.status == Status::Sent);
        let kept = match self.writer.submit(arrival) {
            Ok(kept) => kept.await.is_ok_and(|kept| kept.is_ok()),
            Err(_) => false,
        };
        match (kept, is_sent) {
            (false, _) => PollFate::NotKept,
            (true, true) => PollFate::StillSent,
            (true, false) => PollFate::Settled,
        }
    }

    fn note(&self, fault: Option<Fault>, error: Option<&CallError>) {
        let mut breaker = self.breaker();
        let was_open = breaker.is_open();
        match fault {
            None => breaker.worked(),
            Some(fault) => breaker.failed(fault, Instant::now(), fastrand::f64()),
        }
        let is_open = breaker.is_open();
        drop(breaker);
        self.metrics.provider_paused.set(i64::from(is_open));
        match (was_open, is_open, error) {
            (false, true, Some(error)) => tracing::warn!(%error, "the provider is left alone for a while"),
            (true, false, _) => tracing::info!("the provider answers again"),
            _ => {}
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
