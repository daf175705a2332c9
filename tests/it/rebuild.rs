//! `rebuild --check`: every state is what its evidence says, and one that is not is found.

use std::process::Command;

use http::Method;
use nexo_receiver::cli::rebuild::check;

use crate::support::{
    database::{Database, on_each_store},
    provider::event,
    receiver::Receiver,
};

on_each_store! {
    each_state_is_what_its_evidence_says,
    a_state_that_its_evidence_does_not_say_is_found,
    it_is_right_while_events_arrive,
    each_unreadable_row_is_named_and_the_others_are_looked_at,
}

/// What the command prints, and its exit code.
pub fn rebuild(database: &Database) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
        .args(["rebuild", "--check"])
        .env_clear()
        .envs(database.environment())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Webhooks, some twice and some late, and words of callers.
async fn filled(database: &Database) -> Receiver {
    let receiver = Receiver::start(database).await;
    let mut sender = receiver.sender().await;
    for n in 0..40 {
        let id = format!("e{n}");
        for status in ["sent", "delivered", "failed", "delivered"].iter().skip(n % 4) {
            assert_eq!(sender.post(&event(&id, status)).await.short(), (200, "ok"));
        }
        let word = r#"{"carrier":"itel","created_at":"2026-05-26T09:00:00Z"}"#;
        let path = format!("/api/v1/deliveries/{}", if n % 3 == 0 { id } else { format!("w{n}") });
        receiver.client().send_with(Method::PUT, &path, word).await;
        receiver.client().send_with(Method::PUT, &path, r#"{"phone":"+84981234567"}"#).await;
    }
    receiver
}

async fn each_state_is_what_its_evidence_says(database: Database) {
    filled(&database).await.stop().await;
    let checked = check(&*database.open().await, None, None, || {}).await.unwrap();
    assert_eq!((checked.deliveries, checked.differing.len()), (66, 0), "{checked}");
    assert!(checked.events > 150);
    let (code, said) = rebuild(&database);
    assert_eq!((code, said), (Some(0), format!("{checked}\n")));
}

async fn a_state_that_its_evidence_does_not_say_is_found(database: Database) {
    filled(&database).await.stop().await;
    let cost = if database.is_postgres() { "cost = 1" } else { "cost = '1'" };
    database.execute(&format!("UPDATE deliveries SET {cost}, carrier = 'x' WHERE status <> 'sent'")).await;
    let changed = database.number("SELECT count(*) FROM deliveries WHERE status <> 'sent'").await;
    let checked = check(&*database.open().await, None, None, || {}).await.unwrap();
    assert!(changed > 0);
    assert_eq!(i64::try_from(checked.differing.len()).unwrap(), changed, "{checked}");
    assert!(checked.differing.values().all(|fields| *fields == ["carrier", "cost"]), "{checked}");
    let (code, said) = rebuild(&database);
    assert_eq!(code, Some(1));
    assert!(said.contains("differs in carrier, cost\n"), "{said}");
}

async fn it_is_right_while_events_arrive(database: Database) {
    let receiver = filled(&database).await;
    let address = receiver.address();
    let sending = tokio::spawn(async move {
        let mut sender = crate::support::sender::Sender::connect(address).await;
        for n in (0..40).cycle().take(2_000) {
            let status = if n % 2 == 0 { "delivered" } else { "failed" };
            sender.post(&event(&format!("w{n}"), status)).await;
        }
    });
    let store = database.open().await;
    while !sending.is_finished() {
        let checked = check(&*store, None, None, || {}).await.unwrap();
        assert!(checked.differing.is_empty(), "{checked}");
    }
    sending.await.unwrap();
    receiver.stop().await;
}

async fn each_unreadable_row_is_named_and_the_others_are_looked_at(database: Database) {
    filled(&database).await.stop().await;
    let (short, endless) =
        if database.is_postgres() { ("'\\x00'", "'infinity'") } else { ("x'00'", "9223372036854775807") };
    let id = |id: &str| match database.is_postgres() {
        true => format!("text_id = '{id}'"),
        false => format!("id = '{id}'"),
    };
    let sql = [
        format!("UPDATE deliveries SET phone = '0981234567' WHERE {}", id("e1")),
        format!("UPDATE deliveries SET standing = {short} WHERE {}", id("e2")),
        format!("UPDATE deliveries SET listed_at = {endless} WHERE {}", id("e3")),
        format!("UPDATE deliveries SET signature = {short} WHERE {}", id("e4")),
        format!(
            "UPDATE older_events SET received_at = {endless} WHERE body IN (SELECT body FROM older_events
            WHERE delivery_id = (SELECT id FROM deliveries WHERE {}) ORDER BY body LIMIT 1)",
            id("e5")
        ),
    ];
    for sql in sql {
        database.execute(&sql).await;
    }
    let (code, said) = rebuild(&database);
    assert_eq!(code, Some(1), "{said}");
    for (name, column) in [
        ("`e1`", "phone"),
        ("`e2`", "standing"),
        ("`e3`", "listed_at"),
        ("`e4 ", "signature"),
        ("`e5 ", "received_at"),
    ] {
        let named = |line: &str| line.contains(name) && line.contains(column);
        assert!(said.lines().any(named), "{name}: {said}");
    }
    assert!(said.contains("looked at 63 deliveries"), "{said}");
    assert!(said.contains("cannot be read") && !said.contains("0981234567"), "{said}");
}
