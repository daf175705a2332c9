//! The store on Postgres, and on what speaks its protocol and SQL.

use std::time::Duration;

use crate::secret::Secret;

/// How to reach a Postgres.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://user:password@host/database`, with libpq's `sslmode` and `sslrootcert`.
    pub url: Secret,
    /// Behind pgbouncer in transaction mode: no startup parameters, no named statements.
    pub pgbouncer: bool,
    /// Whether migrations take an advisory lock; Postgres-compatible engines may lack them.
    pub migration_lock: bool,
    /// The most connections for questions; the writer has one more of its own.
    pub read_connections: u32,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long a commit may take.
    pub commit_timeout: Duration,
    /// How long a question may take, waiting for a connection included.
    pub read_timeout: Duration,
}
