//! A store, and what its database lets one do beside the service's own questions.

use std::{path::PathBuf, time::Duration};

use nexo_receiver::{
    secret::Secret,
    store::{
        Store,
        postgres::{self, Postgres},
        query::Question,
        sqlite::{self, Sqlite},
    },
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use url::Url;

use crate::filled::{self, Filled};

const PATIENCE: Duration = Duration::from_secs(600);

/// A store and where it is.
pub(crate) enum Place {
    Postgres { store: Box<Postgres>, url: Url },
    Sqlite { store: Box<Sqlite>, folder: PathBuf },
}

impl Place {
    pub(crate) async fn open(at: &str) -> Self {
        if at.starts_with("postgres") {
            let options = postgres::Options {
                url: Secret::new(at.into()),
                pgbouncer: false,
                migration_lock: true,
                changes: true,
                read_connections: 1,
                connect_timeout: PATIENCE,
                commit_timeout: PATIENCE,
                read_timeout: PATIENCE,
            };
            let store = Box::new(Postgres::open(&options).await.unwrap());
            return Self::Postgres { store, url: at.parse().unwrap() };
        }
        let folder = PathBuf::from(at);
        let options = sqlite::Options {
            folder: folder.clone(),
            read_connections: 1,
            commit_timeout: PATIENCE,
            read_timeout: PATIENCE,
        };
        Self::Sqlite { store: Box::new(Sqlite::open(&options).await.unwrap()), folder }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        match self {
            Self::Postgres { store, .. } => &**store,
            Self::Sqlite { store, .. } => &**store,
        }
    }

    /// An empty store beside this one.
    pub(crate) async fn empty_one(&self) -> Self {
        let beside = match self {
            Self::Postgres { url, .. } => {
                let name = format!("{}_empty", database(url));
                self.run(&format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}")).await;
                let mut beside = url.clone();
                beside.set_path(&name);
                beside.into()
            }
            Self::Sqlite { folder, .. } => format!("{}_empty", folder.display()),
        };
        let place = Self::open(&beside).await;
        place.store().migrate().await.unwrap();
        place
    }

    /// Takes all deliveries out again. A database dropped and made anew would have Postgres write a checkpoint.
    pub(crate) async fn empty(&self) {
        match self {
            Self::Postgres { .. } => self.run("TRUNCATE deliveries, hours, hour_counts").await,
            Self::Sqlite { .. } => self.run_on_file("DELETE FROM deliveries; VACUUM").await,
        }
    }

    /// Removes an empty store that is needed no more.
    pub(crate) async fn remove(self, beside: &Self) {
        self.store().close().await;
        match self {
            Self::Postgres { url, .. } => {
                beside.run(&format!("DROP DATABASE {}", database(&url))).await;
            }
            Self::Sqlite { folder, .. } => std::fs::remove_dir_all(folder).unwrap(),
        }
    }

    /// Bytes of the write-ahead log so far, on Postgres.
    pub(crate) async fn log_bytes(&self) -> Option<f64> {
        let Self::Postgres { url, .. } = self else { return None };
        let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
        let bytes = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8";
        Some(sqlx::query_scalar(bytes).fetch_one(&mut connection).await.unwrap())
    }

    pub(crate) async fn fill(&self, filled: &Filled) {
        match self {
            Self::Postgres { .. } => self.run(&filled.statements(filled::POSTGRES)).await,
            Self::Sqlite { .. } => self.run_on_file(&filled.statements(filled::SQLITE)).await,
        }
    }

    async fn run_on_file(&self, sql: &str) {
        let Self::Sqlite { folder, .. } = self else { return };
        let file = format!("sqlite://{}/nexo-receiver.db", folder.display());
        let mut connection = SqliteConnection::connect(&file).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Runs statements on Postgres, one by one: VACUUM does not go with others.
    async fn run(&self, sql: &str) {
        let Self::Postgres { url, .. } = self else { return };
        let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
        for statement in sql.split(';').filter(|sql| !sql.trim().is_empty()) {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        }
    }

    pub(crate) async fn explain(&self, question: Question<'_>) -> Vec<String> {
        match self {
            Self::Postgres { store, .. } => store.explain(question).await.unwrap(),
            Self::Sqlite { store, .. } => store.explain(question).await.unwrap(),
        }
    }
}

/// The name of a URL's database.
fn database(url: &Url) -> &str {
    url.path().trim_start_matches('/')
}
