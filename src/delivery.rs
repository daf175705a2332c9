//! What became of one OTP: the present state, and the rule that folds events into it.
//!
//! Lives here: [`DeliveryId`], [`Status`], [`Delivery`], [`Standing`] and [`Delivery::merge`]. Does not: SQL; the
//! stores compare the same [`Standing`], and leave what differs to [`Delivery::merge`].

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::{clock::Timestamp, money::Money, phone::Phone, signature::Digest};

/// The longest text kept as a field of its own (id, type, carrier, error code), in bytes: an index row has room
/// for it on every store.
pub const LONGEST_TEXT: usize = 255;

/// A delivery that is still `sent` so long after it was is given up: nobody goes on asking for it.
pub const GIVEN_UP_HOURS: u32 = 24;

/// The provider's id of an OTP: a UUID in all examples, but nothing promises it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct DeliveryId(String);

/// A delivery's id in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryKey(Uuid);

impl DeliveryKey {
    /// The bytes to keep in a store.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// From a store.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

/// The text can be no delivery's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {LONGEST_TEXT} bytes and no U+0000")]
pub struct InvalidDeliveryId;

impl DeliveryId {
    /// Parses an id: 1 to 255 bytes, without U+0000.
    ///
    /// # Errors
    /// [`InvalidDeliveryId`] for anything else.
    pub fn parse(text: String) -> Result<Self, InvalidDeliveryId> {
        if (1..=LONGEST_TEXT).contains(&text.len()) && !text.contains('\0') {
            Ok(Self(text))
        } else {
            Err(InvalidDeliveryId)
        }
    }

    /// The id as a UUID, for a store that keeps those in less room: its own, if it is one as UUIDs are written (RFC 9562,
    /// lower-case); else one of version 8 made of the text's digest, which is no other id's.
    #[must_use]
    pub fn key(&self) -> DeliveryKey {
        match self.as_uuid() {
            Some(uuid) => DeliveryKey(uuid),
            None => {
                let digest = *Digest::of(self.0.as_bytes()).as_bytes();
                DeliveryKey(Uuid::new_v8(std::array::from_fn(|n| digest[n])))
            }
        }
    }

    /// The id, if it is a UUID as UUIDs are written.
    #[must_use]
    pub fn as_uuid(&self) -> Option<Uuid> {
        let uuid = Uuid::try_parse(&self.0).ok()?;
        let mut written = Uuid::encode_buffer();
        (*uuid.hyphenated().encode_lower(&mut written) == *self.0).then_some(uuid)
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where an OTP stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// On its way. The only status that is not terminal.
    Sent,
    /// It reached the phone.
    Delivered,
    /// It did not.
    Failed,
}

impl Status {
    /// Every status, for documents and errors that list them.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Delivered, Self::Failed];

    /// Parses the provider's word; `None` for a word this version does not know.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// The provider's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self != Self::Sent
    }
}

/// How we learned of a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The provider's signed webhook.
    Webhook,
    /// We asked the provider.
    Poll,
    /// We, or whoever told us, sent it.
    Send,
}

impl Source {
    /// Parses the word that a store keeps; `None` for any other.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Webhook, Self::Poll, Self::Send].into_iter().find(|source| source.as_str() == text)
    }

    /// The word that a store keeps.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Poll => "poll",
            Self::Send => "send",
        }
    }
}

/// An event's rank among the events of its OTP, as bytes that sort: the greatest is the present state.
///
/// In order of weight: terminal before `sent`, and `sent` as the provider tells it before what a caller tells; the later `completed_at` (none is earliest); `delivered` before
/// `failed`, since it reached the phone and costs money; the greater digest of the body. All of it is the event's
/// own content, so that no order of arrival can change which event wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing([u8; Self::LENGTH]);

impl Standing {
    /// Bytes of a standing.
    pub const LENGTH: usize = 1 + 8 + 1 + 32;

    /// The standing of what a caller told: below all that the provider says.
    #[must_use]
    pub fn of_a_word(digest: Digest) -> Self {
        let mut bytes = [0; Self::LENGTH];
        bytes[10..].copy_from_slice(digest.as_bytes());
        Self(bytes)
    }

