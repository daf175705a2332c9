//! The log of a running service: a line for each event, and what becomes of lines that nobody reads.

use std::{
    io::{BufRead as _, Write as _},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use http::Method;
use serde_json::Value;

use crate::support::{
    database::{Database, on_each_store},
    http::Client,
    process::{Logged, Process},
    provider::event,
    sender::Sender,
    until::until,
};

on_each_store! {
    each_event_has_a_line_where_that_is_asked_for,
    a_sample_of_events_has_lines_and_the_rest_is_counted,
    a_test_ping_is_no_warning_and_has_an_outcome_of_its_own,
    a_log_that_nobody_reads_holds_up_nobody,
    a_reader_who_comes_back_is_told_how_many_lines_were_dropped,
    the_start_says_what_it_works_with,
    a_store_that_is_not_migrated_is_an_error_that_names_the_command,
}

/// The lines of a log that say this.
fn saying(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == message).collect()
}

async fn each_event_has_a_line_where_that_is_asked_for(database: Database) {
    for (setting, lines) in [("off", 0), ("all", 50)] {
        let logged = Logged::serve(&database, vec![("LOG_EVENTS", setting.to_owned())]);
        let mut sender = Sender::connect(logged.process.address).await;
        for n in 0..50 {
            assert_eq!(sender.post(&event(&format!("{setting}-{n}"), "delivered")).await.status, 200);
        }
        let log = logged.terminate().await;
        let events = saying(&log, "event");
        assert_eq!(events.len(), lines, "{log}");
        for (n, line) in events.iter().enumerate() {
            let field = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}"));
            assert_eq!(field("id"), format!("{setting}-{n}"));
            let fields = ["level", "status", "carrier", "phone", "outcome"].map(field);
            assert_eq!(fields, ["INFO", "delivered", "viettel", "+8498***4567", "new"]);
        }
        assert!(!log.contains("Some(") && !log.contains("84981234567"), "{log}");
        assert!(saying(&log, "committed").iter().all(|line| line.get("left_out").is_none()));
    }
}

async fn a_sample_of_events_has_lines_and_the_rest_is_counted(database: Database) {
    let (logged, events) = (Logged::serve(&database, Vec::new()), 500);
    let mut sender = Sender::connect(logged.process.address).await;
    for n in 0..events {
        assert_eq!(sender.post(&event(&n.to_string(), "delivered")).await.status, 200);
    }
    let log = logged.terminate().await;
    let (lines, summaries) = (saying(&log, "event").len(), saying(&log, "committed"));
    let left_out: u64 = summaries.iter().filter_map(|line| line["left_out"].as_u64()).sum();
    assert_eq!(lines as u64 + left_out, events, "{log}");
    // The first summary is written with the first commit.
    assert!(
        (1..=20 * (summaries.len() + 1)).contains(&lines),
        "{lines} lines, {} summaries",
        summaries.len()
    );
}

