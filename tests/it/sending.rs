//! OTPs sent through the service: the provider is the sandbox, or a server that behaves as no provider should.

use std::{
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode};
use nexo_receiver::{
    clock::Timestamp,
    money::Money,
    phone::Phone,
    provider,
    sandbox::{self, Outcome, Wallet},
    secret::Secret,
    store::sends::{Claim, Fingerprint, SendKey, SendOutcome, SendRecord},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use url::Url;

use crate::support::{
    database::{Database, on_each_store},
    guide::send_otp,
    http::{API_TOKEN, Answer, Client},
    process::{Process, Setup},
    provider::{WEBHOOK_SECRET, event},
    receiver::Receiver,
    until::until,
    wire::PATIENCE,
};

on_each_store! {
    an_accepted_send_is_the_providers_answer_and_on_record,
    the_guides_send_otp_goes_through_and_its_webhook_ends_the_wait,
    a_webhook_before_the_answer_is_as_any_other,
    the_same_key_calls_nobody_twice,
    a_refusal_is_told_counted_and_frees_its_key,
    a_wrong_base_url_or_key_frees_the_key,
    a_retry_after_of_the_providers_is_passed_on_up_to_an_hour,
    a_new_provider_key_leaves_a_request_the_same,
    a_call_that_could_not_be_put_on_record_frees_the_key,
    what_was_begun_and_not_called_is_made_by_the_next,
    a_provider_that_was_not_reached_leaves_the_key_free,
    a_send_of_unknown_outcome_is_never_made_again,
    a_send_that_was_cut_off_may_have_been_made,
    who_waits_for_anothers_send_is_told_its_end,
    a_wrong_request_is_named_and_calls_nobody,
}

const KEY: &str = "sk_live_of_a_test";
const PHONE: &str = "+84981234567";
const BODY: &str = r#"{"phone":"+84981234567","code":"482917"}"#;

/// A service that calls this provider.
async fn calling(database: &Database, base_url: &str, timeout: Duration) -> Receiver {
    let base_url = Url::parse(base_url).unwrap();
    let key = Secret::new(KEY.into());
    let provider = provider::Options { base_url, key, connect_timeout: timeout, timeout, proxy: None };
    Receiver::start_with(database, |options| options.provider = Some(provider)).await
}

/// A sandbox on a port of its own, which posts webhooks to a service that is still to be started.
async fn sandbox(adjust: impl FnOnce(&mut sandbox::Options)) -> sandbox::Running {
    let secret = |text: &str| Secret::new(text.to_owned());
    let mut options = sandbox::Options::new(secret(KEY), secret(WEBHOOK_SECRET));
    adjust(&mut options);
    sandbox::start(options).await.unwrap()
}

async fn send(client: &Client, body: &str) -> Answer {
    client.send_with(Method::POST, "/api/v1/send-otp", body).await
}

/// How many sends the sandbox has charged.
fn charged(sandbox: &sandbox::Running) -> Money {
    sandbox.wallet().total()
}

async fn an_accepted_send_is_the_providers_answer_and_on_record(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    sandbox.set_outcome(PHONE, Outcome::Silent);
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let client = receiver.client();
    let answer = send(&client, BODY).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let told = answer.json();
    let id = told["id"].as_str().unwrap();
    assert_eq!(
        told,
        json!({"ok": true, "id": id, "carrier": "viettel", "status": "sent", "cost": 0.022, "balance": 100.088})
    );
    let delivery = client.get(&format!("/api/v1/deliveries/{id}")).await.json();
    for (field, value) in [
        ("phone", json!(PHONE)),
        ("carrier", json!("viettel")),
        ("status", json!("sent")),
        ("cost", json!(0.022)),
        ("created_at", Value::Null),
        ("source", json!("send")),
    ] {
        assert_eq!(delivery[field], value, "{field}");
    }
    let events = client.get(&format!("/api/v1/deliveries/{id}/events")).await.json();
    assert_eq!(events["events"][0]["body"], answer.text());
    // Two without a key are two.
    assert_ne!(send(&client, BODY).await.json()["id"], id);
    receiver.until_metric("nexo_sends_total{outcome=\"accepted\"} ", |sends| sends == 2.0).await;
}

/// A sandbox whose webhooks go to a service that calls it.
async fn both(database: &Database) -> (sandbox::Running, Receiver) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sandbox = sandbox(|options| {
        options.webhook_url = Some(Url::parse(&format!("http://127.0.0.1:{port}/webhooks/nexo")).unwrap());
        options.delay = Duration::from_millis(50)..=Duration::from_millis(100);
    })
    .await;
    let key = Secret::new(KEY.into());
    let base_url = Url::parse(&sandbox.base_url()).unwrap();
    let provider =
        provider::Options { base_url, key, connect_timeout: PATIENCE, timeout: PATIENCE, proxy: None };
    let receiver = Receiver::start_with(database, |options| {
        options.provider = Some(provider);
        options.port = port;
    })
    .await;
    (sandbox, receiver)
}

