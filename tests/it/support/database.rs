//! A fresh database for each test, on each store.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nexo_receiver::{
    secret::Secret,
    store::{
        Store,
        open::{Location, open},
        postgres, sqlite,
    },
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Declares tests, each an `async fn(Database)`, once for each store: `on_postgres::name` and `on_sqlite::name`.
macro_rules! on_each_store {
    ($($name:ident),* $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::support::database::Database::on_postgres().await).await;
            })*
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::support::database::Database::on_sqlite().await).await;
            })*
        }
    };
}
pub(crate) use on_each_store;

/// A database of one test's own, migrated, gone with it.
pub struct Database {
    place: Place,
}

enum Place {
    Postgres { server: String, name: String },
    Sqlite { folder: TempDir },
}

/// How long anything may take that is not the test's subject.
const PATIENCE: Duration = Duration::from_secs(30);

impl Database {
    /// A database on the server that `tests/run` has started.
    pub async fn on_postgres() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let server = server_url();
        let template = TEMPLATE.get_or_init(|| template(&server)).await;
        Self::create(server.clone(), &format!("TEMPLATE {template}")).await
    }

    /// A file in a folder of its own.
    pub async fn on_sqlite() -> Self {
        let new = Self::empty_on_sqlite();
        new.open().await.migrate().await.unwrap();
        new
    }

    /// Without any table.
    pub async fn empty_on_postgres() -> Self {
        Self::create(server_url(), "").await
    }

    /// Without any table, made with these clauses of `CREATE DATABASE`.
    pub async fn made_on_postgres(how: &str) -> Self {
        Self::create(server_url(), how).await
    }

    /// Without any table.
    pub fn empty_on_sqlite() -> Self {
        Self { place: Place::Sqlite { folder: tempfile::tempdir().unwrap() } }
    }

    async fn create(server: String, how: &str) -> Self {
        let name = name();
        run(&server, &format!("CREATE DATABASE {name} {how}")).await;
        Self { place: Place::Postgres { server, name } }
    }

    /// Opens the store; several times is several replicas.
    pub async fn open(&self) -> Arc<dyn Store> {
        open(&self.location()).await.unwrap()
    }

    /// Where it is.
    pub fn location(&self) -> Location {
        match &self.place {
            Place::Postgres { name, .. } => Location::Postgres(match pgbouncer() {
                Some(through) => {
                    postgres::Options { pgbouncer: true, ..postgres_options(&url(&through, name)) }
                }
                None => self.postgres_options(),
            }),
            Place::Sqlite { folder } => Self::sqlite_in(folder.path()),
        }
    }

    /// A store in a folder of any other kind.
    pub fn sqlite_in(folder: &Path) -> Location {
        Location::Sqlite(sqlite::Options {
            folder: folder.to_owned(),
            read_connections: 4,
            commit_timeout: PATIENCE,
            read_timeout: PATIENCE,
        })
    }

    /// Whether it is a Postgres.
    pub fn is_postgres(&self) -> bool {
        matches!(self.place, Place::Postgres { .. })
    }

    /// Its name, if it is a Postgres.
    pub fn name(&self) -> String {
        let Place::Postgres { name, .. } = &self.place else { panic!("this is no Postgres") };
        name.clone()
    }

    /// How to reach it without anything in between, if it is a Postgres.
    pub fn postgres_options(&self) -> postgres::Options {
        let Place::Postgres { server, name } = &self.place else { panic!("this is no Postgres") };
        postgres_options(&url(server, name))
    }

    /// Where it is, for a process.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match (&self.place, pgbouncer()) {
            (Place::Postgres { name, .. }, Some(through)) => {
                vec![("DATABASE_URL", url(&through, name)), ("STORE_PGBOUNCER", "true".to_owned())]
            }
            (Place::Postgres { server, name }, None) => vec![("DATABASE_URL", url(server, name))],
            (Place::Sqlite { folder }, _) => vec![("DATA_DIR", folder.path().to_str().unwrap().to_owned())],
        }
    }

    /// The file, if it is one.
    pub fn sqlite_file(&self) -> PathBuf {
        let Place::Sqlite { folder } = &self.place else { panic!("this is no SQLite") };
        folder.path().join("nexo-receiver.db")
    }

    /// Bytes of the file's log; 0 where there is none.
    pub fn sqlite_log(&self) -> u64 {
        self.sqlite_file().with_extension("db-wal").metadata().map_or(0, |log| log.len())
    }

    /// A connection past the store.
    pub async fn direct(&self) -> Direct {
        match &self.place {
            Place::Postgres { server, name } => {
                Direct::Postgres(PgConnection::connect(&url(server, name)).await.unwrap())
            }
            Place::Sqlite { .. } => Direct::Sqlite(self.sqlite().await),
        }
    }

    /// Runs statements past the store.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.direct().await;
        connection.execute(sql).await;
        connection.close().await;
    }

    /// Runs statements in the server's own database.
    pub async fn execute_on_server(&self, sql: &str) {
        let Place::Postgres { server, .. } = &self.place else { panic!("this is no Postgres") };
        run(server, sql).await;
    }

    /// One whole number, asked past the store.
    pub async fn number(&self, sql: &str) -> i64 {
        match &self.place {
            Place::Postgres { server, name } => {
                let mut connection = PgConnection::connect(&url(server, name)).await.unwrap();
                sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap().get(0)
            }
            Place::Sqlite { .. } => {
                sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.sqlite().await).await.unwrap().get(0)
            }
        }
    }

    /// All that it holds, as bytes, for a search.
    pub async fn everything(&self) -> Vec<u8> {
        match &self.place {
            Place::Postgres { server, name } => {
                let mut connection = PgConnection::connect(&url(server, name)).await.unwrap();
                let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
                let mut all = Vec::new();
                for table in sqlx::query(tables).fetch_all(&mut connection).await.unwrap() {
                    let table: String = table.get(0);
                    // Bytes as text, where they are one: their hex digits are searched for too.
                    let rows = format!("SELECT t::text FROM {table} AS t");
                    for row in sqlx::query(AssertSqlSafe(rows)).fetch_all(&mut connection).await.unwrap() {
                        all.extend(row.get::<String, _>(0).into_bytes());
                        all.push(b'\n');
                    }
                }
                all
            }
            Place::Sqlite { .. } => std::fs::read(self.sqlite_file()).unwrap(),
        }
    }

    /// From now on the database refuses deliveries over this carrier.
    pub async fn refuse_carrier(&self, carrier: &str) {
        self.execute(&match self.place {
            Place::Postgres { .. } => {
                format!("ALTER TABLE deliveries ADD CONSTRAINT refused CHECK (carrier <> '{carrier}')")
            }
            Place::Sqlite { .. } => format!(
                "CREATE TRIGGER refused BEFORE INSERT ON deliveries WHEN NEW.carrier = '{carrier}'
                 BEGIN SELECT RAISE(ABORT, 'refused'); END"
            ),
        })
        .await;
    }

    /// The database takes all carriers again.
    pub async fn refuse_no_carrier(&self) {
        self.execute(match self.place {
            Place::Postgres { .. } => "ALTER TABLE deliveries DROP CONSTRAINT refused",
            Place::Sqlite { .. } => "DROP TRIGGER refused",
        })
        .await;
    }

    /// Holds up every commit until the connection is closed.
    pub async fn hold_writers(&self) -> Direct {
        let mut connection = self.direct().await;
        connection
            .execute(match connection {
                Direct::Postgres(_) => {
                    "BEGIN; LOCK TABLE deliveries, older_events, quarantine IN SHARE ROW EXCLUSIVE MODE"
                }
                Direct::Sqlite(_) => "BEGIN IMMEDIATE",
            })
            .await;
        connection
    }

    async fn sqlite(&self) -> SqliteConnection {
        SqliteConnectOptions::new()
            .filename(self.sqlite_file())
            .busy_timeout(PATIENCE)
            .connect()
            .await
            .unwrap()
    }
}

