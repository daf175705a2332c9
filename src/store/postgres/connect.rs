//! Connections, and what must hold before one is written to.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::{
    Options, Postgres,
    doubt::{Doubt, answers},
    meaning,
};
use crate::{clock::Timestamp, store::StoreError};

/// Connections for questions leave after this long, so that they find a server that took over.
const READER_LIFETIME: Duration = Duration::from_secs(600);
/// Likewise those that nobody uses.
const READER_IDLE: Duration = Duration::from_secs(60);

/// What decides whether a commit is kept, and whether text is, so far as the engine has it.
const SETTINGS: &str = "SELECT current_setting('synchronous_commit', true) AS synchronous_commit,
    current_setting('transaction_read_only', true) AS read_only,
    current_setting('fsync', true) AS fsync,
    current_setting('full_page_writes', true) AS full_page_writes,
    current_setting('server_encoding', true) AS encoding,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now";

const SYNCHRONOUS: &str = "SELECT set_config('synchronous_commit', 'on', false) AS synchronous_commit";

const TIMEOUTS: &str =
    "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false)";

/// Statistics of a large table look dear to the planner before it knows how little of it is left to count, and
/// compiling their statement takes longer than answering it. An engine that lacks the setting answers no row.
const INTERPRETED: &str = "SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'jit'";

/// Why a connection is not written to.
pub(super) const READ_ONLY_SERVER: &str = "it is read-only: a standby, or set so";

/// The server gives up a little before we do, so that the error says what it was.
pub(super) const IMPATIENCE: f64 = 0.9;

/// Reads the URL.
pub(super) fn parse(options: &Options) -> Result<PgConnectOptions, StoreError> {
    let to: PgConnectOptions = options
        .url
        .reveal()
        .parse()
        .map_err(|error| StoreError::Unavailable(format!("not the URL of a Postgres: {error}")))?;
    let mut to = to.disable_statement_logging();
    if to.get_application_name().is_none() {
        to = to.application_name("nexo-receiver");
    }
    // Behind pgbouncer a startup parameter that it does not track is refused.
    Ok(if options.pgbouncer { to.extra_float_digits(None) } else { to })
}

/// Host, port and database of the URL, without user and password.
#[must_use]
pub fn place(options: &Options) -> String {
    let Ok(to) = parse(options) else { return "at an unreadable URL".to_owned() };
    let host = to.get_socket().map_or(to.get_host().to_owned(), |socket| socket.display().to_string());
    format!("{host}:{}/{}", to.get_port(), to.get_database().unwrap_or_default())
}

/// Connections for questions, opened when they are needed.
pub(super) fn readers(options: &Options, to: &PgConnectOptions, doubt: &Arc<Doubt>) -> PgPool {
    let (doubt, check_limit) = (Arc::clone(doubt), check_limit(options));
    let limit = (!options.pgbouncer).then(|| milliseconds(options.read_timeout));
    PgPoolOptions::new()
        .max_connections(options.read_connections)
        .acquire_timeout(options.read_timeout.min(options.connect_timeout))
        .max_lifetime(READER_LIFETIME)
        .idle_timeout(READER_IDLE)
        // Instead of a round trip each time.
        .test_before_acquire(false)
        .before_acquire(move |connection, met| {
            let doubt = Arc::clone(&doubt);
            Box::pin(async move {
                Ok(!doubt.is_left(met.age)
                    && (!doubt.is_doubted(met.idle_for) || answers(connection, check_limit).await))
            })
        })
        .after_connect(move |connection, _| {
            let limit = limit.clone();
            Box::pin(async move {
                // Behind pgbouncer it would be others' session too.
                let Some(limit) = limit else { return Ok(()) };
                // So that a question which nobody waits for any more ends on the server too.
                sqlx::query(TIMEOUTS).bind(limit.clone()).bind(limit).execute(&mut *connection).await?;
                sqlx::raw_sql(INTERPRETED).execute(connection).await.map(drop)
            })
        })
        .connect_lazy_with(to.clone())
}

/// How long the check of an idle connection may take: a part of what its use may, so that there is time for a new one.
fn check_limit(options: &Options) -> Duration {
    options.connect_timeout.min(options.commit_timeout).min(options.read_timeout) / 4
}

impl Postgres {
    /// How long the check of an idle connection may take.
    pub(super) fn check_limit(&self) -> Duration {
        check_limit(&self.options)
    }