async fn the_guides_send_otp_goes_through_and_its_webhook_ends_the_wait(database: Database) {
    let (sandbox, receiver) = both(&database).await;
    let base_url = format!("http://{}/api/v1", receiver.address());
    let output = send_otp(&base_url, API_TOKEN, PHONE, "482917").await;
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let id = said.split(['=', ' ']).nth(2).unwrap();
    assert_eq!(said, format!("Dispatched id={id} via viettel\nCharged $0.022, wallet balance $100.088\n"));
    let waits = format!("/api/v1/deliveries/{id}?wait=60");
    assert_eq!(receiver.client().get(&waits).await.json()["status"], "delivered");
    assert_eq!(sandbox.attempts().len(), 1);
    // A refusal reaches the guide's code as the provider's own would.
    sandbox.set_outcome(PHONE, Outcome::Refused(sandbox::Refusal::InsufficientBalance));
    let output = send_otp(&base_url, API_TOKEN, PHONE, "482917").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("insufficient_balance"), "{said}");
}

async fn a_webhook_before_the_answer_is_as_any_other(database: Database) {
    let (answer, asked) = answering(
        r#"{"ok":true,"id":"early","carrier":"viettel","status":"sent","cost":0.022,"balance":1}"#,
        true,
    )
    .await;
    let receiver = calling(&database, &answer, PATIENCE).await;
    let client = receiver.client();
    let sent = tokio::spawn(async move { send(&client, BODY).await });
    let answer = asked.await.unwrap();
    assert_eq!(receiver.sender().await.post(&event("early", "delivered")).await.short(), (200, "ok"));
    answer.send(()).unwrap();
    assert_eq!(sent.await.unwrap().status, StatusCode::ACCEPTED);
    let shown = receiver.client().get("/api/v1/deliveries/early").await.json();
    assert_eq!((&shown["status"], &shown["source"]), (&json!("delivered"), &json!("webhook")));
    let events = receiver.client().get("/api/v1/deliveries/early/events").await.json();
    assert_eq!(events["events"].as_array().unwrap().len(), 2);
}

/// A provider that answers one call, a 202 with this body or none at all, once it is told to; which it says when the
/// call has come. Whoever calls again finds nobody.
async fn answering(
    body: &'static str,
    answers: bool,
) -> (String, tokio::sync::oneshot::Receiver<tokio::sync::oneshot::Sender<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
    let (came, has_come) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        let (go_on, told) = tokio::sync::oneshot::channel();
        let _ = came.send(go_on);
        let _ = told.await;
        if answers {
            let head = format!("HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).await.unwrap();
        }
    });
    (url, has_come)
}

async fn the_same_key_calls_nobody_twice(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let client = receiver.client().keyed("\"8e03978e\"");
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        callers.spawn(async move { send(&client, BODY).await });
    }
    let answers = callers.join_all().await;
    let again = answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count();
    assert_eq!(again, 7);
    // The form of a request does not count, nor the quotes around its key.
    let spaced = r#" { "code" : "482917", "phone" : "+84981234567" } "#;
    let last = send(&receiver.client().keyed("8e03978e"), spaced).await;
    for answer in answers.iter().chain([&last]) {
        assert_eq!((answer.status, answer.text()), (StatusCode::ACCEPTED, answers[0].text()));
    }
    assert_eq!(charged(&sandbox).to_string(), "100.088");
    for other in [BODY.replace("482917", "482918"), BODY.replace("4567", "4568")] {
        let (status, error, _) = send(&client, &other).await.refusal();
        assert_eq!((status, error.as_str()), (422, "idempotency_key_reused"));
    }
    assert_eq!(charged(&sandbox).to_string(), "100.088");
}