/// A connection to a test's database that goes past the store.
pub enum Direct {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Direct {
    /// Runs statements.
    pub async fn execute(&mut self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self {
            Self::Postgres(connection) => drop(sql.execute(connection).await.unwrap()),
            Self::Sqlite(connection) => drop(sql.execute(connection).await.unwrap()),
        }
    }

    /// Ends it, and a transaction that it is in.
    pub async fn close(self) {
        match self {
            Self::Postgres(connection) => connection.close().await,
            Self::Sqlite(connection) => connection.close().await,
        }
        .unwrap();
    }
}

/// The options of a store on a Postgres.
pub fn postgres_options(url: &str) -> postgres::Options {
    postgres::Options {
        url: Secret::new(url.to_owned()),
        pgbouncer: false,
        migration_lock: true,
        changes: true,
        read_connections: 4,
        connect_timeout: PATIENCE,
        commit_timeout: PATIENCE,
        read_timeout: PATIENCE,
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Place::Postgres { server, name } = &self.place else { return };
        let (server, sql) = (server.clone(), format!("DROP DATABASE {name} WITH (FORCE)"));
        // A thread, since this one is inside a runtime already.
        let drop = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(&server, &sql));
        };
        let _ = std::thread::spawn(drop).join();
    }
}

/// The throw-away server that `tests/run` starts.
pub fn server_url() -> String {
    given("TEST_DATABASE_URL")
}

/// The pgbouncer in front of it, when all services under test are to go through one: `tests/run --pgbouncer`.
#[expect(clippy::disallowed_methods, reason = "tests are told where their server is by tests/run")]
pub fn pgbouncer() -> Option<String> {
    std::env::var("TEST_PGBOUNCER_URL").ok()
}

/// A database that others are copied from, migrated once in this process.
async fn template(server: &str) -> String {
    let database = Database::create(server.to_owned(), "").await;
    // Nothing else may be connected to it when it is copied.
    let store = open(&Location::Postgres(database.postgres_options())).await.unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    let Place::Postgres { name, .. } = &database.place else { unreachable!() };
    let name = name.clone();
    // It stays as long as the server, which is there for these tests alone.
    std::mem::forget(database);
    name
}

/// What `tests/run` has put into the environment.
#[expect(clippy::disallowed_methods, reason = "tests are told where their server is by tests/run")]
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: start the tests with tests/run"))
}

fn name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("nexo_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The server's URL, for another database.
fn url(server: &str, database: &str) -> String {
    let (url, query) =
        server.split_once('?').map_or((server, String::new()), |(url, query)| (url, format!("?{query}")));
    let (authority, _) = url.rsplit_once('/').expect("the URL names a database");
    format!("{authority}/{database}{query}")
}

async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
