//! The log of a running service: a line for each event, and what becomes of lines that nobody reads.

use serde_json::Value;

use crate::support::{
    database::{Database, on_each_store},
    process::Logged,
    provider::event,
    sender::Sender,
};

on_each_store! {
    each_event_has_a_line_where_that_is_asked_for,
    a_sample_of_events_has_lines_and_the_rest_is_counted,
    a_test_ping_is_no_warning_and_has_an_outcome_of_its_own,
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
    let metrics = crate::support::http::Client::new(logged.process.address).get("/metrics").await;
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
