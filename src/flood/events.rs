//! Signed events, each with an id of its own, at little cost: a request is copied, and patched in place.
//!
//! Lives here: which event a number stands for. Does not: when it is sent.

use std::{ops::Range, time::Duration};

use uuid::Uuid;

use super::{
    sample::{Outcome, Sample, UNDER_WAY, Webhook, before, whole_second},
    target::Target,
};
use crate::{clock::Timestamp, money::Money, phone::Phone, signature::SigningKey};

/// Carriers and the beginning of a number of theirs, which 7 more digits follow.
const CARRIERS: [(&str, &str); 4] =
    [("viettel", "+8498"), ("vinaphone", "+8491"), ("mobifone", "+8490"), ("vietnamobile", "+8492")];

/// One in so many fails.
const FAILING: usize = 10;

/// An id's bytes, as text.
const ID: usize = 36;

/// The events of one run; no two runs share an id.
#[derive(Debug)]
pub(super) struct Events {
    key: SigningKey,
    pub(super) ids: Ids,
    started: Timestamp,
    delivered: Vec<Template>,
    failed: Vec<Template>,
}

/// The ids of one run's events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    /// What they all end with.
    run: u64,
}

impl Ids {
    /// The id of the event that `number` stands for: a UUID, as all ids of the provider's are, so that a store's
    /// index meets them in as bad an order.
    pub(super) fn id(self, number: u64) -> [u8; ID] {
        let scattered = scatter(number);
        // 48 bits, the version, 12 bits; the run's half has the variant.
        let high = scattered >> 12 << 16 | 4 << 12 | scattered & 0xfff;
        let mut text = [0; ID];
        Uuid::from_u64_pair(high, self.run).hyphenated().encode_lower(&mut text);
        text
    }
}

/// A request, and where in it stands what differs from event to event.
#[derive(Debug)]
struct Template {
    request: Vec<u8>,
    signature: Range<usize>,
    body: usize,
    id: Range<usize>,
    /// The last seven digits of the phone's number.
    phone: Range<usize>,
    created_at: Range<usize>,
    completed_at: Range<usize>,
}

/// A request being made, kept from one to the next by whoever sends them.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The request.
    pub(super) request: Vec<u8>,
    /// The second for which the times below were written.
    second: Option<u64>,
    created_at: String,
    completed_at: String,
}

impl Events {
    pub(super) fn new(target: &Target, key: SigningKey) -> Self {
        let template = |failed: bool, (carrier, prefix)| {
            let outcome = if failed {
                Outcome::Failed("no_answer".to_owned())
            } else {
                Outcome::Delivered(Money::parse("0.022").expect("a decimal"))
            };
            Template::new(target, carrier, prefix, outcome, &key)
        };
        Self {
            delivered: CARRIERS.map(|carrier| template(false, carrier)).into(),
            failed: CARRIERS.map(|carrier| template(true, carrier)).into(),
            ids: Ids { run: Uuid::new_v4().as_u64_pair().1 },
            started: whole_second(Timestamp::now()),
            key,
        }
    }

    /// Writes the request for the event that `number` stands for, `elapsed` after the start.
    pub(super) fn write(&self, number: u64, elapsed: Duration, draft: &mut Draft) {
        self.tell_time(elapsed.as_secs(), draft);
        let scattered = scatter(number);
        let chance = usize::try_from(scattered >> 40).expect("20 bits");
        let templates = if chance % FAILING == 0 { &self.failed } else { &self.delivered };
        let template = &templates[chance / FAILING % templates.len()];
        let request = &mut draft.request;
        request.clear();
        request.extend_from_slice(&template.request);
        request[template.id.clone()].copy_from_slice(&self.ids.id(number));
        request[template.created_at.clone()].copy_from_slice(draft.created_at.as_bytes());
        request[template.completed_at.clone()].copy_from_slice(draft.completed_at.as_bytes());
        let mut digits = scattered;
        for digit in &mut request[template.phone.clone()] {
            *digit = b'0' + u8::try_from(digits % 10).expect("a digit");
            digits /= 10;
        }
        let signature = self.key.sign(&request[template.body..]);
        hex::encode_to_slice(signature.as_bytes(), &mut request[template.signature.clone()])
            .expect("64 digits have room for 32 bytes");
    }

