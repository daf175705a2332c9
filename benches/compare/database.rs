//! The Postgres that `run` has started: a fresh database for each run, and what is in it afterwards.

use std::path::Path;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio::runtime::{Builder, Runtime};
use url::Url;

const SCHEMA: &str = include_str!("peers/schema.sql");
const COUNT: &str = "SELECT count(*) FROM deliveries";

/// A server with nothing of anybody's in it.
pub(crate) struct Postgres {
    runtime: Runtime,
    url: Url,
    connection: PgConnection,
}

impl Postgres {
    pub(crate) fn connect(url: Url) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(PgConnection::connect(url.as_str()))?;
        Ok(Self { runtime, url, connection })
    }

    fn execute(&mut self, sql: &'static str) -> anyhow::Result<()> {
        let done = sqlx::raw_sql(sql).execute(&mut self.connection);
        self.runtime.block_on(done).with_context(|| sql.to_owned())?;
        Ok(())
    }

    pub(crate) fn version(&mut self) -> anyhow::Result<String> {
        let version = sqlx::query_scalar("SHOW server_version").fetch_one(&mut self.connection);
        Ok(self.runtime.block_on(version)?)
    }

    /// A database with nothing in it, and no work left over from the one before; its URL.
    pub(crate) fn renew(&mut self) -> anyhow::Result<String> {
        self.execute("DROP DATABASE IF EXISTS run WITH (FORCE)")?;
        self.execute("CREATE DATABASE run")?;
        self.execute("CHECKPOINT")?;
        let mut url = self.url.clone();
        url.set_path("/run");
        Ok(url.into())
    }

    /// The peers' table.
    pub(crate) fn make_table(&self, url: &str) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await?;
            sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
            connection.close().await
        })?;
        Ok(())
    }

    pub(crate) fn count(&self, url: &str) -> anyhow::Result<u64> {
        let count: i64 = self.runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await?;
            sqlx::query_scalar(COUNT).fetch_one(&mut connection).await
        })?;
        Ok(u64::try_from(count)?)
    }

    /// Deliveries in an embedded store.
    pub(crate) fn count_embedded(&self, folder: &Path) -> anyhow::Result<u64> {
        let url = format!("sqlite://{}", folder.join("nexo-receiver.db").display());
        let count: i64 = self.runtime.block_on(async {
            let mut connection = SqliteConnection::connect(&url).await?;
            sqlx::query_scalar(COUNT).fetch_one(&mut connection).await
        })?;
        Ok(u64::try_from(count)?)
    }
}
