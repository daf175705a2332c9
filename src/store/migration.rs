//! Numbered changes to a schema, and which of them a database lacks.
//!
//! Lives here: what both databases share. Does not: SQL; the changes themselves stand in `migrations/`, forward only.

use std::collections::BTreeSet;

use super::StoreError;

/// One change to a schema; it only adds, so that the version before can go on beside it.
pub(super) struct Migration {
    /// Its place in the order, once given never changed.
    pub(super) version: i64,
    /// Its file's name.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) sql: &'static str,
}

/// Those of `all` that are not among `applied`, in their order. Newer ones that this version does not know do no
/// harm.
pub(super) fn missing<'a>(all: &'a [Migration], applied: &BTreeSet<i64>) -> Vec<&'a Migration> {
    all.iter().filter(|migration| !applied.contains(&migration.version)).collect()
}

/// The name of the last of `all`.
pub(super) fn newest(all: &[Migration]) -> &'static str {
    all.last().map_or("none", |migration| migration.name)
}

/// Refuses a schema that lacks any of `all`, naming the first.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub(super) fn require(all: &[Migration], applied: &BTreeSet<i64>) -> Result<(), StoreError> {
    match missing(all, applied).first() {
        None => Ok(()),
        Some(first) => Err(StoreError::Unavailable(format!(
            "migration {} is not applied: run `nexo-receiver migrate`, or set STORE_MIGRATE=true",
            first.name
        ))),
    }
}
