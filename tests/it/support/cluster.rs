//! Postgres servers of one test's own, to be crashed, started again and taken over from.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nexo_receiver::{
    secret::Secret,
    store::{open::Location, postgres},
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tempfile::TempDir;

use super::{
    database::{Direct, given},
    process::free_port,
    wire::PATIENCE,
};

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It ends all its processes at once, and has to recover when it is started.
    Immediate,
    /// All its processes are killed.
    AllKilled,
    /// One that serves a connection is killed; the others end, and it recovers by itself.
    OneServerProcess,
}

/// A server, durable as a new one is by default; stopped and removed when dropped.
pub struct Cluster {
    folder: TempDir,
    data: PathBuf,
    binaries: PathBuf,
    /// Whom Postgres must run as, when that is not the present user.
    user: Option<String>,
    port: u16,
    /// The first of its processes: its file may lie on a disk that can't be read any more.
    postmaster: AtomicI32,
}

impl Cluster {
    /// A new server, with a folder of its own.
    pub fn start() -> Self {
        Self::start_in(None)
    }

    /// Likewise, with its data in a given folder.
    pub fn start_in(data: Option<&Path>) -> Self {
        let cluster = Self::new(data);
        if let Some(data) = data {
            cluster.give(data);
        }
        run(cluster.command("initdb").args(["--username=postgres", "--auth=trust", "--encoding=UTF8"]));
        cluster.boot();
        cluster
    }

