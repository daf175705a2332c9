//! What the provider's own answers say of a delivery.
//!
//! Lives here: an accepted send and a poll → [`Arrival`]. Does not: the calls (`provider`); webhooks (`event`).

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, LONGEST_TEXT, Source, Standing, Status},
    event::{self, Arrival, Event, Meaning, NotUnderstood},
    phone::Phone,
    proof::Proof,
    provider::{Answered, Sent},
};

/// Why an answer to a poll tells nothing of the delivery that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnswer {
    /// It is not as documented.
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
    /// It is about another one.
    #[error("it is about another delivery")]
    OtherDelivery,
}

/// An OTP that the provider has accepted for this phone. The answer has no time of its own: the delivery is listed at
/// the time it came.
#[must_use]
pub fn sent(phone: Phone, answered: Answered<Sent>, received_at: Timestamp) -> Arrival {
    accepted(Some(phone), answered, received_at)
}

/// Likewise from the evidence alone, which does not say whom it was sent to; `None` for what is no such answer.
#[must_use]
pub fn sent_again(body: Bytes, received_at: Timestamp) -> Option<Arrival> {
    let answer = Sent::read(&body)?;
    Some(accepted(None, Answered { answer, body }, received_at))
}

fn accepted(phone: Option<Phone>, answered: Answered<Sent>, received_at: Timestamp) -> Arrival {
    let Answered { answer: Sent { id, carrier, cost, .. }, body } = answered;
    let proof = Proof::unsigned(body);
    let told = Delivery {
        id,
        phone,
        // What no column holds is no reason to lose the rest; the bytes have it.
        carrier: Some(carrier).filter(|carrier| carrier.len() <= LONGEST_TEXT && !carrier.contains('\0')),
        status: Status::Sent,
        cost: Some(cost),
        error_code: None,
        created_at: None,
        completed_at: None,
        received_at,
        source: Source::Send,
        standing: Standing::new(Status::Sent, None, proof.digest()),
    };
    arrival("send", told, proof)
}

/// What the provider answers when it is asked for this delivery.
///
/// # Errors
/// [`InvalidAnswer`].
pub fn polled(id: &DeliveryId, body: Bytes, received_at: Timestamp) -> Result<Arrival, InvalidAnswer> {
    let proof = Proof::unsigned(body);
    let told = event::answered(proof.body(), proof.digest(), received_at)?;
    if told.id != *id {
        return Err(InvalidAnswer::OtherDelivery);
    }
    Ok(arrival("poll", told, proof))
}

fn arrival(kind: &str, told: Delivery, proof: Proof) -> Arrival {
    let received_at = told.received_at;
    Arrival { received_at, times: 1, meaning: Meaning::Event(Event { kind: kind.to_owned(), told }, proof) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Money;

    fn id(text: &str) -> DeliveryId {
        DeliveryId::parse(text.into()).unwrap()
    }

    #[test]
    fn an_accepted_send_is_a_delivery_that_was_sent() {
        for (carrier, kept) in [("viettel", Some("viettel")), ("v\0", None), (&"x".repeat(256), None)] {
            let cost = Money::parse("0.022").unwrap();
            let answer = Sent { id: id("a"), carrier: carrier.into(), cost, balance: Money::ZERO };
            let answered = Answered { answer, body: Bytes::from_static(b"{}") };
            let arrival = sent(Phone::parse("+84981234567").unwrap(), answered, Timestamp::EARLIEST);
            let event = arrival.event().unwrap();
            assert_eq!((event.kind.as_str(), event.told.status), ("send", Status::Sent));
            assert_eq!((event.told.carrier.as_deref(), event.told.cost), (kept, Some(cost)));
        }
    }

    #[test]
    fn a_poll_is_understood_as_a_webhook_is_and_has_to_be_about_the_one_asked_for() {
        let body = Bytes::from_static(
            br#"{"ok":true,"id":"a","phone":"+84981234567","carrier":"viettel","status":"failed","cost":0,
                "error_code":"busy","carrier_status":"486","created_at":"2026-05-26T10:00:00Z",
                "completed_at":"2026-05-26T10:00:25Z"}"#,
        );
        let arrival = polled(&id("a"), body.clone(), Timestamp::EARLIEST).unwrap();
        let event = arrival.event().unwrap();
        assert_eq!((event.kind.as_str(), event.told.source), ("poll", Source::Poll));
        assert_eq!((event.told.status, event.told.error_code.as_deref()), (Status::Failed, Some("busy")));
        assert_eq!(polled(&id("b"), body, Timestamp::EARLIEST).unwrap_err(), InvalidAnswer::OtherDelivery);
        let unknown = polled(&id("a"), Bytes::from_static(b"{}"), Timestamp::EARLIEST).unwrap_err();
        assert_eq!(unknown.to_string(), "`id` is missing");
    }
}
