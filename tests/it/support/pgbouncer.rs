//! A pgbouncer of one test's own, in transaction mode.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{
    cluster::{as_user, run},
    database::{given, server_url},
    process::free_port,
    until::until,
};

/// Stopped when dropped.
pub struct Pgbouncer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Pgbouncer {
    /// In front of the server that `tests/run` has started, with more lines for its configuration.
    pub async fn start(settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("nexo-receiver-pgbouncer").tempdir_in("/tmp").unwrap();
        let file = folder.path().join("pgbouncer.ini");
        let server = server_url();
        let target = server.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port");
        let port = free_port();
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={target} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n{settings}\n"
        );
        fs::write(&file, configuration).unwrap();
        let user = given("PG_USER");
        let program = "pgbouncer".as_ref();
        let mut command = match user.as_str() {
            "" => Command::new(program),
            user => {
                run(Command::new("chown").arg("-R").arg(format!("{user}:")).arg(folder.path()));
                as_user(user, program)
            }
        };
        let child = command
            .env("TZ", "UTC")
            .arg("--quiet")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let started = Self { child: child.expect("pgbouncer starts"), port, _folder: folder };
        until(async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        started
    }

    /// The URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
