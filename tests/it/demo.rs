//! `demo` and `sandbox` as somebody new to it meets them: what they print is so, and every call works as printed.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nexo_receiver::sandbox::NUMBERS;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How soon the first table is there.
const SOON: Duration = Duration::from_secs(5);

/// A command that goes on until it is told to stop; killed when the test is over.
struct Shown {
    child: Child,
    output: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Shown {
    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
            .args(args)
            .env_clear()
            .env("TMPDIR", folder.path())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, folder }
    }

    /// Reads on to the line that begins so, and answers all lines up to it.
    fn until(&mut self, start: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| !line.starts_with(start)) {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended after {lines:#?}");
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// Stops it; how it ended, and what it had still to say.
    fn stop(mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(self.folder.path().read_dir().unwrap().count(), 0, "something is left");
        (status, rest)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the calls among these lines; what each answered.
fn calls(lines: &[String], env: &[(&str, &str)]) -> Vec<Value> {
    let calls = lines.iter().filter(|line| line.trim_start().starts_with("curl "));
    let answers = calls.map(|call| {
        let asked = format!("{call} --fail-with-body --silent --show-error");
        let output = Command::new("sh").args(["-c", &asked]).envs(env.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{call}: {output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["ok"], true, "{call}: {answer}");
        answer
    });
    answers.collect()
}

#[test]
fn the_demo_shows_what_becomes_of_each_and_every_call_it_prints_works() {
    let started = Instant::now();
    let mut demo = Shown::start(&["demo"], &[]);
    demo.until("+84900000020");
    assert!(started.elapsed() < SOON, "the first table took {:?}", started.elapsed());

    let lines = demo.until("Ctrl-C");
    // The cells of its last line, without what was planned.
    let last = |phone: &str| {
        let line = lines.iter().rfind(|line| line.starts_with(phone)).unwrap();
        line[50..].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (phone, shown) in [
        ("+84900000000", "200 delivered"),
        ("+84981234567", "200 delivered"),
        ("+84900000002", "200 failed: busy"),
        ("+84900000030", "200 200 delivered"),
        ("+84900000035", "401 nothing"),
        ("+84900000021", "200 delivered"),
        ("+84900000020", "nothing"),
    ] {
        assert_eq!(last(phone), shown, "{phone}: {lines:#?}");
    }

    let answers = calls(&lines, &[]);
    let [first, evidence, failed, stats, sent, newest, attempts] = &answers[..] else {
        panic!("{answers:#?}");
    };
    assert_eq!((&first["phone"], &first["status"]), (&"+84900000000".into(), &"delivered".into()));
    assert_eq!(evidence["events"][0]["times"], 2);
    assert_eq!(failed["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(stats["groups"][0]["key"], "mobifone", "{stats}");
    assert_eq!(sent["status"], "sent");
    assert_eq!(newest["deliveries"].as_array().unwrap().len(), 1);
    assert!(attempts["attempts"].as_array().unwrap().len() >= 7);
    assert_eq!(demo.stop(Signal::INT).0.code(), Some(0));
}

#[test]
fn a_closed_window_ends_the_demo_too_and_leaves_nothing() {
    let mut demo = Shown::start(&["demo"], &[]);
    demo.until("+84900000020");
    assert_eq!(demo.stop(Signal::HUP).0.code(), Some(0));
}

#[test]
fn the_sandbox_prints_its_numbers_and_calls_that_work() {
    let listen = ["sandbox", "--listen", "127.0.0.1:0"];
    // A key that may be a real one is not shown.
    for env in [&[][..], &[("NEXO_KEY", "sk_live_real")]] {
        let mut sandbox = Shown::start(&listen, env);
        let lines = sandbox.until("Ctrl-C");
        for number in &NUMBERS {
            assert!(lines.contains(&format!("  {}  {number}", number.phone)), "{lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("sk_live_real")), "{lines:#?}");
        let answers = calls(&lines, env);
        assert_eq!(answers.len(), 3);
        assert_eq!((&answers[0]["status"], &answers[1]["balance"]), (&"sent".into(), &100.088.into()));
        let (status, log) = sandbox.stop(Signal::TERM);
        assert_eq!(status.code(), Some(0));
        // Neither the whole number nor the code.
        assert!(log.contains("phone=+8490***0000"), "{log}");
        assert!(!log.contains("+84900000000") && !log.contains("482917"), "{log}");
    }
}

#[test]
fn the_sandbox_refuses_what_it_cannot_be() {
    for (args, expected) in [
        (&["--fault", "explode"][..], "must be one of twice, late"),
        (&["--fault", "twice", "--fault", "late"], "more than 1 together"),
        (&["--fault", "twice=2"], "must be a number from 0 to 1"),
        (&["--delay-ms", "9..1"], "must be milliseconds"),
        (&["--balance", "a lot"], "must be an amount"),
        (&["--listen", "4000"], "must be HOST:PORT"),
        (&["--webhook-url", "http://127.0.0.1/"], "NEXO_WEBHOOK_SECRET: missing"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
            .arg("sandbox")
            .args(args)
            .env_clear()
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{args:?}: {error}");
    }
}
