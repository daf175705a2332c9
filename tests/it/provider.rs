//! The provider, called: against the sandbox, and against servers that behave as no provider should.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nexo_receiver::{
    delivery::DeliveryId,
    money::Money,
    phone::Phone,
    provider::{CallError, Code, Options, Provider, Refusal},
    sandbox::{self, Running, Wallet},
    secret::Secret,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::oneshot,
    task::spawn_blocking,
};
use url::Url;

use crate::support::wire::PATIENCE;

const KEY: &str = "sk_live_of_a_test";
const CODE: &str = "482917";

fn options(base_url: &str) -> Options {
    Options {
        base_url: Url::parse(base_url).unwrap(),
        key: Secret::new(KEY.into()),
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
        proxy: None,
    }
}

fn provider(base_url: &str) -> Provider {
    Provider::new(&options(base_url)).unwrap()
}

async fn sandbox(balance: &str) -> (Running, Provider) {
    let secret = |text: &str| Secret::new(text.to_owned());
    let balance = Money::parse(balance).unwrap();
    let wallet = Wallet { balance, bonus_credit: Money::ZERO, free_credit: Money::ZERO };
    let options = sandbox::Options { wallet, ..sandbox::Options::new(secret(KEY), secret("whsec")) };
    let running = sandbox::start(options).await.unwrap();
    let provider = provider(running.base_url().as_str());
    (running, provider)
}

fn phone(number: &str) -> Phone {
    Phone::parse(number).unwrap()
}

async fn send(provider: &Provider, number: &str) -> Result<String, CallError> {
    let sent = provider.send(&phone(number), &Code::parse(CODE).unwrap()).await;
    sent.map(|sent| sent.answer.id.as_str().to_owned())
}

/// A server that answers one call with these bytes and closes; what it was asked.
async fn answering(answer: String) -> (String, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
    let (asked, was_asked) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        // A body, where there is one, ends the request with a brace.
        while !request.ends_with(if request.starts_with(b"GET") { b"\r\n\r\n" } else { b"}" as &[u8] }) {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the call broke off");
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Only this call is ever answered: one made again would find nobody.
        drop((stream, listener));
        let _ = asked.send(String::from_utf8(request).unwrap());
    });
    (url, was_asked)
}

fn http(status: &str, more: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_otp_is_sent_and_asked_for_and_paid() {
    let (running, provider) = sandbox("1").await;
    let before = provider.balance().await.unwrap().answer;
    let sent = provider.send(&phone("+84981234567"), &Code::parse(CODE).unwrap()).await.unwrap();
    assert_eq!((sent.answer.carrier.as_str(), sent.answer.cost.to_string().as_str()), ("viettel", "0.022"));
    let after = provider.balance().await.unwrap().answer;
    assert_eq!(after.balance, sent.answer.balance);
    assert!(after.balance < before.balance);
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(body["id"], sent.answer.id.as_str());
    let delivery: Value = serde_json::from_slice(&provider.delivery(&sent.answer.id).await.unwrap()).unwrap();
    assert_eq!((&delivery["id"], &delivery["phone"]), (&body["id"], &Value::from("+84981234567")));
    running.stop().await;
}

#[tokio::test]
async fn each_documented_refusal_is_told_apart() {
    let (running, provider) = sandbox("0").await;
    let refused = |refusal| Err(CallError::Refused(refusal));
    assert_eq!(send(&provider, "+12025550123").await, refused(Refusal::InvalidPhone));
    assert_eq!(send(&provider, "+84900000010").await, refused(Refusal::NoRoute));
    let unknown = provider.delivery(&DeliveryId::parse("a/../b".into()).unwrap()).await;
    assert_eq!(unknown, Err(CallError::Refused(Refusal::NotFound)));
    let deposit_url = format!("http://{}/sandbox/deposit", running.addr());
    assert_eq!(
        send(&provider, "+84981234567").await,
        refused(Refusal::InsufficientBalance { deposit_url: Some(deposit_url) })
    );
    let stranger = Provider::new(&Options {
        key: Secret::new("sk_other".into()),
        ..options(running.base_url().as_str())
    });
    assert_eq!(send(&stranger.unwrap(), "+84981234567").await, refused(Refusal::Unauthorized));
    running.stop().await;
}

#[tokio::test]
async fn too_many_calls_says_how_long_to_wait() {
    let body = r#"{"ok":false,"error":"slow_down"}"#;
    let (url, _) = answering(http("429 Too Many Requests", "retry-after: 17\r\n", body)).await;
    let retry_after = Some(Duration::from_secs(17));
    assert_eq!(
        send(&provider(&url), "+84981234567").await,
        Err(CallError::Refused(Refusal::TooManyCalls { retry_after }))
    );
}

#[tokio::test]
async fn a_call_that_reached_nobody_was_not_made() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = taken.local_addr().unwrap();
    drop(taken);
    for url in [format!("http://{free}/api/v1"), "http://nowhere.invalid/".into(), format!("https://{free}/")]
    {
        let sent = send(&provider(&url), "+84981234567").await;
        assert!(matches!(sent, Err(CallError::NotReached(_))), "{url}: {sent:?}");
    }
}

