//! A database of one test's own, on either store, and the means to sabotage it.

use std::{panic::resume_unwind, path::Path, sync::Arc, time::Duration};

use nexo_receiver::{
    secret::Secret,
    store::{
        Store,
        open::{Location, open},
        postgres, sqlite,
    },
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection, postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

/// Runs each test, written once as `async fn name(database: Database)`, on both stores.
macro_rules! on_each_store {
    ($($name:ident),* $(,)?) => {
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    crate::support::database::Database::postgres(super::$name).await;
                }
            )*
        }
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    crate::support::database::Database::sqlite(super::$name).await;
                }
            )*
        }
    };
}
pub(crate) use on_each_store;

/// An empty, migrated database.
#[derive(Clone)]
pub enum Database {
    Postgres { url: String },
    Sqlite { folder: Arc<TempDir> },
}

impl Database {
    /// Runs a test on a Postgres database, which is dropped afterwards.
    pub async fn postgres<T>(test: impl FnOnce(Self) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        // One at a time: a template that is being copied can't be copied.
        static COPYING: Mutex<()> = Mutex::const_new(());
        let copying = COPYING.lock().await;
        let mut server = server().await;
        statement(&mut server, &format!("CREATE DATABASE {name} TEMPLATE {}", template().await)).await;
        drop(copying);
        let ended = tokio::spawn(test(Self::Postgres { url: url_of(&name) })).await;
        statement(&mut server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        if let Err(failed) = ended {
            resume_unwind(failed.into_panic());
        }
    }

    /// Runs a test on the embedded store, whose folder is removed afterwards.
    pub async fn sqlite<T>(test: impl FnOnce(Self) -> T)
    where
        T: Future<Output = ()>,
    {
        let database = Self::Sqlite { folder: Arc::new(tempfile::tempdir().unwrap()) };
        let store = open(&database.location()).await.unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        test(database).await;
    }

    /// Where a service finds it.
    pub fn location(&self) -> Location {
        match self {
            Self::Postgres { url } => Location::Postgres(postgres_options(url)),
            Self::Sqlite { folder } => Location::Sqlite(sqlite::Options {
                folder: folder.path().to_owned(),
                read_connections: 4,
                commit_timeout: Duration::from_secs(5),
                read_timeout: Duration::from_secs(5),
            }),
        }
    }

    /// The same for a process.
    pub fn environment(&self) -> [(&'static str, String); 1] {
        match self {
            Self::Postgres { url } => [("DATABASE_URL", url.clone())],
            Self::Sqlite { folder } => [("DATA_DIR", folder.path().to_str().unwrap().to_owned())],
        }
    }

    /// Another replica's view of it.
    pub async fn open(&self) -> Arc<dyn Store> {
        open(&self.location()).await.unwrap()
    }

    /// Runs SQL past the store.
    pub async fn execute(&self, sql: &str) {
        self.raw().await.execute(sql).await;
    }

    /// Rows of a table.
    pub async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        match self.raw().await {
            Raw::Postgres(mut connection) => {
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
            }
            Raw::Sqlite(mut connection) => sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap(),
        }
    }

    /// From now on the database refuses deliveries over this carrier.
    pub async fn refuse_carrier(&self, carrier: &str) {
        self.execute(&match self {
            Self::Postgres { .. } => {
                format!("ALTER TABLE deliveries ADD CONSTRAINT refused CHECK (carrier <> '{carrier}')")
            }
            Self::Sqlite { .. } => format!(
                "CREATE TRIGGER refused BEFORE INSERT ON deliveries WHEN NEW.carrier = '{carrier}'
                 BEGIN SELECT RAISE(ABORT, 'refused'); END"
            ),
        })
        .await;
    }

    /// The database takes all carriers again.
    pub async fn refuse_no_carrier(&self) {
        self.execute(match self {
            Self::Postgres { .. } => "ALTER TABLE deliveries DROP CONSTRAINT refused",
            Self::Sqlite { .. } => "DROP TRIGGER refused",
        })
        .await;
    }

    /// Holds up every commit until released.
    pub async fn hold_writers(&self) -> Hold {
        let mut raw = self.raw().await;
        match self {
            Self::Postgres { .. } => {
                raw.execute("BEGIN").await;
                raw.execute("LOCK TABLE deliveries, events, quarantine IN SHARE ROW EXCLUSIVE MODE").await;
            }
            Self::Sqlite { .. } => raw.execute("BEGIN IMMEDIATE").await,
        }
        Hold(raw)
    }

    async fn raw(&self) -> Raw {
        match self {
            Self::Postgres { url } => Raw::Postgres(PgConnection::connect(url).await.unwrap()),
            Self::Sqlite { folder } => Raw::Sqlite(sqlite_connection(folder.path()).await),
        }
    }
}

async fn sqlite_connection(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("nexo-receiver.db"));
    options.busy_timeout(Duration::from_secs(5)).connect().await.unwrap()
}

enum Raw {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Raw {
    async fn execute(&mut self, sql: &str) {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Postgres(connection) => drop(statement.execute(connection).await.unwrap()),
            Self::Sqlite(connection) => drop(statement.execute(connection).await.unwrap()),
        }
    }
}

/// Commits wait while this is held.
pub struct Hold(Raw);

impl Hold {
    /// Lets commits go on.
    pub async fn release(mut self) {
        self.0.execute("ROLLBACK").await;
    }
}

/// The options of a store on a Postgres.
pub fn postgres_options(url: &str) -> postgres::Options {
    postgres::Options {
        url: Secret::new(url.to_owned()),
        pgbouncer: false,
        migration_lock: true,
        read_connections: 4,
        connect_timeout: Duration::from_secs(3),
        commit_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
    }
}

/// The throw-away server that `tests/run` starts.
pub fn server_url() -> String {
    given("TEST_DATABASE_URL")
}

/// What `tests/run` has put into the environment.
#[expect(clippy::disallowed_methods, reason = "tests are told where their server is by tests/run")]
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

fn url_of(database: &str) -> String {
    let server = server_url();
    let (server, _) = server.rsplit_once('/').expect("the URL names a database");
    format!("{server}/{database}")
}

async fn server() -> PgConnection {
    let options: PgConnectOptions = server_url().parse().expect("TEST_DATABASE_URL is a URL");
    options.connect().await.expect("the server that tests/run started answers")
}

async fn statement(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// A migrated database to copy, made once.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let name = format!("template_{}", std::process::id());
            statement(&mut server().await, &format!("CREATE DATABASE {name}")).await;
            let store = open(&Location::Postgres(postgres_options(&url_of(&name)))).await.unwrap();
            store.migrate().await.unwrap();
            store.close().await;
            name
        })
        .await
}
