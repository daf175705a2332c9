//! Brings the database's schema up to this version's.
//!
//! sqlx's own migrator is not used: it leaves named statements and a session's lock behind, which pgbouncer hands to
//! others. Here it is one transaction for all that is missing, and a lock that ends with it.

use std::collections::BTreeSet;

use sqlx::{PgConnection, QueryBuilder, Row};

use super::{Postgres, meaning, sqlstate};
use crate::store::{
    StoreError,
    migration::{self, Migration},
};

/// Every change to the schema, in order.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "0001_custody",
        sql: include_str!("../../../migrations/postgres/0001_custody.sql"),
    },
    Migration {
        version: 2,
        name: "0002_epochs",
        sql: include_str!("../../../migrations/postgres/0002_epochs.sql"),
    },
    Migration {
        version: 3,
        name: "0003_claims",
        sql: include_str!("../../../migrations/postgres/0003_claims.sql"),
    },
];

/// Any number, so long as it is always the same.
const LOCK: &str = "SELECT pg_advisory_xact_lock(5629497583245)";
const CREATE: &str =
    r#"CREATE TABLE IF NOT EXISTS migrations (version bigint NOT NULL PRIMARY KEY, name text NOT NULL)"#;
const APPLIED: &str = "SELECT version FROM migrations";
const RECORD: &str = "INSERT INTO migrations (version, name) VALUES ($1, $2)";

/// The newest migration of this version.
#[must_use]
pub fn schema() -> &'static str {
    migration::newest(MIGRATIONS)
}

impl Postgres {
    /// Whether every migration is applied.
    pub(super) async fn require_migrations(&self) -> Result<(), StoreError> {
        migration::require(MIGRATIONS, &self.applied().await?)
    }

    /// Applies what is missing, in one transaction.
    pub(super) async fn apply_migrations(&self) -> Result<usize, StoreError> {
        const ATTEMPTS: usize = 5;
        if migration::missing(MIGRATIONS, &self.applied().await?).is_empty() {
            return Ok(0);
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut connection = self.connect().await?;
            match apply(&mut connection, self.options.migration_lock).await {
                Ok(applied) => {
                    // The next one begins an epoch of positions.
                    self.writers.close_idle();
                    return Ok(applied);
                }
                // Without the lock, another replica was faster.
                Err(error) if attempts < ATTEMPTS && was_overtaken(&error) => {}
                Err(error) => return Err(meaning(error)),
            }
        }
    }

    async fn applied(&self) -> Result<BTreeSet<i64>, StoreError> {
        const UNDEFINED_TABLE: &str = "SQLSTATE 42P01";
        match self.ask(QueryBuilder::new(APPLIED)).await {
            Ok(rows) => rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(meaning),
            // No migration was ever applied.
            Err(StoreError::Unavailable(why)) if why.starts_with(UNDEFINED_TABLE) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }
}

/// The connection goes after this, and with it, on an error, all that was done.
async fn apply(connection: &mut PgConnection, lock: bool) -> Result<usize, sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    if lock {
        sqlx::raw_sql(LOCK).execute(&mut *connection).await?;
    }
    sqlx::raw_sql(CREATE).execute(&mut *connection).await?;
    let applied = sqlx::query(APPLIED).persistent(false).fetch_all(&mut *connection).await?;
    let applied = applied.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let missing = migration::missing(MIGRATIONS, &applied);
    for migration in &missing {
        sqlx::raw_sql(migration.sql).execute(&mut *connection).await?;
        let record = sqlx::query(RECORD).bind(migration.version).bind(migration.name);
        record.persistent(false).execute(&mut *connection).await?;
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(missing.len())
}

fn was_overtaken(error: &sqlx::Error) -> bool {
    let unique_violation_or_exists = ["23505", "42P07", "42710", "42701", "40001", "40P01"];
    sqlstate(error).is_some_and(|code| unique_violation_or_exists.contains(&code.as_str()))
}
