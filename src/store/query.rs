//! The questions that a store answers, typed: what reaches SQL has been parsed before.
//!
//! Lives here: filters, cursors, pages, statistics. Does not: their spelling in a URL (`http/parameters`).

use std::num::NonZeroU16;

use super::StoreError;
use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, Status},
    money::Money,
    phone::Phone,
    signature::Digest,
};

/// How many entries a page holds: 1 to 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(NonZeroU16);

impl PageSize {
    /// The most entries of a page.
    pub const MOST: u16 = 500;

    /// A page of `entries`; `None` outside 1 to 500.
    #[must_use]
    pub fn new(entries: u16) -> Option<Self> {
        NonZeroU16::new(entries).filter(|entries| entries.get() <= Self::MOST).map(Self)
    }

    /// Entries of the page.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0.get())
    }

    /// One more than fits, to learn whether there is a further page.
    #[must_use]
    pub fn and_one_more(self) -> i64 {
        i64::from(self.0.get()) + 1
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self(NonZeroU16::new(50).expect("50 is not 0"))
    }
}

/// A position in a list that is sorted by a time and a tie-breaker, both of which never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor<K> {
    /// The time of the last entry shown.
    pub time: Timestamp,
    /// Its tie-breaker.
    pub key: K,
}

/// The text is no cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a `next_cursor` of this list")]
pub struct InvalidCursor;

/// What breaks ties in a list.
pub trait CursorKey: Sized {
    /// A byte that tells one list's cursors from another's.
    const LIST: u8;

    /// The key as bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// The key from bytes; `None` when they are none.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl CursorKey for DeliveryId {
    const LIST: u8 = b'd';

    fn to_bytes(&self) -> Vec<u8> {
        self.as_str().as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::parse(String::from_utf8(bytes.to_vec()).ok()?).ok()
    }
}

impl CursorKey for Digest {
    const LIST: u8 = b'q';

    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }
}

impl<K: CursorKey> Cursor<K> {
    /// The cursor as opaque text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = vec![K::LIST];
        bytes.extend(self.time.micros().to_be_bytes());
        bytes.extend(self.key.to_bytes());
        hex::encode(bytes)
    }

    /// Reads a cursor back.
    ///
    /// # Errors
    /// [`InvalidCursor`] for any text that [`Cursor::encode`] did not make for this list.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = hex::decode(text).map_err(|_| InvalidCursor)?;
        let rest = bytes.strip_prefix(&[K::LIST]).ok_or(InvalidCursor)?;
        let (time, key) = rest.split_first_chunk().ok_or(InvalidCursor)?;
        let time = Timestamp::from_micros(i64::from_be_bytes(*time)).map_err(|_| InvalidCursor)?;
        Ok(Self { time, key: K::from_bytes(key).ok_or(InvalidCursor)? })
    }
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from up to one entry more than fits, each with its position.
    #[must_use]
    pub fn of<K: CursorKey>(mut entries: Vec<(T, Cursor<K>)>, size: PageSize) -> Self {
        let next = (entries.len() > size.get()).then(|| {
            entries.truncate(size.get());
            entries.last().map(|(_, cursor)| cursor.encode())
        });
        Self { entries: entries.into_iter().map(|(entry, _)| entry).collect(), next: next.flatten() }
    }

    /// The position after which the next page begins, for who reads on at once.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a position of another list.
    pub fn after<K: CursorKey>(&self) -> Result<Option<Cursor<K>>, StoreError> {
        let decode =
            |next: &String| Cursor::decode(next).map_err(|error| StoreError::Corrupt(error.to_string()));
        self.next.as_ref().map(decode).transpose()
    }
}

/// Which deliveries to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListDeliveries {
    /// To this phone.
    pub phone: Option<Phone>,
    /// In this status.
    pub status: Option<Status>,
    /// Over this carrier.
    pub carrier: Option<String>,
    /// Failed with this code.
    pub error_code: Option<String>,
    /// Listed at or after this time.
    pub from: Option<Timestamp>,
    /// Listed before this time.
    pub to: Option<Timestamp>,
    /// How many.
    pub size: PageSize,
    /// After this position.
    pub after: Option<Cursor<DeliveryId>>,
}