async fn a_refusal_is_told_counted_and_frees_its_key(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    receiver.until_metric("nexo_wallet_balance_usd ", f64::is_nan).await;
    for (refusal, status, error) in [
        (sandbox::Refusal::InsufficientBalance, 402, "insufficient_balance"),
        (sandbox::Refusal::NoRoute, 422, "no_route"),
        (sandbox::Refusal::IpNotAllowed, 403, "ip_not_allowed"),
        (sandbox::Refusal::InvalidPhone, 400, "invalid_phone"),
    ] {
        sandbox.set_outcome(PHONE, Outcome::Refused(refusal));
        let client = receiver.client().keyed(error);
        let first = send(&client, BODY).await;
        assert_eq!((first.status.as_u16(), first.refusal().1.as_str()), (status, error));
        assert_eq!(first.json()["deposit_url"].is_string(), error == "insufficient_balance");
        let counted = format!("nexo_sends_refused_total{{error=\"{error}\"}} ");
        receiver.until_metric(&counted, |count| count == 1.0).await;
        // Paid in, allowed, or a carrier found: the same key sends.
        sandbox.set_outcome(PHONE, Outcome::Silent);
        let sent = send(&client, BODY).await;
        assert_eq!(sent.status, StatusCode::ACCEPTED, "{error}: {}", sent.text());
        assert_eq!(send(&client, BODY).await.text(), sent.text());
    }
    assert_eq!(charged(&sandbox).to_string(), "100.022");
    receiver.until_metric("nexo_wallet_balance_usd ", |balance| balance == 100.022).await;
    receiver.until_metric("nexo_sends_refused_total{error=\"other\"} ", |count| count == 0.0).await;
}

async fn a_wrong_base_url_or_key_frees_the_key(database: Database) {
    let sandbox = sandbox(|options| options.key = Secret::new("another key".into())).await;
    let right = self::sandbox(|_| {}).await;
    let not_quite = right.base_url().replace("/v1", "/v2");
    let html = html_404().await;
    for (base_url, error) in [
        (not_quite.as_str(), "provider_has_no_such_call"),
        (html.as_str(), "provider_has_no_such_call"),
        (sandbox.base_url().as_str(), "provider_key_refused"),
    ] {
        let receiver = calling(&database, base_url, PATIENCE).await;
        let (status, told, _) = send(&receiver.client().keyed("k"), BODY).await.refusal();
        assert_eq!((status, told.as_str()), (502, error), "{base_url}");
    }
    let receiver = calling(&database, &right.base_url(), PATIENCE).await;
    assert_eq!(send(&receiver.client().keyed("k"), BODY).await.status, StatusCode::ACCEPTED);
    assert_eq!(charged(&right).to_string(), "100.088");
}

async fn a_retry_after_of_the_providers_is_passed_on_up_to_an_hour(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let client = receiver.client().keyed("k");
    for (seconds, passed_on) in [(7, "7"), (u64::MAX, "3600")] {
        sandbox.set_outage(Some(sandbox::Outage::TooManyCalls(Duration::from_secs(seconds))));
        let answer = send(&client, BODY).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, passed_on));
    }
    sandbox.set_outage(None);
    assert_eq!(send(&client, BODY).await.status, StatusCode::ACCEPTED);
}

/// A server that has something else than the provider's API.
async fn html_404() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            let page = "<html>This page could not be found.</html>";
            let head = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n", page.len());
            stream.write_all((head + page).as_bytes()).await.unwrap();
        }
    });
    url
}

async fn a_new_provider_key_leaves_a_request_the_same(database: Database) {
    let before = sandbox(|_| {}).await;
    let first = {
        let receiver = calling(&database, &before.base_url(), PATIENCE).await;
        send(&receiver.client().keyed("k"), BODY).await
    };
    assert_eq!(first.status, StatusCode::ACCEPTED);
    const ROTATED: &str = "sk_live_after_rotation";
    let after = sandbox(|options| options.key = Secret::new(ROTATED.into())).await;
    let provider = provider::Options {
        base_url: Url::parse(&after.base_url()).unwrap(),
        key: Secret::new(ROTATED.into()),
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
        proxy: None,
    };
    let receiver = Receiver::start_with(&database, |options| options.provider = Some(provider)).await;
    let client = receiver.client().keyed("k");
    let again = send(&client, BODY).await;
    assert_eq!((again.status, again.text()), (first.status, first.text()));
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(send(&client, &BODY.replace("482917", "482918")).await.refusal().1, "idempotency_key_reused");
    assert_eq!(charged(&after).to_string(), "100.11", "it is not paid twice");
    // Nothing is kept by which a send without a key could be told.
    assert_eq!(send(&receiver.client(), BODY).await.status, StatusCode::ACCEPTED);
    let bare = "SELECT count(*) FROM sends WHERE length(fingerprint) = 0";
    assert_eq!(database.number(bare).await, 1);
}