    /// A connection without any limits, for migrations.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        self.in_time(self.to.connect()).await
    }

    /// A connection that may be written to, and waits for no lock for longer than this.
    pub(super) async fn connect_writer(&self, lock_timeout: Duration) -> Result<PgConnection, StoreError> {
        let mut connection = self.connect().await?;
        let settings = self.in_time(sqlx::raw_sql(SETTINGS).fetch_one(&mut connection)).await?;
        // As a number: without parameters the server answers in text, which `rows` does not read.
        if let Some(now) = settings.try_get("now").ok().and_then(|now| Timestamp::from_micros(now).ok()) {
            self.set_clock(now);
        }
        let setting = |name: &str| settings.try_get::<Option<String>, _>(name).ok().flatten();
        let is = |name: &str, value: &str| setting(name).as_deref() == Some(value);
        if let Some(encoding) = setting("encoding").filter(|encoding| encoding != "UTF8") {
            return Err(self.at(format!(
                "the database's encoding is {encoding} and must be UTF8: create one with CREATE DATABASE … ENCODING \
                 'UTF8' TEMPLATE template0"
            )));
        }
        if is("read_only", "on") {
            return Err(self.at(READ_ONLY_SERVER.into()));
        }
        if (is("fsync", "off") || is("full_page_writes", "off")) && !self.warned.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(
                "the database runs with fsync or full_page_writes off: a crash of its machine loses events"
            );
        }
        if is("synchronous_commit", "off") {
            self.make_synchronous(&mut connection).await?;
        }
        if !self.options.pgbouncer {
            let limit = milliseconds(self.options.commit_timeout.mul_f64(IMPATIENCE));
            let timeouts = sqlx::query(TIMEOUTS).bind(limit).bind(milliseconds(lock_timeout));
            self.in_time(timeouts.execute(&mut connection)).await?;
        }
        if self.options.changes {
            self.begin_epoch(&mut connection).await?;
        }
        Ok(connection)
    }

    /// What time it is by the database's clock, as far as ours has kept pace since that was last read.
    pub(super) fn clock(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_micros(now.micros() + self.ahead.load(Ordering::Relaxed)).unwrap_or(now)
    }

    /// Notes what the database's clock says now.
    pub(super) fn set_clock(&self, theirs: Timestamp) {
        self.ahead.store(theirs.micros() - Timestamp::now().micros(), Ordering::Relaxed);
    }

    /// Begins a transaction.
    ///
    /// Behind pgbouncer each statement needs one: sqlx prepares and runs it in two steps, and without a transaction
    /// another client's may come between them on the same server connection and be run instead. The time limits come
    /// along, since a session can't keep them there.
    pub(super) async fn begin(
        &self,
        connection: &mut PgConnection,
        limit: Duration,
        lock_timeout: Duration,
    ) -> Result<(), sqlx::Error> {
        if !self.options.pgbouncer {
            return sqlx::raw_sql("BEGIN").execute(connection).await.map(drop);
        }
        let limit = milliseconds(limit.mul_f64(IMPATIENCE));
        let lock = milliseconds(lock_timeout);
        let begin = format!("BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {lock}");
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(connection).await.map(drop)
    }

    /// Without this the server answers before what it answers for is on its disk.
    async fn make_synchronous(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.options.pgbouncer {
            return Err(self.at(
                "synchronous_commit is off, and behind pgbouncer a session can't turn it on: ALTER ROLE … SET \
                 synchronous_commit = on"
                    .into(),
            ));
        }
        self.in_time(sqlx::raw_sql(SYNCHRONOUS).execute(&mut *connection)).await?;
        let settings = self.in_time(sqlx::raw_sql(SETTINGS).fetch_one(connection)).await?;
        match settings.try_get::<Option<String>, _>("synchronous_commit") {
            Ok(Some(value)) if value != "off" => Ok(()),
            _ => Err(self.at("synchronous_commit is off and can't be turned on".into())),
        }
    }

    /// Waits for a step of opening a connection.
    pub(super) async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        match timeout(self.options.connect_timeout, step).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.named(meaning(error))),
            Err(_) => Err(self.at("no answer in time".into())),
        }
    }

    /// Says which database an error is about.
    pub(super) fn named(&self, error: StoreError) -> StoreError {
        self.at(match error {
            StoreError::Unavailable(why)
            | StoreError::Contended(why)
            | StoreError::Refused(why)
            | StoreError::Corrupt(why)
            | StoreError::Broken(why) => why,
            StoreError::Unreadable(row) => row.to_string(),
        })
    }

    /// Says which database it is about.
    fn at(&self, why: String) -> StoreError {
        let host = match self.to.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.to.get_host(), self.to.get_port()),
        };
        let database = self.to.get_database().unwrap_or(self.to.get_username());
        StoreError::Unavailable(format!("Postgres at {host}/{database}: {why}"))
    }
}

/// As Postgres' settings have it.
pub(super) fn milliseconds(time: Duration) -> String {
    // 0 would be no limit.
    time.as_millis().max(1).to_string()
}
