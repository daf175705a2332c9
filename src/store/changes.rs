//! What changed, in an order that does not change: for those who follow, and come back after they were cut off.
//!
//! Lives here: [`Position`], what is told of a change, how another replica is heard. Does not: who follows (`feed`).
//!
//! Each commit that changes what is shown of deliveries notes their ids, in the same transaction. Postgres numbers
//! transactions as they begin, and they end in any order: those are read that lie below every transaction still under
//! way, so that none can come between what was read already.

use std::{collections::BTreeMap, fmt, str::FromStr};

use async_trait::async_trait;

use super::StoreError;
use crate::delivery::Delivery;

/// For how long changes are kept.
pub const KEPT_HOURS: u32 = 24;

/// A place between two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
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
    pub fn after(commit: i64) -> Self {
        Self { commit, seen: u32::MAX }
    }

    /// After so many of a commit's changes.
    #[must_use]
    pub fn within(commit: i64, seen: u32) -> Self {
        Self { commit, seen }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seen {
            u32::MAX => write!(f, "{}", self.commit),
            seen => write!(f, "{}-{seen}", self.commit),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (commit, seen) = text.split_once('-').map_or((text, None), |(commit, seen)| (commit, Some(seen)));
        if !digits(commit) || !seen.is_none_or(digits) {
            return Err(InvalidPosition);
        }
        let commit = commit.parse().map_err(|_| InvalidPosition)?;
        match seen {
            None => Ok(Self::after(commit)),
            Some(seen) => Ok(Self::within(commit, seen.parse().map_err(|_| InvalidPosition)?)),
        }
    }
}

/// A delivery that is shown otherwise than before.
#[derive(Debug, Clone)]
pub struct Change {
    /// The place right after it.
    pub position: Position,
    /// The delivery as it stands now, which may be after a later change still.
    pub delivery: Delivery,
}

/// What of the commits was read; `K` is what a store notes of a delivery's id.
pub(super) struct Noted<K>(Vec<(Position, K)>);

impl<K: Ord + Clone> Noted<K> {
    pub(super) fn nothing() -> Self {
        Self(Vec::new())
    }

    /// Adds a commit's changes, but for those at or before a position.
    pub(super) fn add(&mut self, commit: i64, ids: impl IntoIterator<Item = K>, after: Position) {
        let changes = (1..).zip(ids).map(|(seen, id)| (Position::within(commit, seen), id));
        self.0.extend(changes.filter(|(position, _)| *position > after));
    }

    /// Whose changes they are, each delivery once.
    pub(super) fn ids(&self) -> Vec<K> {
        let mut ids: Vec<_> = self.0.iter().map(|(_, id)| id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// With what the deliveries are now.
    pub(super) fn with(self, deliveries: Vec<Delivery>, key: impl Fn(&Delivery) -> K) -> Vec<Change> {
        let deliveries: BTreeMap<_, _> =
            deliveries.into_iter().map(|delivery| (key(&delivery), delivery)).collect();
        let find = |(position, id)| Some(Change { position, delivery: deliveries.get(&id)?.clone() });
        self.0.into_iter().filter_map(find).collect()
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
        let positions =
            [Position::within(7, 1), Position::within(7, 20), Position::after(7), Position::within(8, 1)];
        assert!(positions.is_sorted());
        for position in positions {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        assert_eq!(Position::after(7).to_string(), "7");
        for wrong in ["", "-", "7-", "-7", "+7", "7-1-1", "7 ", "9223372036854775808", "7-4294967296"] {
            assert_eq!(wrong.parse::<Position>(), Err(InvalidPosition), "{wrong}");
        }
    }
}
