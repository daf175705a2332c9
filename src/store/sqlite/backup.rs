//! A copy of the store while it is in use.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use sqlx::{ConnectOptions, Connection};

use super::{Sqlite, connect};
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
        let name = to.to_str().ok_or_else(|| at(&"not a name in UTF-8"))?;
        // SQLite fills an empty file, and would make one that everybody can read.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        let file = file.map_err(|error| at(&error))?;
        let copied = self.copy_into(name).await.map_err(|error| at(&error)).and_then(|()| {
            let folder =
                to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let synced: io::Result<()> = file.sync_all().and_then(|()| connect::sync_folder(folder));
            synced.map_err(|error| at(&error))
        });
        if copied.is_err() {
            // Half a copy is worse than none.
            let _ = fs::remove_file(to);
        }
        copied
    }

    async fn copy_into(&self, name: &str) -> Result<(), sqlx::Error> {
        let mut connection = connect::reader(&self.file).connect().await?;
        sqlx::query("VACUUM INTO ?").bind(name).execute(&mut connection).await?;
        connection.close().await
    }
}
