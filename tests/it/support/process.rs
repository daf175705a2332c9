//! The built binary as a process of its own, which can be killed.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    database::Database,
    http::API_TOKEN,
    provider::WEBHOOK_SECRET,
    until::{look_again, until},
    wire::PATIENCE,
};

/// How the binary is started.
#[derive(Default)]
pub struct Setup {
    /// A command that starts the one that follows it, such as `strace`; the process's id has to be the binary's.
    pub wrapper: Vec<OsString>,
    /// More of an environment.
    pub environment: Vec<(&'static str, String)>,
    /// Where it listens; 0 for a free port.
    pub port: u16,
    /// Where the log goes, and what it says on standard error.
    pub log: Option<File>,
}

/// A running `serve`; killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts on a free port, and returns once the log's first line has said which.
    pub fn serve(database: &Database) -> Self {
        Self::serve_with(&database.environment(), Setup::default())
    }

    /// Likewise, on any store.
    pub fn serve_with(store: &[(&'static str, String)], setup: Setup) -> Self {
        Self::try_serve_with(store, setup).unwrap_or_else(|status| panic!("it does not start: {status}"))
    }

    /// Likewise; how it ended, if it did before it listened.
    pub fn try_serve_with(store: &[(&'static str, String)], setup: Setup) -> Result<Self, ExitStatus> {
        let (mut child, copy) = spawn(store, setup);
        let mut log = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        log.read_line(&mut first).expect("a first line");
        let address = first
            .split_once("http://")
            .and_then(|(_, rest)| rest.split(['"', '\n', ' ']).next()?.parse().ok());
        follow(log, copy, first);
        match address {
            Some(address) => Ok(Self { child, address }),
            None => Err(child.wait().expect("it ends")),
        }
    }

    /// Likewise, and its log, which is for the test to read, or not.
    pub fn serve_unread(
        store: &[(&'static str, String)],
        environment: Vec<(&'static str, String)>,
    ) -> (Self, BufReader<std::process::ChildStdout>) {
        let (mut child, _) = spawn(store, Setup { environment, ..Setup::default() });
        let mut log = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        log.read_line(&mut first).expect("a first line");
        let address = first.split_once("http://").and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
        (Self { child, address: address.unwrap_or_else(|| panic!("{first}")) }, log)
    }

    /// Starts at a given port and returns at once, so that it can be killed at any time.
    pub fn begin(store: &[(&'static str, String)], setup: Setup) -> Self {
        let address = ([127, 0, 0, 1], setup.port).into();
        let (mut child, copy) = spawn(store, setup);
        let log = BufReader::new(child.stdout.take().expect("it is piped"));
        follow(log, copy, String::new());
        Self { child, address }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
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

    /// Sends SIGTERM.
    pub fn tell_to_stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }

    /// How it ended by itself.
    pub async fn until_ended(&mut self) -> ExitStatus {
        let wait = async {
            loop {
                match self.ended() {
                    Some(status) => break status,
                    None => look_again().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it ends in time")
    }

    /// Memory in use, in bytes.
    pub fn resident(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// The most memory that was ever in use, in bytes.
    pub fn peak(&self) -> usize {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("it runs").count()
    }
}

/// A running `serve` whose log is kept.
pub struct Logged {
    pub process: Process,
    folder: TempDir,
}

impl Logged {
    /// Starts it with more of an environment.
    pub fn serve(database: &Database, environment: Vec<(&'static str, String)>) -> Self {
        let folder = TempDir::new().unwrap();
        let log = Some(File::create(folder.path().join("log")).unwrap());
        let process =
            Process::serve_with(&database.environment(), Setup { log, environment, ..Setup::default() });
        Self { process, folder }
    }

    /// Stops it as SIGTERM does; all of its log.
    pub async fn terminate(self) -> String {
        assert!(self.process.terminate().success());
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        // Its last line comes through a thread of ours.
        until(async || log().lines().last().is_some_and(|line| line.contains("\"stopped\""))).await;
        log()
    }
}

fn spawn(store: &[(&'static str, String)], setup: Setup) -> (Child, Option<File>) {
    let mut words = setup.wrapper;
    words.extend([env!("CARGO_BIN_EXE_nexo-receiver").into(), "serve".into()]);
    let errors = match &setup.log {
        Some(log) => Stdio::from(log.try_clone().expect("a file")),
        None => Stdio::inherit(),
    };
    let child = Command::new(&words[0])
        .args(&words[1..])
        .env_clear()
        .envs(store.iter().map(|(name, value)| (name, value)))
        .envs([("NEXO_WEBHOOK_SECRET", WEBHOOK_SECRET), ("API_TOKEN", API_TOKEN)])
        .env("PORT", setup.port.to_string())
        .env("SERVER_NOTICE_SECONDS", "0")
        .envs(setup.environment)
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("{:?}: {error}", words[0]));
    (child, setup.log)
}

/// Reads the log on, or the process would block on a full pipe; keeps it where that is asked for.
fn follow(mut log: BufReader<std::process::ChildStdout>, copy: Option<File>, first: String) {
    std::thread::spawn(move || match copy {
        Some(mut copy) => {
            let _ = copy.write_all(first.as_bytes());
            std::io::copy(&mut log, &mut copy)
        }
        None => std::io::copy(&mut log, &mut std::io::sink()),
    });
}

/// A port that nobody listens at, below those that the kernel gives out.
pub fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..20_000)).find(free).expect("there are ports")
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