impl ListDeliveries {
    /// Whether a delivery is one of those that are asked for, on whichever page.
    #[must_use]
    pub fn matches(&self, delivery: &Delivery) -> bool {
        let Self { phone, status, carrier, error_code, from, to, .. } = self;
        let listed_at = delivery.listed_at();
        phone.as_ref().is_none_or(|phone| delivery.phone.as_ref() == Some(phone))
            && status.is_none_or(|status| delivery.status == status)
            && carrier.as_ref().is_none_or(|carrier| delivery.carrier.as_ref() == Some(carrier))
            && error_code.as_ref().is_none_or(|code| delivery.error_code.as_ref() == Some(code))
            && from.is_none_or(|from| listed_at >= from)
            && to.is_none_or(|to| listed_at < to)
    }

    /// The ranges of an index to read, each already in the list's order: by phone or error code one; else one for
    /// each status, since those indexes have the status before the time.
    #[must_use]
    pub fn ranges(&self) -> Vec<Option<Status>> {
        if self.status.is_some() || self.phone.is_some() || self.error_code.is_some() {
            vec![self.status]
        } else {
            Status::ALL.map(Some).to_vec()
        }
    }
}

/// Which quarantined bodies to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListQuarantine {
    /// How many.
    pub size: PageSize,
    /// After this position.
    pub after: Option<Cursor<Digest>>,
}

/// Any question, to be explained rather than answered.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// The present state of one delivery.
    Delivery(&'a DeliveryId),
    /// Its events.
    Events(&'a DeliveryId),
    /// A page of deliveries.
    Deliveries(&'a ListDeliveries),
    /// A page of quarantine.
    Quarantine(&'a ListQuarantine),
    /// Statistics.
    Stats(&'a StatsQuestion),
}

/// What statistics are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// By carrier.
    Carrier,
    /// By error code; those without one stand together.
    ErrorCode,
    /// By the UTC hour of the time they are listed at.
    Hour,
    /// By the UTC day of the time they are listed at.
    Day,
}

impl GroupBy {
    /// Every grouping, for documents and errors that list them.
    pub const ALL: [Self; 4] = [Self::Carrier, Self::ErrorCode, Self::Hour, Self::Day];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Carrier => "carrier",
            Self::ErrorCode => "error_code",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// Which statistics.
#[derive(Debug, Clone, Copy)]
pub struct StatsQuestion {
    /// Of deliveries listed at or after this time.
    pub from: Timestamp,
    /// And before this time.
    pub to: Timestamp,
    /// In groups, or only in total.
    pub by: Option<GroupBy>,
}

/// Statistics of a range.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Over the whole range.
    pub total: Figures,
    /// By group, in the order of their keys; empty when none were asked for.
    pub groups: Vec<Group>,
}

/// One group's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The carrier, the error code, or the start of the hour or day; `None` for deliveries without one.
    pub key: Option<String>,
    /// Its figures.
    pub figures: Figures,
}

/// Counts, times and cost of some deliveries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Still `sent`.
    pub sent: u64,
    /// `delivered`.
    pub delivered: u64,
    /// `failed`.
    pub failed: u64,
    /// What they cost together.
    pub cost: Money,
    /// Seconds from `created_at` to `completed_at` of those that are terminal and have both; `None` for none.
    pub seconds: Option<Percentiles>,
}

/// Percentiles by the nearest rank, to the second: each is a duration that occurred, the longest of those that have as
/// many whole seconds as the exact one. Where the provider's times are whole seconds that is the exact one; else it
/// may be up to a second too long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Half took no longer, by the whole second; likewise the others.
    pub p50: f64,
    /// 95 in 100 took no longer.
    pub p95: f64,
    /// 99 in 100 took no longer.
    pub p99: f64,
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back(micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999, id in "[^\u{0}]{1,60}") {
            let cursor = Cursor { time: Timestamp::from_micros(micros).unwrap(), key: DeliveryId::parse(id).unwrap() };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor.clone()));
            prop_assert_eq!(Cursor::<Digest>::decode(&cursor.encode()), Err(InvalidCursor));
        }

        #[test]
        fn noise_is_no_cursor(noise in vec(any::<u8>(), 0..40), text in "[0-9a-f]{0,40}") {
            let _ = Cursor::<DeliveryId>::decode(&hex::encode(noise));
            let _ = Cursor::<Digest>::decode(&text);
        }
    }
}
