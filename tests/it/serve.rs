//! `serve` as a process: its first log line, its signals, and `health` beside it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::provider::{event, head, sign_with};

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
    /// It stops at once when told to.
    fn start(format: &str) -> Self {
        Self::start_with(format, "0")
    }

    /// It serves on for so many seconds when told to stop.
    fn start_with(format: &str, notice: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = receiver()
            .env("NEXO_WEBHOOK_SECRET", "whsec_test_1")
            .env("API_TOKEN", "a-token-of-some-length")
            .env("DATA_DIR", folder.path())
            .env("PORT", "0")
            .env("LOG_FORMAT", format)
            .env("SERVER_NOTICE_SECONDS", notice)
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

    /// Reads the log up to a line that says this.
    fn until_logged(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "the log ended without {words}");
        }
        line
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
    serving.until_logged("draining");
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().0.code(), Some(130));
}

#[test]
fn it_serves_on_until_load_balancers_have_noticed() {
    for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
        let mut serving = Serving::start_with("text", "3600");
        assert_eq!(health(&serving, &["--ready"]).code(), Some(0));
        serving.signal(first);
        assert!(serving.until_logged("signal=").contains(if first == Signal::TERM {
            "SIGTERM"
        } else {
            "SIGINT"
        }));
        serving.until_logged("/readyz is 503");
        // Each over a new connection.
        for _ in 0..3 {
            assert_eq!(health(&serving, &["--ready"]).code(), Some(1), "it is not ready");
            assert_eq!(health(&serving, &[]).code(), Some(0), "it is served all the same");
        }
        let answer = post_webhook(&serving);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // A second signal skips the rest of the hour, and what is under way is finished.
        serving.signal(second);
        let (status, log) = serving.ended();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.lines().last().unwrap().ends_with("stopped"), "{log}");
    }
}

#[test]
fn it_stops_by_itself_when_the_notice_is_over() {
    let serving = Serving::start_with("text", "1");
    assert_eq!(health(&serving, &["--ready"]).code(), Some(0));
    serving.signal(Signal::TERM);
    let (status, log) = serving.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("no {words}: {log}"));
    assert!(at("/readyz is 503") < at("draining") && at("draining") < at(": stopped"), "{log}");
}

#[test]
fn a_hangup_is_logged_and_ends_nothing() {
    let mut serving = Serving::start("text");
    for _ in 0..2 {
        serving.signal(Signal::HUP);
        assert!(serving.until_logged("nothing to reload").contains("SIGHUP"));
    }
    assert_eq!(health(&serving, &["--ready"]).code(), Some(0));
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().0.code(), Some(0));
}

/// The answer to a signed event.
fn post_webhook(serving: &Serving) -> String {
    let body = event("a", "delivered");
    let head = head(body.len(), &sign_with("whsec_test_1", &body)).replace("host: test", "connection: close");
    let mut connection = TcpStream::connect(&serving.address).unwrap();
    connection.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
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
        .env("LOG_FORMAT", "text")
        .output()
        .unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.starts_with("nexo-receiver: "), "{line}");
}

#[test]
fn a_start_that_fails_warns_of_a_mangled_password_all_the_same() {
    let output = receiver()
        .env("NEXO_WEBHOOK_SECRET", "whsec_test_1")
        .env("API_TOKEN", "a-token-of-some-length")
        .env("DATABASE_URL", "postgres://u:%22hunter2%22@127.0.0.1:1/d")
        .env("PORT", "0")
        .output()
        .unwrap();
    let (log, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    // In JSON, as the log.
    let line: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(line["level"], "ERROR", "{error}");
    assert!(log.contains("the password in DATABASE_URL stands in quotes"), "{log}");
    assert!(!log.contains("hunter2") && !error.contains("hunter2"), "{log}{error}");
}
