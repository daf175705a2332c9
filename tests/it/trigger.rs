//! `trigger` through the real binary: each kind, against the service.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    database::{Database, on_each_store},
    http::API_TOKEN,
    provider::{WEBHOOK_SECRET, sign},
    receiver::Receiver,
};

/// Runs it; exit code and standard output.
async fn trigger(address: SocketAddr, secret: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"));
    command.arg("trigger").args(args).arg("--url").arg(format!("http://{address}/webhooks/nexo"));
    command.env_clear().env("NEXO_WEBHOOK_SECRET", secret).env("API_TOKEN", API_TOKEN).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// What stands behind a word, at each line's start.
fn told<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| Some(line.strip_prefix(word)?.trim_start())).collect()
}

on_each_store!(each_kind_is_answered_as_it_should_be);

async fn each_kind_is_answered_as_it_should_be(database: Database) {
    let receiver = Receiver::start(&database).await;
    for (kind, answers, delivery) in [
        ("delivered", &["200 ok"][..], "delivered"),
        ("failed", &["200 ok"], "failed"),
        ("ping", &["200 ok"], "none of this id"),
        ("duplicate", &["200 ok", "200 ok"], "delivered"),
        ("late", &["200 ok", "200 ok"], "delivered"),
        ("forged", &["401 bad signature"], "none of this id"),
    ] {
        let (code, text) = trigger(receiver.address(), WEBHOOK_SECRET, &[kind, "--verify"]).await;
        assert_eq!((code, told(&text, "answer")), (Some(0), answers.to_vec()), "{kind}: {text}");
        assert_eq!(told(&text, "delivery"), [delivery], "{kind}: {text}");
        let (bodies, signatures) = (told(&text, "body"), told(&text, "signature"));
        let rightly_signed =
            bodies.iter().zip(&signatures).all(|(body, signature)| sign(body.as_bytes()) == *signature);
        assert_eq!(rightly_signed, kind != "forged", "{text}");
        assert_eq!(bodies.len(), answers.len());
        assert!(kind != "duplicate" || bodies[0] == bodies[1], "{text}");
    }
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, 4);
    assert_eq!(database.number("SELECT count(*) FROM quarantine").await, 1);
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_what_it_is_told_to() {
    let database = Database::on_sqlite().await;
    let receiver = Receiver::start(&database).await;
    let phone = ["--phone", "+84912345678", "--carrier", "vinaphone"];
    let args = [&["delivered", "--id", "a/b c", "--cost", "1.50"], &phone[..]].concat();
    assert_eq!(trigger(receiver.address(), WEBHOOK_SECRET, &args).await.0, Some(0));
    let args = [&["failed", "--id", "d", "--error-code", "busy"], &phone[..]].concat();
    assert_eq!(trigger(receiver.address(), WEBHOOK_SECRET, &args).await.0, Some(0));
    let answer = receiver.client().get("/api/v1/deliveries/a%2Fb%20c").await;
    let cost = answer.json();
    assert_eq!((&cost["phone"], &cost["carrier"]), (&"+84912345678".into(), &"vinaphone".into()));
    assert!(answer.text().contains("\"cost\":1.5,"), "{}", answer.text());
    let failed: Value = receiver.client().get("/api/v1/deliveries/d").await.json();
    assert_eq!((&failed["status"], &failed["error_code"]), (&"failed".into(), &"busy".into()));
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_right_is_exit_1() {
    let database = Database::on_sqlite().await;
    let receiver = Receiver::start(&database).await;
    let (code, text) = trigger(receiver.address(), "another", &["delivered"]).await;
    assert_eq!((code, told(&text, "answer")), (Some(1), vec!["401 bad signature, but 200 ok is right"]));
    assert!(text.ends_with("NOT as a correct receiver answers\n"), "{text}");
    let address = receiver.address();
    receiver.stop().await;
    let (code, text) = trigger(address, WEBHOOK_SECRET, &["delivered"]).await;
    assert!(code == Some(1) && text.contains("can't be sent to"), "{text}");
}