/// As behind a base URL that is not quite right.
#[tokio::test]
async fn a_send_to_a_path_or_a_method_that_is_not_there_was_not_made() {
    for answer in [
        http("404 Not Found", "", "no such page"),
        http("405 Method Not Allowed", "", ""),
        http("404 Not Found", "", r#"{"ok":false,"error":"not_found"}"#),
    ] {
        let (url, _) = answering(answer.clone()).await;
        let sent = send(&provider(&url), "+84981234567").await;
        assert_eq!(sent, Err(CallError::Refused(Refusal::NoSuchCall)), "{answer:.60}");
    }
}

#[tokio::test]
async fn a_send_without_an_answer_that_says_what_was_done_may_have_been_made() {
    for answer in [
        String::new(),
        "HTTP/1.1 202 Acc".into(),
        http("202 Accepted", "", "{\"ok\":true}"),
        http("202 Accepted", "", "<html>"),
        http("500 Internal Server Error", "", r#"{"ok":false,"error":"internal"}"#),
        http("502 Bad Gateway", "", "<html>"),
        http("403 Forbidden", "", "<html>"),
        "HTTP/1.1 202 Accepted\r\ncontent-length: 99\r\n\r\n{".into(),
        http("202 Accepted", "", &" ".repeat(70_000)),
    ] {
        let (url, _) = answering(answer.clone()).await;
        let sent = send(&provider(&url), "+84981234567").await;
        assert!(matches!(sent, Err(CallError::Unclear(_))), "{answer:.60}: {sent:?}");
    }
}

#[tokio::test]
async fn a_send_that_is_not_answered_ends_in_time_and_may_have_been_made() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let impatient = Options { timeout: Duration::from_millis(100), ..options(&url) };
    let begun = Instant::now();
    let sent = send(&Provider::new(&impatient).unwrap(), "+84981234567").await;
    assert_eq!(sent, Err(CallError::Unclear("no answer in time".into())));
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_stays_here() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("location: http://{}/\r\n", elsewhere.local_addr().unwrap());
    let (url, asked) = answering(http("307 Temporary Redirect", &location, "")).await;
    let sent = send(&provider(&url), "+84981234567").await;
    assert!(matches!(sent, Err(CallError::Unclear(_))), "{sent:?}");
    assert!(asked.await.unwrap().contains(&format!("Bearer {KEY}")));
    let nobody = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
    assert!(nobody.is_err(), "somebody came");
}

#[tokio::test]
async fn an_id_from_anywhere_stays_one_segment_of_the_path() {
    let (url, asked) = answering(http("404 Not Found", "", r#"{"ok":false,"error":"not_found"}"#)).await;
    let id = DeliveryId::parse("../balance?x=1#y".into()).unwrap();
    assert_eq!(provider(&url).delivery(&id).await, Err(CallError::Refused(Refusal::NotFound)));
    let request = asked.await.unwrap();
    assert!(request.starts_with("GET /api/v1/deliveries/..%2Fbalance%3Fx=1%23y HTTP/1.1\r\n"), "{request}");
}

#[test]
fn neither_key_nor_code_can_be_printed() {
    let options = options("https://nexoroute.dev/api/v1");
    let shown = format!("{options:?} {:?} {:?}", provider("http://localhost/"), Code::parse(CODE).unwrap());
    assert!(!shown.contains(KEY) && !shown.contains(CODE), "{shown}");
}

/// Calls the binary with the sandbox in the provider's place; exit code, standard output, standard error.
async fn command(base_url: &str, args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"));
    command.env_clear().env("NEXO_BASE_URL", base_url).env("NEXO_KEY", KEY).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(![KEY, CODE].iter().any(|secret| stdout.contains(secret) || stderr.contains(secret)), "{stderr}");
    (output.status.code(), stdout, stderr)
}

#[tokio::test]
async fn the_send_command_sends_once_it_is_said_that_this_is_meant() {
    let (running, provider) = sandbox("1").await;
    let url = running.base_url();
    let before = provider.balance().await.unwrap().answer.balance;
    let (code, stdout, stderr) = command(&url, &["send", "+84981234567", "482917"], "").await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("+8498***4567") && stderr.contains("--yes"), "{stderr}");
    let (code, _, stderr) = command(&url, &["send", "+84981234567", "48291", "--yes", "--now"], "").await;
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(provider.balance().await.unwrap().answer.balance, before, "nothing was sent");

    let (code, stdout, stderr) = command(&url, &["send", "+84981234567", "-", "--yes"], "482917\n").await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(
        lines[1..],
        [vec!["carrier", "viettel"], vec!["cost", "0.022", "USD"], vec!["balance", "0.978", "USD"]]
    );
    let (code, stdout, _) = command(&url, &["balance"], "").await;
    assert_eq!((code, stdout.lines().next()), (Some(0), Some("balance        0.978 USD")));
    running.stop().await;
}

#[tokio::test]
async fn the_send_command_says_what_to_do_when_it_is_refused() {
    let (running, _) = sandbox("0").await;
    let url = running.base_url();
    let (code, stdout, _) = command(&url, &["send", "+84981234567", "482917", "--yes"], "").await;
    assert_eq!(code, Some(1));
    assert!(stdout.contains(&format!("pay in at http://{}/sandbox/deposit", running.addr())), "{stdout}");
    assert!(stdout.ends_with("Nothing was sent.\n"), "{stdout}");
    let (code, stdout, stderr) = command(&url, &["send", "+84981234567", "12", "--yes"], "").await;
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(1), "", "nexo-receiver: a code has 4 to 8 digits\n")
    );
    let (dead, _) = answering(String::new()).await;
    let (code, stdout, _) = command(&dead, &["send", "+84981234567", "482917", "--yes"], "").await;
    assert_eq!(code, Some(1));
    assert!(stdout.contains("may have been sent and charged"), "{stdout}");
    running.stop().await;
}

#[test]
fn without_a_key_it_says_which_setting_is_missing() {
    for args in [&["send", "+84981234567", "482917", "--yes"][..], &["balance"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"));
        let output = command.env_clear().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("nexo-receiver: NEXO_KEY: missing"));
    }
}