    fn tell_time(&self, second: u64, draft: &mut Draft) {
        if draft.second != Some(second) {
            let since = i64::try_from(second).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            let now = self.started.micros().saturating_add(since);
            let completed_at = Timestamp::from_micros(now).unwrap_or(self.started);
            draft.created_at = before(completed_at, UNDER_WAY).to_string();
            draft.completed_at = completed_at.to_string();
            draft.second = Some(second);
        }
    }
}

/// Scatters numbers below 2^60 over all numbers below 2^60, no two to the same.
fn scatter(number: u64) -> u64 {
    const MASK: u64 = (1 << 60) - 1;
    // Odd factors and shifted exclusive ors can each be undone; the constants are those of SplitMix64.
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & MASK;
    bits = (bits ^ bits >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) & MASK;
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) & MASK;
    bits ^ bits >> 31
}

impl Template {
    fn new(target: &Target, carrier: &str, prefix: &str, outcome: Outcome, key: &SigningKey) -> Self {
        let digits = "0000000";
        let completed_at = whole_second(Timestamp::now());
        let created_at = before(completed_at, UNDER_WAY);
        let phone = Phone::parse(&format!("{prefix}{digits}")).expect("a number");
        let id = Uuid::nil().to_string();
        let sample = Sample {
            id: id.clone(),
            phone: phone.clone(),
            carrier: carrier.to_owned(),
            outcome,
            created_at,
            completed_at,
        };
        let body = sample.body();
        let Webhook { request, signature } = Webhook::new(target, &body, key);
        let start = request.len() - body.len();
        let place = |from: usize, field: &str, value: &str| {
            let text = format!("\"{field}\":\"{value}\"");
            let at = request[from..].windows(text.len()).position(|bytes| bytes == text.as_bytes());
            let end = from + at.expect("the body has the field") + text.len() - 1;
            end - value.len()..end
        };
        let phone = place(start, "phone", phone.reveal());
        let signature_end = target.webhook_head().len() + hex::encode(signature.as_bytes()).len();
        Self {
            signature: target.webhook_head().len()..signature_end,
            body: start,
            id: place(start, "id", &id),
            phone: phone.end - digits.len()..phone.end,
            created_at: place(start, "created_at", &created_at.to_string()),
            completed_at: place(start, "completed_at", &completed_at.to_string()),
            request,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;
    use serde_json::Value;

    use super::*;
    use crate::{
        secret::Secret,
        signature::{Keyring, Signature},
    };

    #[test]
    fn each_number_is_an_event_of_its_own_and_rightly_signed() {
        let secret = Secret::new("s".into());
        let target = Target::parse("http://h/webhooks/nexo").unwrap();
        let events = Events::new(&target, SigningKey::from_secret(&secret));
        let keyring = Keyring::new(&secret, None);
        let (mut draft, mut ids, mut outcomes) = (Draft::default(), HashSet::new(), HashSet::new());
        for number in 0..2_000 {
            events.write(number, Duration::from_millis(number), &mut draft);
            let text = String::from_utf8(draft.request.clone()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let signature = Signature::parse(header("x-nexo-signature: ").as_bytes()).unwrap();
            keyring.verify(Bytes::from(body.to_owned()), signature).unwrap();
            assert_eq!(header("content-length: "), body.len().to_string());

            let event: Value = serde_json::from_str(body).unwrap();
            let id = event["id"].as_str().unwrap();
            assert_eq!(id.as_bytes(), events.ids.id(number));
            assert_eq!(Uuid::parse_str(id).unwrap().get_version_num(), 4);
            assert!(ids.insert(id.to_owned()), "{id} came twice");
            let time = |field: &str| Timestamp::parse(event[field].as_str().unwrap()).unwrap().micros();
            assert_eq!(time("completed_at") - time("created_at"), 25_000_000);
            assert_eq!(
                time("completed_at") - events.started.micros(),
                i64::try_from(number / 1_000).unwrap() * 1_000_000
            );
            Phone::parse(event["phone"].as_str().unwrap()).unwrap();
            outcomes.insert((event["carrier"].to_string(), event["status"].to_string()));
        }
        assert_eq!(outcomes.len(), 8);
    }
}
