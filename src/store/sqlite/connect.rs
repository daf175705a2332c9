//! The file and the connections to it.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Options, meaning, trust::Trust};
use crate::store::StoreError;

/// The file's name in its folder.
const FILE: &str = "nexo-receiver.db";

/// Makes the folder and the file where they are missing, for this user alone, and sees to it that both are on the
/// disk: SQLite syncs what is in the file, not that there is one.
pub(super) fn create(folder: &Path) -> Result<PathBuf, StoreError> {
    let file = folder.join(FILE);
    let made = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file) {
            Ok(new) => new.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        sync_folder(folder)
    };
    made().map_err(|error| StoreError::Unavailable(format!("{}: {error}", file.display())))?;
    Ok(file)
}

/// Finds the file of a store that some service has made, and makes nothing.
pub(super) async fn existing(folder: &Path) -> Result<PathBuf, StoreError> {
    let (file, folder) =
        (folder.join(FILE), std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()));
    let none = |what: &str| {
        StoreError::Unavailable(format!(
            "no store in {}: {what}; set DATA_DIR (store.data_dir) to the service's folder, or DATABASE_URL to its \
             Postgres; `nexo-receiver migrate` makes a new store",
            folder.display()
        ))
    };
    match file.metadata() {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Err(none(&format!("{FILE} is empty"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(none(&format!("there is no {FILE}")));
        }
        Err(error) => return Err(StoreError::Unavailable(format!("{}: {error}", file.display()))),
    }
    // Not read-only: whoever closes a store last removes its log, and only a writer can.
    let look = async {
        let mut connection = to(&file).connect().await?;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'migrations'";
        let found: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await?;
        connection.close().await.map(|()| found)
    };
    match look.await.map_err(|error| at(&file, meaning(error)))? {
        0 => Err(none(&format!("{FILE} has no table of it"))),
        _ => Ok(file),
    }
}

/// Sees to it that the folder's list of files, and that the folder itself, are on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    File::open(&folder)?.sync_all()?;
    // One that may not be opened holds nothing that we have made.
    match folder.parent().map(File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        _ => Ok(()),
    }
}

/// A connection that writes.
pub(super) async fn writer(
    options: &Options,
    file: &Path,
    trust: &Trust,
) -> Result<SqliteConnection, StoreError> {
    let to_writer = durable(file)
        // A wait for another process ends before the commit does, so that the error says what it was.
        .busy_timeout(options.commit_timeout.mul_f64(0.9))
        // Ids and phones come in no order: with SQLite's own 2 MiB most of their indexes' pages were read each time.
        .pragma("cache_size", "-8192")
        // A log that a reader has made long is cut back once it begins anew.
        .pragma("journal_size_limit", "134217728");
    to_writer.connect().await.map_err(|error| at(file, trust.judge(error)))
}

/// A connection that copies the log into the file. The last pass runs between two commits, and its wait for readers is
/// theirs too.
pub(super) async fn checkpoints(
    options: &Options,
    file: &Path,
    trust: &Trust,
) -> Result<SqliteConnection, StoreError> {
    let connect = async {
        let mut connection = durable(file).busy_timeout(options.commit_timeout).connect().await?;
        sqlx::query("PRAGMA busy_timeout = 5").execute(&mut connection).await?;
        Ok(connection)
    };
    connect.await.map_err(|error| at(file, trust.judge(error)))
}

fn durable(file: &Path) -> SqliteConnectOptions {
    to(file)
        .journal_mode(SqliteJournalMode::Wal)
        // Each commit is synced. In this mode NORMAL would lose the last ones with the machine.
        .synchronous(SqliteSynchronous::Full)
        // `checkpoint` does it: SQLite's own runs inside a commit, and says nothing when the disk fails.
        .pragma("wal_autocheckpoint", "0")
}

/// Connections for questions, opened when they are needed.
pub(super) fn readers(options: &Options, file: &Path) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(options.read_connections)
        .acquire_timeout(options.read_timeout)
        .test_before_acquire(false)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(reader(file).busy_timeout(options.read_timeout))
}

/// How a connection for questions is opened.
pub(super) fn reader(file: &Path) -> SqliteConnectOptions {
    to(file).read_only(true)
}

fn to(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(file).foreign_keys(false).disable_statement_logging()
}

/// Names the file in an error of opening it.
fn at(file: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(why) => StoreError::Unavailable(format!("{}: {why}", file.display())),
        StoreError::Refused(why) => StoreError::Refused(format!("{}: {why}", file.display())),
        StoreError::Contended(why) => StoreError::Contended(format!("{}: {why}", file.display())),
        error @ (StoreError::Broken(_) | StoreError::Unreadable(_)) => error,
        StoreError::Corrupt(why) => StoreError::Corrupt(format!("{}: {why}", file.display())),
    }
}
