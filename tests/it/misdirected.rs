//! Webhooks that are sent to a path where nothing takes them: told where to, counted, logged once a minute.

use crate::support::{
    database::{Database, on_each_store},
    process::Logged,
    provider::{event, request},
    receiver::Receiver,
    wire::Wire,
};

on_each_store! {
    a_webhook_near_its_path_is_told_where_to_go_and_counted,
}

/// A signed webhook to another path.
fn to(path: &str) -> Vec<u8> {
    let request = String::from_utf8(request(&event("a", "delivered"))).unwrap();
    request.replacen("/webhooks/nexo", path, 1).into_bytes()
}

async fn a_webhook_near_its_path_is_told_where_to_go_and_counted(database: Database) {
    let receiver = Receiver::start(&database).await;
    let wrong =
        ["/webhooks/nexo/", "//webhooks/nexo", "/WEBHOOKS/nexo", "/webhook/nexo", "/webhooks/nexo%20", "/"];
    for path in wrong {
        let answer = Wire::open(receiver.address()).await.send(to(path)).await.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.contains("POST /webhooks/nexo") && !answer.contains("/api/v1"), "{path}: {answer}");
    }
    let unsigned = "GET /webhooks/nexo/ HTTP/1.1\r\nhost: test\r\n\r\n";
    let answer = Wire::open(receiver.address()).await.send(unsigned).await.answer().await;
    assert!(answer.contains("POST /webhooks/nexo"), "{answer}");
    let other = Wire::open(receiver.address())
        .await
        .send("GET /else HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .answer()
        .await;
    assert!(other.starts_with("HTTP/1.1 404 ") && other.contains("/api/v1"), "{other}");
    let count = format!("nexo_events_total{{outcome=\"wrong_path\"}} {}", wrong.len() + 1);
    let metrics = receiver.client().get("/metrics").await;
    assert!(metrics.text().contains(&count), "{}", metrics.text());
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_to_a_wrong_path_are_one_line_of_log_a_minute() {
    let database = Database::on_sqlite().await;
    let logged = Logged::serve(&database, Vec::new());
    for _ in 0..5 {
        let mut wire = Wire::open(logged.process.address).await;
        assert!(wire.send(to("/webhooks/nexo/")).await.until_closed().await.starts_with("HTTP/1.1 404 "));
    }
    let log = logged.terminate().await;
    let lines: Vec<_> = log.lines().filter(|line| line.contains("wrong path")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("WARN") && lines[0].contains("/webhooks/nexo"), "{log}");
}
