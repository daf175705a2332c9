//! Brings the file's schema up to this version's.
//!
//! sqlx's own migrator is not used: one transaction for all that is missing, and the same few lines for both
//! databases, of which Postgres' must also work through pgbouncer.

use std::collections::BTreeSet;

use sqlx::{QueryBuilder, Row, SqliteConnection};

use super::{Sqlite, connect, meaning};
use crate::store::{
    StoreError,
    migration::{self, Migration},
};

/// Every change to the schema, in order.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "0001_custody",
        sql: include_str!("../../../migrations/sqlite/0001_custody.sql"),
    },
    Migration {
        version: 2,
        name: "0002_epochs",
        sql: include_str!("../../../migrations/sqlite/0002_epochs.sql"),
    },
    Migration {
        version: 3,
        name: "0003_claims",
        sql: include_str!("../../../migrations/sqlite/0003_claims.sql"),
    },
];

const CREATE: &str =
    "CREATE TABLE IF NOT EXISTS migrations (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL) STRICT";
const APPLIED: &str = "SELECT version FROM migrations";
const RECORD: &str = "INSERT INTO migrations (version, name) VALUES (?, ?)";

/// The newest migration of this version.
#[must_use]
pub fn schema() -> &'static str {
    migration::newest(MIGRATIONS)
}

impl Sqlite {
    /// Whether every migration is applied.
    pub(super) async fn require_migrations(&self) -> Result<(), StoreError> {
        migration::require(MIGRATIONS, &self.applied().await?)
    }

    /// Applies what is missing, in one transaction.
    pub(super) async fn apply_migrations(&self) -> Result<usize, StoreError> {
        if migration::missing(MIGRATIONS, &self.applied().await?).is_empty() {
            return Ok(0);
        }
        let mut connection = connect::writer(&self.options, &self.file, &self.trust).await?;
        apply(&mut connection).await.map_err(|error| self.trust.judge(error))
    }

    async fn applied(&self) -> Result<BTreeSet<i64>, StoreError> {
        let applied = self.ask(QueryBuilder::new(APPLIED)).await;
        match applied {
            Ok(rows) => rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(meaning),
            // No migration was ever applied.
            Err(StoreError::Unavailable(why)) if why.contains("no such table") => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }
}

/// The connection goes after this, and with it, on an error, all that was done.
async fn apply(connection: &mut SqliteConnection) -> Result<usize, sqlx::Error> {
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    sqlx::raw_sql(CREATE).execute(&mut *connection).await?;
    let applied = sqlx::query(APPLIED).fetch_all(&mut *connection).await?;
    let applied = applied.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let missing = migration::missing(MIGRATIONS, &applied);
    for migration in &missing {
        sqlx::raw_sql(migration.sql).execute(&mut *connection).await?;
        sqlx::query(RECORD).bind(migration.version).bind(migration.name).execute(&mut *connection).await?;
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(missing.len())
}
