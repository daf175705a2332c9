//! What changed, in an order that does not change: for those who follow, and come back after they were cut off.
//!
//! Lives here: [`Position`], [`ChangePage`], how another replica is heard. Does not: who follows (`feed`).
//!
//! Each commit that changes what is shown of deliveries notes their ids, in the same transaction. Postgres numbers
//! transactions as they begin, and they end in any order: those are read that lie below every transaction still under
//! way, so that none can come between what was read already.
//!
//! # Epochs
//! A store that was restored goes on from an earlier place than some readers have seen. Each position therefore carries
//! the epoch in which it was given. An epoch begins whenever the store may have been replaced: on Postgres when a writer
//! connects to a server that has been started since, in SQLite when a process opens the file to write. The epoch before
//! it then ends at the last change that the store holds. A position of an ended epoch is valid up to that end, a position
//! beyond it or of an unknown epoch is not, and its reader has to start again. All positions of a store, of whichever
//! epoch, lie on one line that only grows.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::{clock::Timestamp, delivery::Delivery};

/// For how long changes are kept.
pub const KEPT_HOURS: u32 = 24;

/// The most changes of one page.
pub const PAGE_CHANGES: usize = 128;

/// The bytes of text after which a page ends. The last delivery may exceed it by what one delivery can hold, which the
/// size of a webhook's body bounds.
pub const PAGE_BYTES: usize = 64 * 1024;

/// The most ended epochs that a store remembers; positions of older ones are expired. It also forgets those that ended
/// more than [`KEPT_HOURS`] ago.
pub(super) const ENDED_EPOCHS: i64 = 256;

/// A number for a new epoch. Random, so that no two lives of a store give the same.
pub(super) fn new_epoch() -> i64 {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    // Databases have no unsigned numbers.
    i64::try_from(random >> 1).unwrap_or_default()
}

/// A place between two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The epoch in which it was given. Earlier releases gave positions without one; those are of no known epoch.
    pub epoch: i64,
    /// The commit before it, or the one that it is in the middle of.
    pub commit: i64,
    /// How many of that commit's changes lie before it; all of them, unless told.
    seen: u32,
}

/// The text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no id of this stream's events")]
pub struct InvalidPosition;

impl Position {
    /// After all of a commit.
    #[must_use]
    pub fn after(epoch: i64, commit: i64) -> Self {
        Self { epoch, commit, seen: u32::MAX }
    }

    /// After so many of a commit's changes.
    #[must_use]
    pub fn within(epoch: i64, commit: i64, seen: u32) -> Self {
        Self { epoch, commit, seen }
    }

    /// The same place, as another epoch gives it.
    #[must_use]
    pub fn in_epoch(self, epoch: i64) -> Self {
        Self { epoch, ..self }
    }

    /// Whether it comes after another one of the same store, of whichever epoch.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        (self.commit, self.seen) > (other.commit, other.seen)
    }

    /// How many of its commit's changes lie before it, within what databases count.
    pub(super) fn seen(&self) -> i32 {
        i32::try_from(self.seen).unwrap_or(i32::MAX - 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, commit, seen } = self;
        match *seen {
            u32::MAX => write!(f, "{epoch:016x}-{commit}"),
            seen => write!(f, "{epoch:016x}-{commit}-{seen}"),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        const EPOCH_DIGITS: usize = 16;
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<i64>().map_err(|_| InvalidPosition),
            false => Err(InvalidPosition),
        };
        let mut parts = text.split('-').peekable();
        let is_epoch =
            |part: &&str| part.len() == EPOCH_DIGITS && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let epoch = parts.next_if(is_epoch).map_or(Ok(0), |epoch| i64::from_str_radix(epoch, 16));
        let epoch = epoch.map_err(|_| InvalidPosition)?;
        let commit = number(parts.next().ok_or(InvalidPosition)?)?;
        let seen = parts.next().map(number).transpose()?;
        if parts.next().is_some() {
            return Err(InvalidPosition);
        }
        match seen {
            None => Ok(Self::after(epoch, commit)),
            Some(seen) => Ok(Self::within(epoch, commit, u32::try_from(seen).map_err(|_| InvalidPosition)?)),
        }
    }
}

/// A delivery that is shown otherwise than before.
#[derive(Debug, Clone)]
pub struct Change {
    /// The place right after it.
    pub position: Position,
    /// The time that lists sort and filter the delivery by.
    pub listed_at: Timestamp,
    /// The delivery as it stands now, which may be after a later change still.
    pub delivery: Delivery,
}

/// Changes that follow each other, [`PAGE_CHANGES`] and about [`PAGE_BYTES`] at most.
#[derive(Debug, Clone)]
pub struct ChangePage {
    /// In order; none when there is none yet.
    pub changes: Vec<Change>,
    /// The place after them. Later than the last change where a row was left out that cannot be read.
    pub end: Position,
    /// How long the oldest change that is committed has waited for an older transaction.
    pub held_for: Duration,
}

impl ChangePage {
    /// Without any change yet.
    pub(super) fn empty(end: Position, held_for: Duration) -> Self {
        Self { changes: Vec::new(), end, held_for }
    }
}

/// Word of other replicas' changes.
#[async_trait]
pub trait Notices: Send {
    /// Waits until another replica has changed something; also when it may have been missed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no more can be heard.
    async fn next(&mut self) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_and_sorts() {
        let epoch = new_epoch();
        let positions = [
            Position::within(epoch, 7, 1),
            Position::within(epoch, 7, 20),
            Position::after(epoch, 7),
            Position::within(epoch, 8, 1),
        ];
        assert!(positions.is_sorted_by(|one, next| next.is_after(one) && !one.is_after(next)));
        for position in positions {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        assert_eq!(Position::after(0x2a, 7).to_string(), "000000000000002a-7");
        for (earlier, read) in [("7", Position::after(0, 7)), ("7-3", Position::within(0, 7, 3))] {
            assert_eq!(earlier.parse(), Ok(read), "given by an earlier release");
        }
        for wrong in [
            "",
            "-",
            "7-",
            "-7",
            "+7",
            "7-1-1",
            "7 ",
            "9223372036854775808",
            "7-4294967296",
            "000000000000002a",
            "000000000000002a-",
            "ffffffffffffffff-7",
            "000000000000002a-7-1-1",
        ] {
            assert_eq!(wrong.parse::<Position>(), Err(InvalidPosition), "{wrong}");
        }
    }
}
