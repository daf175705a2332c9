//! A Postgres server of one test's own, to be crashed and started again.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nexo_receiver::{
    secret::Secret,
    store::{open::Location, postgres},
};
use tempfile::TempDir;

use super::database::given;

/// A server, durable as a new one is by default; stopped and removed when dropped.
pub struct Cluster {
    folder: TempDir,
    binaries: PathBuf,
    /// Whom Postgres must run as, when that is not the present user.
    user: Option<String>,
    port: u16,
}

impl Cluster {
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("nexo-receiver-cluster").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let user = Some(given("PG_USER")).filter(|user| !user.is_empty());
        if let Some(user) = &user {
            run(Command::new("chown").arg(user).arg(folder.path()));
        }
        let cluster = Self { folder, binaries: given("PG_BIN").into(), user, port };
        run(cluster.command("initdb").args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
        ]));
        cluster.restart();
        cluster
    }

    /// Ends the server as a crash of it would: nothing is finished, and it has to recover.
    pub fn crash(&self) {
        run(self.command("pg_ctl").args(["stop", "--mode=immediate", "--wait"]));
    }

    /// Starts the server.
    pub fn restart(&self) {
        let folder = self.folder.path().display();
        let options =
            format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}", self.port);
        let log = self.folder.path().join("log");
        run(self.command("pg_ctl").args(["start", "--wait", "--options", &options, "--log"]).arg(log));
    }

    /// Where a service finds it.
    pub fn location(&self) -> Location {
        Location::Postgres(postgres::Options {
            url: Secret::new(format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)),
            pgbouncer: false,
            migration_lock: true,
            changes: true,
            read_connections: 4,
            connect_timeout: Duration::from_secs(2),
            commit_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(5),
        })
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = match &self.user {
            None => Command::new(program),
            Some(user) => as_user(user, &program),
        };
        command.arg("--pgdata").arg(self.folder.path().join("data")).current_dir("/").stdout(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl")
            .args(["stop", "--mode=immediate", "--wait"])
            .stderr(Stdio::null())
            .status();
    }
}

fn as_user(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).args(["--clear-groups", "--"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
