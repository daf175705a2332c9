//! The built binary as a process of its own, which can be killed.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{database::Database, http::API_TOKEN, provider::WEBHOOK_SECRET};

/// A running `serve`; killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts on a free port, and returns once the log's first line has said which.
    pub fn serve(database: &Database) -> Self {
        Self::serve_with(database, &[])
    }

    /// Likewise, with more of an environment.
    pub fn serve_with(database: &Database, environment: &[(&str, String)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
            .arg("serve")
            .env_clear()
            .envs(database.environment())
            .envs([("NEXO_WEBHOOK_SECRET", WEBHOOK_SECRET), ("API_TOKEN", API_TOKEN), ("PORT", "0")])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut log = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        log.read_line(&mut first).expect("a first line");
        let address = first
            .split_once("http://")
            .and_then(|(_, rest)| rest.split(['"', '\n', ' ']).next()?.parse().ok())
            .unwrap_or_else(|| panic!("the first line names the address: {first}"));
        // The rest is read and dropped, or the process would block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    /// SIGKILL: no time to finish anything.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        self.child.wait().expect("it ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
