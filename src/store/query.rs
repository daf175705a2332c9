//! The questions that a store answers, typed: what reaches SQL has been parsed before.
//!
//! Lives here: filters, cursors, pages, statistics. Does not: their spelling in a URL (`http/parameters`).

use std::num::NonZeroU16;

use super::{
    StoreError,
    changes::Change,
    unreadable::{Read, UnreadableRow},
};
use crate::{
    clock::Timestamp,
    delivery::{DeliveryId, LONGEST_TEXT, Status},
    money::Sum,
    phone::Phone,
};

/// How many entries a page holds: 1 to 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(NonZeroU16);

impl PageSize {
    /// The most entries of a page.
    pub const MOST: u16 = 500;

    /// The largest page.
    pub const LARGEST: Self = Self(NonZeroU16::new(Self::MOST).expect("500 is not 0"));

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

/// Bytes of a key that a cursor holds at most; of a longer one, which only a broken row has, it holds the beginning. That is
/// longer than any valid key, also without a character that was cut in two, so that no valid key sorts between the two.
const LONGEST_KEY: usize = LONGEST_TEXT + 4;

/// A key as its row has it, which may be no valid one: a broken row has its place in a list too. `LIST` tells whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawKey<const LIST: u8>(Vec<u8>);

/// The bytes of a delivery's id.
pub type RawId = RawKey<b'd'>;

/// The digest of a quarantined body.
pub type RawDigest = RawKey<b'q'>;

/// The digest of an event among those of its delivery.
pub type RawEvent = RawKey<b'e'>;

impl<const LIST: u8> RawKey<LIST> {
    /// The bytes of a row's key, as far as a cursor holds them.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes[..bytes.len().min(LONGEST_KEY)].to_vec())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as a text, as far as they are one without U+0000.
    #[must_use]
    pub fn as_text(&self) -> &str {
        let text = self.0.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        text.split('\0').next().unwrap_or_default()
    }
}

impl<const LIST: u8> CursorKey for RawKey<LIST> {
    const LIST: u8 = LIST;

    fn to_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= LONGEST_KEY).then(|| Self(bytes.to_vec()))
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

/// Bytes of bodies on a page: the body that goes beyond is the page's last.
pub const PAGE_BYTES: i64 = 1 << 20;

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Rows that would be entries of this page, and cannot be read.
    pub unreadable: Vec<UnreadableRow>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from up to one row more than fits, each with its position. A page with less entries than fit, even with none,
    /// has a next one if there are more rows.
    #[must_use]
    pub fn of<K: CursorKey>(rows: Vec<(Read<T>, Cursor<K>)>, size: PageSize) -> Self {
        let found = rows.len();
        Self::among(rows, found, size)
    }

    /// Likewise from the first of so many rows that were found: as many as have room in bytes.
    #[must_use]
    pub fn among<K: CursorKey>(mut rows: Vec<(Read<T>, Cursor<K>)>, found: usize, size: PageSize) -> Self {
        rows.truncate(size.get());
        let next = (found > rows.len()).then(|| rows.last().map(|(_, cursor)| cursor.encode()));
        let (mut entries, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
        for (row, _) in rows {
            match row {
                Ok(entry) => entries.push(entry),
                Err(row) => unreadable.push(row),
            }
        }
        Self { entries, unreadable, next: next.flatten() }
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
    pub after: Option<Cursor<RawId>>,
}

impl ListDeliveries {
    /// Whether a change is of one of the deliveries that are asked for, on whichever page.
    #[must_use]
    pub fn matches(&self, Change { listed_at, delivery, .. }: &Change) -> bool {
        let Self { phone, status, carrier, error_code, from, to, .. } = self;
        phone.as_ref().is_none_or(|phone| delivery.phone.as_ref() == Some(phone))
            && status.is_none_or(|status| delivery.status == status)
            && carrier.as_ref().is_none_or(|carrier| delivery.carrier.as_ref() == Some(carrier))
            && error_code.as_ref().is_none_or(|code| delivery.error_code.as_ref() == Some(code))
            && from.is_none_or(|from| *listed_at >= from)
            && to.is_none_or(|to| *listed_at < to)
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
    pub after: Option<Cursor<RawDigest>>,
}

/// Which events of a delivery to list, oldest first.
#[derive(Debug, Clone)]
pub struct ListEvents {
    /// The delivery.
    pub id: DeliveryId,
    /// How many.
    pub size: PageSize,
    /// After this position.
    pub after: Option<Cursor<RawEvent>>,
}

impl ListEvents {
    /// The first page of a delivery's events, as many as a page may have.
    #[must_use]
    pub fn of(id: DeliveryId) -> Self {
        Self { id, size: PageSize::LARGEST, after: None }
    }
}

/// Any question, to be explained rather than answered.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// The present state of one delivery.
    Delivery(&'a DeliveryId),
    /// Its events.
    Events(&'a ListEvents),
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
    /// Those of them that were sent so long ago that they are given up.
    pub stale: u64,
    /// `delivered`.
    pub delivered: u64,
    /// `failed`.
    pub failed: u64,
    /// What they cost together.
    pub cost: Sum,
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
        fn a_cursor_is_read_back(micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999, id in vec(any::<u8>(), 0..300)) {
            let cursor = Cursor { time: Timestamp::from_micros(micros).unwrap(), key: RawId::new(&id) };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor.clone()));
            prop_assert_eq!(Cursor::<RawDigest>::decode(&cursor.encode()), Err(InvalidCursor));
        }

        #[test]
        fn noise_is_no_cursor(noise in vec(any::<u8>(), 0..40), text in "[0-9a-f]{0,40}") {
            let _ = Cursor::<RawId>::decode(&hex::encode(noise));
            let _ = Cursor::<RawDigest>::decode(&text);
        }
    }
}
