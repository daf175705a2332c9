//! The embedded store: one SQLite file in a folder of its own.

use std::{path::PathBuf, time::Duration};

/// Where the embedded store is.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder, made when it is missing. On a local disk: a network file system breaks SQLite's promises.
    pub folder: PathBuf,
    /// The most connections for questions; the writer has one more of its own.
    pub read_connections: u32,
    /// How long a commit may wait for another process that writes to the same file.
    pub commit_timeout: Duration,
    /// How long a question may take, waiting for a connection included.
    pub read_timeout: Duration,
}
