//! A copy of the store while it is in use.

use std::{fs::File, path::Path};

use sqlx::{ConnectOptions, Connection};

use super::{Sqlite, connect, meaning};
use crate::store::StoreError;

impl Sqlite {
    /// Copies the store as it is now into a new file, and sees to it that the copy is on the disk. Takes as long as
    /// it takes; commits go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is a file already, or it can't be written.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let at =
            |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("{}: {error}", to.display()));
        if to.try_exists().map_err(|error| at(&error))? {
            return Err(at(&"there is a file already"));
        }
        let mut connection = connect::reader(&self.file).connect().await.map_err(meaning)?;
        let name = to.to_str().ok_or_else(|| at(&"not a name in UTF-8"))?;
        sqlx::query("VACUUM INTO ?").bind(name).execute(&mut connection).await.map_err(|error| at(&error))?;
        connection.close().await.map_err(meaning)?;
        let synced = || {
            File::open(to)?.sync_all()?;
            connect::sync_folder(
                to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            )
        };
        synced().map_err(|error| at(&error))
    }
}
