//! `serve` as a process: its first log line, its signals, and `health` beside it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A `serve` of its own store; killed when the test is over.
struct Serving {
    child: Child,
    log: BufReader<ChildStdout>,
    address: String,
    _folder: TempDir,
}

fn receiver() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"));
    command.env_clear().stdin(Stdio::null());
    command
}

impl Serving {
    fn start(format: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = receiver()
            .env("NEXO_WEBHOOK_SECRET", "whsec_test_1")
            .env("API_TOKEN", "a-token-of-some-length")
            .env("DATA_DIR", folder.path())
            .env("PORT", "0")
            .env("LOG_FORMAT", format)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        log.read_line(&mut first).unwrap();
        let (_, address) = first.split_once("listening on http://").unwrap_or_else(|| panic!("{first}"));
        let address = address.split(['"', '\n']).next().unwrap().to_owned();
        Self { child, log, address, _folder: folder }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; the exit status and the rest of the log.
    fn ended(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn either_signal_ends_it_with_exit_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let serving = Serving::start("text");
        serving.signal(signal);
        let (status, log) = serving.ended();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.lines().last().unwrap().ends_with("stopped"), "{log}");
    }
}

#[test]
fn the_log_is_json_when_nobody_looks() {
    let serving = Serving::start("auto");
    serving.signal(Signal::TERM);
    let (_, log) = serving.ended();
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string() && line["level"].is_string() && line["timestamp"].is_string());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut serving = Serving::start("text");
    // A body that never ends is under way for longer than this test may take.
    let mut connection = TcpStream::connect(&serving.address).unwrap();
    let head = "POST /webhooks/nexo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n";
    let signature = format!("x-nexo-signature: sha256={}\r\n\r\n{{", "0".repeat(64));
    connection.write_all(format!("{head}{signature}").as_bytes()).unwrap();
    // An answer to a later connection's request tells that the earlier one was taken.
    assert_eq!(health(&serving, &[]).code(), Some(0));
    serving.signal(Signal::TERM);
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(serving.log.read_line(&mut line).unwrap(), 0, "the log ended");
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().0.code(), Some(130));
}

fn health(serving: &Serving, args: &[&str]) -> ExitStatus {
    let (host, port) = serving.address.rsplit_once(':').unwrap();
    receiver().arg("health").args(args).env("HOST", host).env("PORT", port).output().unwrap().status
}

#[test]
fn health_asks_it_without_any_secret() {
    let serving = Serving::start("text");
    assert_eq!(health(&serving, &[]).code(), Some(0));
    assert_eq!(health(&serving, &["--ready"]).code(), Some(0));
}

#[test]
fn a_taken_port_is_one_line_and_exit_1() {
    let serving = Serving::start("text");
    let folder = tempfile::tempdir().unwrap();
    let output = receiver()
        .env("NEXO_WEBHOOK_SECRET", "whsec_test_1")
        .env("API_TOKEN", "a-token-of-some-length")
        .env("DATA_DIR", folder.path())
        .env("PORT", serving.address.rsplit_once(':').unwrap().1)
        .output()
        .unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.starts_with("nexo-receiver: "), "{line}");
}