    /// A server that follows this one, and waits to take over: a copy of its files, made while it goes on. Some builds of
    /// Postgres come without pg_basebackup.
    pub async fn standby(&self) -> Self {
        const COPY: &str = "tar -C \"$1\" --ignore-failed-read --warning=none --exclude=./postmaster.pid \
            --exclude='./pg_wal/*' -cf - . | tar -C \"$2\" -xpf -";
        let standby = Self::new(None);
        fs::create_dir(&standby.data).unwrap();
        let mut session = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::query("SELECT pg_backup_start('standby', true)").execute(&mut session).await.unwrap();
        run(Command::new("sh").args(["-c", COPY, "sh"]).args([&self.data, &standby.data]));
        let label =
            sqlx::query("SELECT labelfile FROM pg_backup_stop()").fetch_one(&mut session).await.unwrap();
        let primary = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.port);
        let settings = fs::read_to_string(standby.data.join("postgresql.auto.conf")).unwrap();
        for (name, content) in [
            ("backup_label", label.get("labelfile")),
            ("standby.signal", String::new()),
            ("postgresql.auto.conf", settings + &primary),
        ] {
            fs::write(standby.data.join(name), content).unwrap();
            standby.give(&standby.data.join(name));
        }
        standby.boot();
        standby
    }

    fn new(data: Option<&Path>) -> Self {
        let folder = tempfile::Builder::new().prefix("nexo-receiver-cluster").tempdir_in("/tmp").unwrap();
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_owned);
        let user = Some(given("PG_USER")).filter(|user| !user.is_empty());
        let cluster = Self {
            folder,
            data,
            binaries: given("PG_BIN").into(),
            user,
            port: free_port(),
            postmaster: AtomicI32::new(0),
        };
        cluster.give(cluster.folder.path());
        cluster
    }

    /// Makes a folder or a file the server's.
    pub fn give(&self, folder: &Path) {
        if let Some(user) = &self.user {
            run(Command::new("chown").arg(format!("{user}:")).arg(folder));
        }
    }

    /// Ends the server, and starts it again.
    pub fn crash(&self, death: Death) {
        match death {
            Death::Immediate => self.stop(),
            Death::AllKilled => self.kill(),
            Death::OneServerProcess => {
                let serving = |pid: &Pid| {
                    let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
                    line.is_ok_and(|line| line.contains("127.0.0.1("))
                };
                if let Some(pid) = self.children().into_iter().find(serving) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                return;
            }
        }
        self.boot();
    }

    /// Ends it at once, so that it has to recover.
    pub fn stop(&self) {
        run(self.command("pg_ctl").args(["stop", "--mode=immediate", "--wait"]));
    }

    /// Kills all its processes, the first one first.
    pub fn kill(&self) {
        let children = self.children();
        for pid in std::iter::once(self.postmaster()).chain(children) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Starts it; again and again while processes of its last life still end.
    pub fn boot(&self) {
        let folder = self.folder.path().display();
        let options =
            format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}", self.port);
        let log = self.folder.path().join("log");
        let start = || {
            let mut command = self.command("pg_ctl");
            command.args(["start", "--wait", "--options", &options, "--log"]).arg(&log);
            command.stderr(Stdio::null()).status().expect("pg_ctl starts").success()
        };
        let deadline = Instant::now() + PATIENCE;
        while !start() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < deadline, "{said}");
            thread::yield_now();
        }
        let file = fs::read_to_string(self.data.join("postmaster.pid")).expect("it runs");
        let pid = file.lines().next().and_then(|line| line.parse().ok()).expect("a process's id");
        self.postmaster.store(pid, Ordering::Relaxed);
    }

    /// Takes over from the server that it follows; commits wait for nobody else from then on.
    pub async fn promote(&self) {
        self.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
        run(self.command("pg_ctl").args(["promote", "--wait"]));
    }

    /// Commits wait from now on until a standby has them.
    pub async fn wait_for_standbys(&self) {
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        self.execute("SELECT pg_reload_conf()").await;
        let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        super::until::until(async || self.number(sync).await == 1).await;
    }

    /// Takes TLS connections from now on, with this key and certificate.
    pub async fn serve_tls(&self, key: &Path, certificate: &Path) {
        for (from, name) in [(key, "server.key"), (certificate, "server.crt")] {
            let to = self.data.join(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
            self.give(&to);
        }
        self.execute("ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()").await;
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        self.try_execute(sql).await.unwrap();
    }

    /// Runs statements, if it can.
    pub async fn try_execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        // One by one: some may not stand in a transaction.
        for sql in sql.split(';').filter(|sql| !sql.trim().is_empty()) {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        }
        connection.close().await
    }

    /// Begins so many transactions that change nothing, so that the ids of all later ones are higher.
    pub async fn spend(&self, ids: u32) {
        let spend = format!(
            "DO $$ BEGIN FOR id IN 1..{ids} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        );
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(spend)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Its database as SQL, as pg_dump writes it.
    pub fn dump(&self) -> String {
        let dump = Command::new(self.binaries.join("pg_dump")).arg(self.url("postgres")).output().unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        String::from_utf8(dump.stdout).unwrap()
    }

    /// Fills its database, which is empty, with a dump.
    pub fn restore(&self, dump: &str) {
        let file = self.folder.path().join("dump.sql");
        fs::write(&file, dump).unwrap();
        let mut psql = Command::new(self.binaries.join("psql"));
        run(psql
            .args(["--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file"])
            .arg(&file)
            .arg(self.url("postgres")));
    }

    /// A copy of its files, between two lives of it.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::Builder::new().prefix("nexo-receiver-copy").tempdir_in("/tmp").unwrap();
        run(self.command("pg_ctl").args(["stop", "--mode=fast", "--wait"]));
        run(Command::new("cp").arg("-a").arg(&self.data).arg(copy.path().join("data")));
        self.boot();
        copy
    }

    /// Puts a copy in place of its files.
    pub fn put_back(&self, copy: &TempDir) {
        run(self.command("pg_ctl").args(["stop", "--mode=fast", "--wait"]));
        fs::remove_dir_all(&self.data).unwrap();
        run(Command::new("cp").arg("-a").arg(copy.path().join("data")).arg(&self.data));
        self.boot();
    }

    /// A connection to one of its databases.
    pub async fn connect(&self, database: &str) -> Direct {
        Direct::Postgres(PgConnection::connect(&self.url(database)).await.unwrap())
    }

    /// One whole number.
    pub async fn number(&self, sql: &str) -> i64 {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap().get(0)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a service finds it.
    pub fn location(&self) -> Location {
        location(&self.url("postgres"))
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn postmaster(&self) -> Pid {
        Pid::from_raw(self.postmaster.load(Ordering::Relaxed)).expect("it was started")
    }

    fn children(&self) -> Vec<Pid> {
        let pid = self.postmaster().as_raw_nonzero();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw).collect()
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = match &self.user {
            None => Command::new(program),
            Some(user) => as_user(user, &program),
        };
        command.arg("--pgdata").arg(&self.data).current_dir("/").stdout(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        let _ = stop.args(["stop", "--mode=immediate", "--wait"]).stderr(Stdio::null()).status();
    }
}

/// A Postgres, for a service that soon gives up waiting for it.
pub fn location(url: &str) -> Location {
    Location::Postgres(postgres::Options {
        url: Secret::new(url.to_owned()),
        pgbouncer: false,
        migration_lock: true,
        changes: true,
        read_connections: 4,
        connect_timeout: Duration::from_secs(2),
        commit_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
    })
}

/// A command that is run as somebody else.
pub fn as_user(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).args(["--clear-groups", "--"]).arg(program);
    command
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
