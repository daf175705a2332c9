//! From where the data is to a [`Store`]: the only place that names both databases.

use std::{fmt, path::Path, sync::Arc};

use super::{Store, StoreError, postgres, sqlite};

/// Where the data is.
#[derive(Debug, Clone)]
pub enum Location {
    /// A Postgres, shared by any number of replicas.
    Postgres(postgres::Options),
    /// The embedded store: a file in a folder of this process.
    Sqlite(sqlite::Options),
}

impl Location {
    /// The newest migration that this version has for it.
    #[must_use]
    pub fn schema(&self) -> &'static str {
        match self {
            Self::Postgres(_) => postgres::schema(),
            Self::Sqlite(_) => sqlite::schema(),
        }
    }
}

impl fmt::Display for Location {
    /// Which database, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(options) => write!(f, "postgres {}", postgres::place(options)),
            Self::Sqlite(options) => write!(f, "sqlite {}", options.folder.display()),
        }
    }
}

/// Opens a store; its schema may be missing or old still.
///
/// # Errors
/// [`StoreError::Unavailable`] when it can't be reached or written.
pub async fn open(location: &Location) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match location {
        Location::Postgres(options) => Arc::new(postgres::Postgres::open(options).await?),
        Location::Sqlite(options) => Arc::new(sqlite::Sqlite::open(options).await?),
    })
}

/// Opens a store that is there and has the schema of this version; makes neither.
///
/// # Errors
/// [`StoreError::Unavailable`] when there is none, which names where it was looked for, or it can't be reached.
pub async fn open_existing(location: &Location) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match location {
        Location::Postgres(options) => Arc::new(postgres::Postgres::open_existing(options).await?),
        Location::Sqlite(options) => Arc::new(sqlite::Sqlite::open_existing(options).await?),
    })
}

/// Copies the embedded store, live, into a new file.
///
/// # Errors
/// [`StoreError::Unavailable`] when there is none, or the file exists already or can't be written.
pub async fn backup(options: &sqlite::Options, to: &Path) -> Result<(), StoreError> {
    sqlite::backup(options, to).await
}