async fn a_call_that_could_not_be_put_on_record_frees_the_key(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let client = receiver.client().keyed("k");
    let (full, room) = if database.is_postgres() {
        (
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER full_disk BEFORE UPDATE ON sends FOR EACH ROW WHEN (NEW.called)
             EXECUTE FUNCTION full_disk()",
            "DROP TRIGGER full_disk ON sends",
        )
    } else {
        (
            "CREATE TRIGGER full_disk BEFORE UPDATE ON sends WHEN NEW.called
             BEGIN SELECT RAISE(ABORT, 'full'); END",
            "DROP TRIGGER full_disk",
        )
    };
    database.execute(full).await;
    let (status, error, _) = send(&client, BODY).await.refusal();
    let told = if database.is_postgres() { (503, "store_unavailable") } else { (500, "internal") };
    assert_eq!((status, error.as_str()), told);
    assert_eq!(charged(&sandbox).to_string(), "100.11", "nobody was called");
    until(async || database.number("SELECT count(*) FROM sends").await == 0).await;
    database.execute(room).await;
    assert_eq!(send(&client, BODY).await.status, StatusCode::ACCEPTED);
    assert_eq!(charged(&sandbox).to_string(), "100.088");
}

/// As after a crash, or an answer of the store's that was lost, between the two.
async fn what_was_begun_and_not_called_is_made_by_the_next(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let store = database.open().await;
    for (key, began_at) in [("now", Timestamp::now()), ("long-ago", Timestamp::now().hours_before(48))] {
        store.begin_send(&on_record(key, began_at)).await.unwrap();
        let answer = send(&receiver.client().keyed(key), BODY).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{key}: {}", answer.text());
        assert_eq!(answer.header("idempotent-replayed"), "");
    }
    assert_eq!(charged(&sandbox).to_string(), "100.066");
}

async fn a_provider_that_was_not_reached_leaves_the_key_free(database: Database) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let receiver = calling(&database, &format!("http://127.0.0.1:{port}/api/v1"), PATIENCE).await;
    let client = receiver.client().keyed("k");
    let (status, error, _) = send(&client, BODY).await.refusal();
    assert_eq!((status, error.as_str()), (503, "provider_not_reached"));
    let sandbox = sandbox(|options| options.port = port).await;
    assert_eq!(send(&client, BODY).await.status, StatusCode::ACCEPTED);
    assert_eq!(charged(&sandbox).to_string(), "100.088");
}

async fn a_send_of_unknown_outcome_is_never_made_again(database: Database) {
    let (url, asked) = answering("", false).await;
    let receiver = calling(&database, &url, PATIENCE).await;
    let client = receiver.client().keyed("k");
    let (first, ()) = tokio::join!(send(&client, BODY), async { drop(asked.await.unwrap()) });
    assert_eq!((first.refusal().0, first.refusal().1.as_str()), (504, "may_have_been_sent"));
    // The provider is gone: a call would be answered otherwise.
    for _ in 0..3 {
        assert_eq!(send(&client, BODY).await.text(), first.text());
    }
    let kept = database.number("SELECT count(*) FROM sends WHERE outcome = 'unclear'").await;
    assert_eq!(kept, 1);
}

/// Another replica's, of the same request.
fn on_record(key: &str, began_at: Timestamp) -> SendRecord {
    let phone = Phone::parse(PHONE).unwrap();
    let fingerprint = Fingerprint::of(&phone, &provider::Code::parse("482917").unwrap());
    SendRecord { key: SendKey::parse(key).unwrap(), claim: Claim::fresh(), fingerprint, phone, began_at }
}

async fn a_send_that_was_cut_off_may_have_been_made(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let before = charged(&sandbox);
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let began_at = Timestamp::now().hours_before(1);
    let (store, cut_off) = (database.open().await, on_record("k", began_at));
    store.begin_send(&cut_off).await.unwrap();
    assert!(store.call_send(&cut_off.key, cut_off.claim).await.unwrap());
    let (status, error, _) = send(&receiver.client().keyed("k"), BODY).await.refusal();
    assert_eq!((status, error.as_str()), (504, "may_have_been_sent"));
    assert_eq!(charged(&sandbox), before);
}

