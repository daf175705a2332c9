//! Rows that cannot be read: left out of answers, counted, and named in the log.
//!
//! A row is named by its key and the column at fault, never by a value, which may be personal.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How often the log names a row that is met again and again.
const EVERY: Duration = Duration::from_secs(60);

/// Rows that the log names within [`EVERY`]. Further ones are only counted.
const MOST_NAMED: usize = 256;

/// Characters of a key that are shown. No valid id is longer.
const LONGEST_NAME: usize = 255;

/// What has rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// The present state of each delivery.
    Deliveries,
    /// Events that did not win.
    OlderEvents,
    /// Verified bodies that were not understood.
    Quarantine,
    /// Groups of deliveries that statistics count together.
    Statistics,
    /// Notes of what changed.
    Changes,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 5] =
        [Self::Deliveries, Self::OlderEvents, Self::Quarantine, Self::Statistics, Self::Changes];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries",
            Self::OlderEvents => "older_events",
            Self::Quarantine => "quarantine",
            Self::Statistics => "statistics",
            Self::Changes => "changes",
        }
    }
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnreadableRow {
    /// Where it is.
    pub table: Table,
    /// Its key: a delivery's id, a digest in hex.
    pub row: String,
    /// The column that holds what it should not.
    pub column: String,
}

impl UnreadableRow {
    /// A row by the bytes of its key, which may be broken too.
    pub(super) fn new(table: Table, key: &[u8], column: impl Into<String>) -> Self {
        let row =
            String::from_utf8_lossy(key).chars().take(LONGEST_NAME).flat_map(char::escape_debug).collect();
        Self { table, row, column: column.into() }
    }
}

impl fmt::Display for UnreadableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in {}: the column {} cannot be read", self.row, self.table.as_str(), self.column)
    }
}

/// A row as it was read, or its name.
pub(super) type Read<T> = Result<T, UnreadableRow>;

/// Reads a row. `key` is asked for the bytes of its key only if it cannot be read.
///
/// # Errors
/// Whatever is not the row's fault.
pub(super) fn read<T>(
    table: Table,
    row: Result<T, sqlx::Error>,
    key: impl FnOnce() -> Vec<u8>,
) -> Result<Read<T>, sqlx::Error> {
    match row {
        Ok(row) => Ok(Ok(row)),
        Err(error) => match column_of(&error) {
            Some(column) => Ok(Err(UnreadableRow::new(table, &key(), column))),
            None => Err(error),
        },
    }
}

/// The column that cannot be read, if that is the error.
fn column_of(error: &sqlx::Error) -> Option<String> {
    match error {
        sqlx::Error::ColumnDecode { index, .. } => Some(index.trim_matches('"').to_owned()),
        _ => None,
    }
}

/// What one open store has left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// In the order of [`Table::ALL`].
    counts: [AtomicU64; Table::ALL.len()],
    /// When each row was last named.
    named: Mutex<HashMap<UnreadableRow, Instant>>,
}

impl LeftOut {
    /// The rows that could be read; all others are counted and named.
    pub(super) fn readable<T>(&self, rows: impl IntoIterator<Item = Read<T>>) -> Vec<T> {
        rows.into_iter().filter_map(|row| row.map_err(|unreadable| self.note(&unreadable)).ok()).collect()
    }

    /// Counts a row that was left out, and names it in the log unless that was done a moment ago.
    pub(super) fn note(&self, unreadable: &UnreadableRow) {
        self.note_of(unreadable, 1);
    }

    /// Likewise of so many rows that are known by one name.
    pub(super) fn note_of(&self, unreadable: &UnreadableRow, rows: u64) {
        for (_, count) in Table::ALL.iter().zip(&self.counts).filter(|(table, _)| **table == unreadable.table)
        {
            count.fetch_add(rows, Ordering::Relaxed);
        }
        if self.is_to_be_named(unreadable, Instant::now()) {
            let UnreadableRow { table, row, column } = unreadable;
            tracing::error!(
                table = table.as_str(),
                row,
                column,
                rows,
                "left out: the row cannot be read (`nexo-receiver rebuild --check` names every such row)"
            );
        }
    }

    /// How many rows of a table were left out so far; one that is met again counts again.
    pub(super) fn of(&self, table: Table) -> u64 {
        let counts = Table::ALL.iter().zip(&self.counts);
        counts.filter(|(of, _)| **of == table).map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    fn is_to_be_named(&self, unreadable: &UnreadableRow, now: Instant) -> bool {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| now.duration_since(*at) < EVERY;
        if named.get(unreadable).is_some_and(is_recent) {
            return false;
        }
        if named.len() >= MOST_NAMED {
            named.retain(|_, at| is_recent(at));
        }
        let has_room = named.len() < MOST_NAMED;
        if has_room {
            named.insert(unreadable.clone(), now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> UnreadableRow {
        UnreadableRow::new(Table::Deliveries, n.to_string().as_bytes(), "phone")
    }

    #[test]
    fn each_row_is_named_once_a_minute_and_so_many_at_most() {
        let (left_out, now) = (LeftOut::default(), Instant::now());
        let named = |now| (0..MOST_NAMED + 10).filter(|n| left_out.is_to_be_named(&row(*n), now)).count();
        assert_eq!(named(now), MOST_NAMED);
        assert_eq!(named(now + EVERY - Duration::from_millis(1)), 0);
        assert_eq!(named(now + EVERY), MOST_NAMED);
        assert_eq!(left_out.named.lock().unwrap().len(), MOST_NAMED);
    }

    #[test]
    fn rows_are_counted_by_table() {
        let left_out = LeftOut::default();
        assert_eq!(left_out.readable([Ok(1), Err(row(2)), Ok(3), Err(row(2))]), [1, 3]);
        assert_eq!(Table::ALL.map(|table| left_out.of(table)), [2, 0, 0, 0, 0]);
    }

    #[test]
    fn a_name_is_short_and_on_one_line() {
        let named =
            UnreadableRow::new(Table::Deliveries, &[b"a\n\xff".as_slice(), &[b'x'; 300]].concat(), "phone");
        assert!(named.to_string().starts_with("`a\\n\u{fffd}xx"), "{named}");
        assert!(named.row.chars().count() <= LONGEST_NAME + 1);
    }
}
