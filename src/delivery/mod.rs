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
    /// Parses an id: 1 to 255 bytes, without U+0000. A UUID as UUIDs are written (RFC 9562) is one and the same in any
    /// case, and kept in lower case; any other text is kept as it is.
    ///
    /// # Errors
    /// [`InvalidDeliveryId`] for anything else.
    pub fn parse(mut text: String) -> Result<Self, InvalidDeliveryId> {
        // No other way to write one is as long.
        const WRITTEN: usize = 36;
        if text.len() == WRITTEN
            && text.bytes().any(|byte| byte.is_ascii_uppercase())
            && Uuid::try_parse(&text).is_ok()
        {
            text.make_ascii_lowercase();
        }
        if (1..=LONGEST_TEXT).contains(&text.len()) && !text.contains('\0') {
            Ok(Self(text))
        } else {
            Err(InvalidDeliveryId)
        }
    }

    /// The id as a UUID, for a store that keeps those in less room: [`DeliveryId::as_uuid`]; else one of version 8 made
    /// of the text's digest. The two sets are disjoint, so that no id can be chosen to collide with another one.
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

    /// The id, if it is a UUID as UUIDs are written, and not of version 8, whose values are kept for digests.
    #[must_use]
    pub fn as_uuid(&self) -> Option<Uuid> {
        const OF_DIGESTS: usize = 8;
        let uuid = Uuid::try_parse(&self.0).ok().filter(|uuid| uuid.get_version_num() != OF_DIGESTS)?;
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
/// In order of weight: terminal before `sent`, and `sent` as the provider tells it before what a caller tells; the later
/// `completed_at` (none is earliest); `delivered` before `failed`, since it reached the phone and costs money; the greater
/// digest of the body. All of it is the event's own content, so that no order of arrival can change which event wins.
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
mod tests;