    /// Whether it is the provider's.
    fn is_the_providers(&self) -> bool {
        self.0[0] > 0
    }

    /// The standing of an event of the provider's.
    #[must_use]
    pub fn new(status: Status, completed_at: Option<Timestamp>, digest: Digest) -> Self {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = 1 + u8::from(status.is_terminal());
        bytes[1..9].copy_from_slice(&sortable(completed_at).to_be_bytes());
        bytes[9] = u8::from(status == Status::Delivered);
        bytes[10..].copy_from_slice(digest.as_bytes());
        Self(bytes)
    }

    /// From bytes kept in a store.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep in a store, which compares them as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// Sorts as the time does, with none before all.
fn sortable(time: Option<Timestamp>) -> u64 {
    time.map_or(0, |time| time.micros().cast_unsigned() ^ (1 << 63))
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The present state of one OTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The provider's id.
    pub id: DeliveryId,
    /// Whom it was sent to. This, the carrier and the cost are there as soon as the provider has told of it.
    pub phone: Option<Phone>,
    /// The carrier's name as the provider gives it; new ones may come.
    pub carrier: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// What it cost, in US dollars.
    pub cost: Option<Money>,
    /// Why it failed, in the provider's words; new ones may come.
    pub error_code: Option<String>,
    /// When it was sent: the earliest time that any event names.
    pub created_at: Option<Timestamp>,
    /// When it became what it is, as the winning event names it.
    pub completed_at: Option<Timestamp>,
    /// When the winning event first reached us.
    pub received_at: Timestamp,
    /// How we learned of the present state.
    pub source: Source,
    /// The winning event's rank.
    pub standing: Standing,
}

impl Delivery {
    /// Folds two states of one OTP into one: commutative, associative, idempotent.
    ///
    /// The greater [`Standing`] wins whole; of two that are the provider's, `created_at` is the earliest of both, and of
    /// two that callers told, what one of them lacks is the other's. `received_at` is the earliest at which the winner
    /// came.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let (mut winner, loser) = if self.standing >= other.standing { (self, other) } else { (other, self) };
        if winner.standing == loser.standing {
            winner.received_at = winner.received_at.min(loser.received_at);
        }
        let providers = winner.standing.is_the_providers();
        if providers == loser.standing.is_the_providers() {
            winner.created_at = winner.created_at.into_iter().chain(loser.created_at).min();
        }
        if !providers {
            // Not the winner's first: of three, who lacks what would then depend on their order.
            winner.phone = winner.phone.max(loser.phone);
            winner.carrier = winner.carrier.max(loser.carrier);
            winner.cost = winner.cost.max(loser.cost);
        }
        winner
    }