async fn who_waits_for_anothers_send_is_told_its_end(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let elsewhere = database.open().await;
    for (key, outcome) in [
        (
            "kept",
            Some(SendOutcome::Accepted(
                r#"{"ok":true,"id":"a","carrier":"x","status":"sent","cost":1,"balance":2}"#.into(),
            )),
        ),
        ("not-made", None),
    ] {
        let theirs = on_record(key, Timestamp::now());
        elsewhere.begin_send(&theirs).await.unwrap();
        assert!(elsewhere.call_send(&theirs.key, theirs.claim).await.unwrap());
        let client = receiver.client().keyed(key);
        let waits = tokio::spawn(async move { send(&client, BODY).await });
        receiver.until_metric("nexo_in_flight ", |calls| calls >= 2.0).await;
        elsewhere.end_send(&theirs.key, theirs.claim, outcome.as_ref()).await.unwrap();
        let answer = waits.await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        // Who waited for one that was not made makes it.
        assert_eq!(answer.json()["id"] == "a", outcome.is_some());
    }
}

async fn a_wrong_request_is_named_and_calls_nobody(database: Database) {
    let sandbox = sandbox(|_| {}).await;
    let before = charged(&sandbox);
    let receiver = calling(&database, &sandbox.base_url(), PATIENCE).await;
    let client = receiver.client();
    for (body, error) in [
        ("", "invalid_body"),
        ("{}", "invalid_body"),
        (r#"{"phone":"+84981234567","code":482917}"#, "invalid_body"),
        (r#"{"phone":"0981234567","code":"482917"}"#, "invalid_phone"),
        (r#"{"phone":"+84981234567","code":"48291x"}"#, "invalid_code"),
    ] {
        let (status, found, message) = send(&client, body).await.refusal();
        assert_eq!((status, found.as_str()), (400, error), "{body}: {message}");
        assert!(!message.contains("482917") && !message.contains("981234567"), "{message}");
    }
    let (status, error, _) = send(&client.keyed("two words"), BODY).await.refusal();
    assert_eq!((status, error.as_str()), (400, "invalid_idempotency_key"));
    let (status, error, _) = client.send_with(Method::POST, "/api/v1/send-otp?x=1", BODY).await.refusal();
    assert_eq!((status, error.as_str()), (400, "invalid_parameter"));
    assert_eq!(charged(&sandbox), before);
    let without = Receiver::start(&database).await;
    assert_eq!(send(&without.client(), BODY).await.refusal().1, "no_provider_key");
    assert_eq!(send(&client.with(&[]), BODY).await.status, StatusCode::UNAUTHORIZED);
}

/// What a file holds, as text.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// A service of its own process with an embedded store, whose log goes into a file.
async fn logging(folder: &Path, sandbox: &sandbox::Running, level: &str) -> (Child, Client) {
    let (log, data) = (folder.join("log"), folder.join("data"));
    let service = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
        .env_clear()
        .envs([("NEXO_WEBHOOK_SECRET", WEBHOOK_SECRET), ("API_TOKEN", API_TOKEN), ("PORT", "0")])
        .envs([("NEXO_KEY", KEY), ("NEXO_BASE_URL", &sandbox.base_url()), ("RUST_LOG", level)])
        .envs([("DATA_DIR", data.to_str().unwrap()), ("RECONCILE_AFTER_SECONDS", "1")])
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(std::fs::File::create(folder.join("errors")).unwrap())
        .spawn()
        .unwrap();
    let mut address = None;
    until(async || {
        address = read(&log).split_once("http://").and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
        address.is_some()
    })
    .await;
    (service, Client::new(address.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_send_is_in_the_log_with_its_code_and_the_phone_masked() {
    let sandbox = sandbox(|options| options.key = Secret::new("another key".into())).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut service, client) = logging(folder.path(), &sandbox, "info").await;
    for _ in 0..3 {
        assert_eq!(send(&client, BODY).await.refusal().1, "provider_key_refused");
    }
    let log = folder.path().join("log");
    until(async || read(&log).contains("the provider refuses a send")).await;
    service.kill().unwrap();
    service.wait().unwrap();
    let log = read(&log);
    let line = log.lines().find(|line| line.contains("the provider refuses a send")).unwrap();
    for part in ["WARN", "\"error\":\"unauthorized\"", "+8498***4567", "look at NEXO_KEY"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains(PHONE) && !log.contains(KEY) && !log.contains("482917"), "{log}");
}

/// At the most verbose level, and with all that a send leaves behind: the record, the delivery, the poll.
#[tokio::test(flavor = "multi_thread")]
async fn the_code_and_the_key_are_in_no_log_and_in_no_file() {
    const CODE: &str = "90817263";
    let sandbox = sandbox(|_| {}).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let data = folder.path().join("data");
    let (mut service, client) = logging(folder.path(), &sandbox, "trace").await;
    let body = BODY.replace("482917", CODE);
    for _ in 0..2 {
        assert_eq!(send(&client.keyed("k"), &body).await.status, StatusCode::ACCEPTED);
    }
    let polled = r#"nexo_polls_total{outcome="settled"} 1"#;
    until(async || client.get("/metrics").await.text().contains(polled)).await;
    service.kill().unwrap();
    service.wait().unwrap();
    let mut files = vec![log, folder.path().join("errors")];
    files.extend(std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()));
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        let text = read(&file);
        let traces = [CODE, KEY, &hex::encode(CODE), &hex::encode(KEY)].map(|trace| text.contains(trace));
        assert_eq!(traces, [false; 4], "{}", file.display());
        let is_store = file.starts_with(&data);
        assert!(is_store || !text.contains(PHONE), "{}: the store alone has phones", file.display());
    }
}

/// Four callers for each key, two at either of two processes, one of which is killed in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_are_a_thousand_calls_though_a_replica_is_killed() {
    const SENDS: usize = 1_000;
    let database = Database::on_postgres().await;
    let balance = Money::parse("1000").unwrap();
    let wallet = Wallet { balance, bonus_credit: Money::ZERO, free_credit: Money::ZERO };
    let sandbox =
        sandbox(|options| (options.wallet, options.price) = (wallet, Money::parse("1").unwrap())).await;
    let settings = [
        ("NEXO_KEY", KEY.to_owned()),
        ("NEXO_BASE_URL", sandbox.base_url()),
        // After the kill, so long and ten seconds more until one under way is given up.
        ("PROVIDER_CALL_SECONDS", "1".to_owned()),
    ];
    let start = |port| {
        let setup = Setup { environment: settings.to_vec(), port, ..Setup::default() };
        Process::serve_with(&database.environment(), setup)
    };
    let (stays, killed) = (start(0), start(0));
    let port = killed.address.port();
    let clients = Arc::new([Client::new(stays.address), Client::new(killed.address)]);
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        for lane in 0..8 {
            let clients = Arc::clone(&clients);
            callers.spawn(async move {
                let mut answered = Vec::new();
                for n in (lane..SENDS).step_by(8) {
                    let client = clients[caller % 2].keyed(&format!("key-{n}"));
                    // Who is cut off asks again until there is an answer.
                    let answer = loop {
                        match client.try_send(Method::POST, "/api/v1/send-otp", BODY).await {
                            Ok(answer) => break answer,
                            Err(_) => tokio::task::yield_now().await,
                        }
                    };
                    answered.push((n, answer.status.as_u16(), answer.text().to_owned()));
                }
                answered
            });
        }
    }
    until(async || database.number("SELECT count(*) FROM sends").await > 300).await;
    killed.kill();
    let again = start(port);
    assert_eq!(again.address.port(), port);

    let mut answers = std::collections::BTreeMap::<usize, Vec<(u16, String)>>::new();
    for (n, status, text) in callers.join_all().await.into_iter().flatten() {
        answers.entry(n).or_default().push((status, text));
    }
    let unclear =
        database.number("SELECT count(*) FROM sends WHERE outcome IS DISTINCT FROM 'accepted'").await;
    let calls = 1_000 - charged(&sandbox).to_string().parse::<i64>().unwrap();
    assert_eq!(answers.len(), SENDS);
    for (n, given) in &answers {
        assert_eq!(given.len(), 4, "key-{n}");
        assert!(given.iter().all(|answer| answer == &given[0]), "key-{n} is answered in one way: {given:?}");
        assert!([202, 504].contains(&given[0].0), "{given:?}");
    }
    // Those that the killed one had under way may have been sent: no one knows, and none was sent twice.
    let may_have_been = answers.values().filter(|given| given[0].0 == 504).count();
    assert_eq!(i64::try_from(may_have_been).unwrap(), unclear);
    assert!(calls <= SENDS as i64 && calls >= SENDS as i64 - unclear, "{calls} calls, {unclear} unclear");
    assert!(unclear <= 16, "only those under way");
}