async fn a_test_ping_is_no_warning_and_has_an_outcome_of_its_own(database: Database) {
    let ping = event("test", "delivered");
    let logged = Logged::serve(&database, Vec::new());
    let mut sender = Sender::connect(logged.process.address).await;
    assert_eq!(sender.post(&ping).await.short(), (200, "ok"));
    assert_eq!(sender.post(b"{}").await.short(), (200, "ok"));
    let metrics = Client::new(logged.process.address).get("/metrics").await;
    for (outcome, count) in [("test_ping", 1), ("quarantined", 1), ("repeated", 0)] {
        let line = format!("nexo_events_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.text().contains(&line), "{line}{}", metrics.text());
    }
    let log = logged.terminate().await;
    let [line] = &saying(&log, "test ping: kept in quarantine, not a delivery")[..] else { panic!("{log}") };
    assert_eq!((&line["level"], line["digest"].as_str().map(str::len)), (&"INFO".into(), Some(64)));
    let [warning] = &saying(&log, "quarantined: verified, but not understood")[..] else { panic!("{log}") };
    let fields = ["level", "reason", "detail"].map(|name| warning[name].as_str().unwrap());
    assert_eq!(fields, ["WARN", "missing_field", "`id` is missing"]);
    let kept = database.number("SELECT COUNT(*) FROM quarantine WHERE reason = 'test_ping'").await;
    assert_eq!(kept, 1);
}

/// Everything is logged: far more than a pipe and the queue before it hold.
fn loud() -> Vec<(&'static str, String)> {
    vec![("RUST_LOG", "debug".to_owned()), ("LOG_EVENTS", "all".to_owned())]
}

/// Sends events and unsigned calls until lines were dropped; all of them are answered. How many lines were dropped.
async fn shout(process: &Process) -> u64 {
    let mut sender = Sender::connect(process.address).await;
    let forged = format!("sha256={}", "0".repeat(64));
    let dropped = async || {
        let metrics = Client::new(process.address).get("/metrics").await;
        let line = metrics.text().lines().find_map(|line| line.strip_prefix("nexo_log_lines_dropped_total "));
        line.unwrap_or_else(|| panic!("{}", metrics.text())).parse::<u64>().unwrap()
    };
    for n in 0..100 {
        for m in 0..100 {
            let body = event(&format!("{n}-{m}"), "delivered");
            assert_eq!(sender.post(&body).await.short(), (200, "ok"));
            let unsigned = sender.send(Method::POST, &[("x-nexo-signature", &forged)], &body).await.unwrap();
            assert_eq!(unsigned.status, 401);
        }
        let dropped = dropped().await;
        if dropped > 100 {
            return dropped;
        }
    }
    panic!("no line was dropped");
}

async fn a_log_that_nobody_reads_holds_up_nobody(database: Database) {
    let (mut process, _log) = Process::serve_unread(&database.environment(), loud());
    shout(&process).await;
    // Neither does it keep the process from ending.
    process.tell_to_stop();
    assert_eq!(process.until_ended().await.code(), Some(0));
}

async fn a_reader_who_comes_back_is_told_how_many_lines_were_dropped(database: Database) {
    let (mut process, log) = Process::serve_unread(&database.environment(), loud());
    let dropped = shout(&process).await;
    let lines = Arc::<Mutex<Vec<Value>>>::default();
    let read = Arc::clone(&lines);
    let reading = std::thread::spawn(move || {
        for line in log.lines() {
            read.lock().unwrap().push(serde_json::from_str(&line.unwrap()).unwrap());
        }
    });
    let find =
        |is_it: &dyn Fn(&Value) -> bool| lines.lock().unwrap().iter().find(|line| is_it(line)).cloned();
    const MESSAGE: &str = "log lines were dropped: standard output was not read fast enough";
    let is_report = |line: &Value| line["message"] == MESSAGE && line["in_all"].as_u64() >= Some(dropped);
    until(async || find(&is_report).is_some()).await;
    let mut sender = Sender::connect(process.address).await;
    assert_eq!(sender.post(&event("heard", "delivered")).await.status, 200);
    until(async || find(&|line| line["message"] == "event" && line["id"] == "heard").is_some()).await;
    process.tell_to_stop();
    assert_eq!(process.until_ended().await.code(), Some(0));
    reading.join().unwrap();
    assert_eq!(lines.lock().unwrap().last().unwrap()["message"], "stopped");
}

#[tokio::test]
async fn a_reader_of_errors_who_does_not_read_does_not_keep_the_process_from_ending() {
    let (_unread, mut writer) = std::io::pipe().unwrap();
    let errors = Stdio::from(writer.try_clone().unwrap());
    // For ever, once the pipe is full; the thread ends with the test's process.
    std::thread::spawn(move || writer.write_all(&[b'x'; 1 << 20]));
    let mut child = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
        .env_clear()
        .env("PORT", "http")
        .stderr(errors)
        .spawn()
        .unwrap();
    until(async || child.try_wait().unwrap().is_some()).await;
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

async fn the_start_says_what_it_works_with(database: Database) {
    let key = vec![
        ("NEXO_KEY", "hunter2hunter2".to_owned()),
        ("NEXO_BASE_URL", "http://127.0.0.1:9/v1".to_owned()),
    ];
    for (environment, provider) in [(Vec::new(), "none"), (key, "http://127.0.0.1:9/v1")] {
        let logged = Logged::serve(&database, environment);
        let log = logged.terminate().await;
        let [line] = &saying(&log, "starting")[..] else { panic!("{log}") };
        let fields = ["level", "version", "schema", "provider"].map(|name| line[name].as_str().unwrap());
        assert_eq!(fields, ["INFO", env!("CARGO_PKG_VERSION"), "0003_claims", provider]);
        let store = line["store"].as_str().unwrap();
        let place = database.environment()[0].1.clone();
        if database.is_postgres() {
            let url = url::Url::parse(&place).unwrap();
            let (host, port) = (url.host_str().unwrap(), url.port().unwrap_or(5432));
            assert_eq!(store, format!("postgres {host}:{port}{}", url.path()));
        } else {
            assert_eq!(store, format!("sqlite {place}"));
        }
        assert!(!log.contains("hunter2"), "{log}");
    }
}

async fn a_store_that_is_not_migrated_is_an_error_that_names_the_command(database: Database) {
    let empty = match database.is_postgres() {
        true => Database::empty_on_postgres().await,
        false => Database::empty_on_sqlite(),
    };
    let logged = Logged::serve(&empty, vec![("STORE_MIGRATE", "false".to_owned())]);
    // It answers once it has looked at the store.
    assert_eq!(Client::new(logged.process.address).get("/readyz").await.status, 503);
    let log = logged.terminate().await;
    let lines = saying(&log, "not ready: webhooks are answered 503 until this is mended");
    let [line] = &lines[..] else { panic!("{log}") };
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("0001_custody") && error.contains("`nexo-receiver migrate`"), "{error}");
}