    /// Whether it is still `sent`, and was so long ago that nobody asks for it any more.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.status == Status::Sent && self.listed_at() <= now.hours_before(GIVEN_UP_HOURS)
    }

    /// The time a delivery is listed under, set when its id is first seen and never again, so that pages are
    /// stable: its `created_at` if it has one, else when it came.
    #[must_use]
    pub fn listed_at(&self) -> Timestamp {
        self.created_at.unwrap_or(self.received_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*, sample::select};

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    prop_compose! {
        /// Few distinct values, so that ties and repeats are common.
        fn state_told_by(provider: bool)(
            body in 0u8..5,
            status in select(Status::ALL.to_vec()),
            created_at in option::of(0i64..3),
            completed_at in option::of(-1i64..3),
            received_at in 0i64..4,
            knows in any::<[bool; 3]>(),
        ) -> Delivery {
            // The same body says the same: the digest covers every field but when it came.
            let said = format!("{body} {status:?} {created_at:?} {completed_at:?} {provider} {knows:?}");
            let digest = Digest::of(said.as_bytes());
            let (status, completed_at) =
                if provider { (status, completed_at.map(time)) } else { (Status::Sent, None) };
            let known = |field: usize| provider || knows[field];
            Delivery {
                id: DeliveryId::parse("a".into()).unwrap(),
                phone: known(0).then(|| Phone::parse(&format!("+8498123456{body}")).unwrap()),
                carrier: known(1).then(|| body.to_string()),
                status,
                cost: known(2).then_some(Money::ZERO),
                error_code: None,
                created_at: created_at.map(time),
                completed_at,
                received_at: time(received_at),
                source: Source::Webhook,
                standing: match provider {
                    true => Standing::new(status, completed_at, digest),
                    false => Standing::of_a_word(digest),
                },
            }
        }
    }

    fn state() -> impl Strategy<Value = Delivery> {
        any::<bool>().prop_flat_map(state_told_by)
    }

    fn fold(states: &[Delivery]) -> Delivery {
        states.iter().cloned().reduce(Delivery::merge).unwrap()
    }

    proptest! {
        #[test]
        fn any_order_and_any_repetition_give_one_result(
            states in vec(state(), 1..8),
            again in vec(any::<prop::sample::Index>(), 0..8),
            seed in any::<u64>(),
        ) {
            let mut shuffled = states.clone();
            shuffled.extend(again.iter().map(|index| states[index.index(states.len())].clone()));
            let mut random = seed;
            for at in (1..shuffled.len()).rev() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(at, usize::try_from(random >> 33).unwrap() % (at + 1));
            }
            prop_assert_eq!(fold(&shuffled), fold(&states));
        }

        #[test]
        fn merge_is_associative_commutative_and_idempotent(a in state(), b in state(), c in state()) {
            prop_assert_eq!(a.clone().merge(b.clone()), b.clone().merge(a.clone()));
            prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.clone().merge(b.merge(c)));
            prop_assert_eq!(a.clone().merge(a.clone()), a);
        }

        #[test]
        fn sent_never_overwrites_a_terminal_state(a in state(), b in state()) {
            let merged = a.clone().merge(b.clone());
            prop_assert_eq!(merged.status.is_terminal(), a.status.is_terminal() || b.status.is_terminal());
        }

        #[test]
        fn what_a_caller_tells_changes_nothing_that_the_provider_told(
            a in state_told_by(true),
            b in state_told_by(false),
        ) {
            prop_assert_eq!(a.clone().merge(b), a);
        }

        #[test]
        fn what_one_caller_knows_is_not_lost_to_another(a in state_told_by(false), b in state_told_by(false)) {
            let merged = a.clone().merge(b.clone());
            prop_assert_eq!(merged.phone.is_some(), a.phone.is_some() || b.phone.is_some());
            prop_assert_eq!(merged.carrier.is_some(), a.carrier.is_some() || b.carrier.is_some());
            prop_assert_eq!(merged.created_at.is_some(), a.created_at.is_some() || b.created_at.is_some());
        }

        #[test]
        fn the_later_completion_is_the_state(a in state_told_by(true), b in state_told_by(true)) {
            prop_assume!(a.status.is_terminal() && b.status.is_terminal());
            let latest = a.completed_at.max(b.completed_at);
            prop_assert_eq!(a.merge(b).completed_at, latest);
        }
    }

    #[test]
    fn delivered_wins_a_tie() {
        for digest in [b"1", b"2", b"3", b"4"] {
            let delivered = Standing::new(Status::Delivered, Some(time(1)), Digest::of(digest));
            assert!(delivered > Standing::new(Status::Failed, Some(time(1)), Digest::of(b"0")));
        }
    }

    #[test]
    fn each_id_has_a_key_of_its_own() {
        let uuid = "8f2e1c4d-6a1b-4a0e-9c55-0d6f4b1a2c3e";
        let id = |text: &str| DeliveryId::parse(text.into()).unwrap();
        assert_eq!(id(uuid).key().uuid().to_string(), uuid);
        // Other ways to write it are other ids, as texts are.
        let others = [&uuid.to_uppercase(), &uuid.replace('-', ""), &format!("{{{uuid}}}"), "a", "b"];
        let mut keys: Vec<_> = others.iter().map(|other| id(other).key()).chain([id(uuid).key()]).collect();
        assert!(others.iter().all(|other| id(other).as_uuid().is_none()));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), others.len() + 1);
    }

    #[test]
    fn an_id_has_a_length_that_an_index_can_hold() {
        assert!(DeliveryId::parse("x".repeat(255)).is_ok());
        for wrong in [String::new(), "x".repeat(256), "é".repeat(128), "a\0".into()] {
            assert_eq!(DeliveryId::parse(wrong), Err(InvalidDeliveryId));
        }
    }
}
