//! The sandbox in the provider's place: the guide's own `sendOtp` sends through it, and what it posts arrives.

use std::{collections::BTreeMap, time::Duration};

use http::{Method, Request, header::AUTHORIZATION};
use nexo_receiver::{
    call,
    money::Money,
    sandbox::{self, Attempt, Fault, NUMBERS, Options, Outcome, Retry, Running, Wallet},
    secret::Secret,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use url::Url;

use crate::support::{
    database::{Database, on_each_store},
    guide::{Guide, send_otp},
    http::Client,
    provider::WEBHOOK_SECRET,
    receiver::Receiver,
    wire::PATIENCE,
};

on_each_store! {
    what_the_guides_send_otp_sends_is_answered_delivered,
    each_test_number_ends_as_it_says,
    each_fault_leaves_one_right_delivery_or_none,
    nothing_is_lost_and_nothing_is_there_twice,
}

const KEY: &str = "sk_live_sandbox";
const CODE: &str = "482917";
/// A number of no special meaning.
const ANYBODY: &str = "+84981234567";

fn options(webhook_url: Option<String>) -> Options {
    let webhook_url = webhook_url.map(|url| Url::parse(&url).unwrap());
    let secret = |text: &str| Secret::new(text.to_owned());
    Options {
        webhook_url,
        slow: Duration::from_millis(200),
        seed: Some(7),
        ..Options::new(secret(KEY), secret(WEBHOOK_SECRET))
    }
}

fn webhook_url(receiver: &Receiver) -> Option<String> {
    Some(format!("http://{}/webhooks/nexo", receiver.address()))
}

/// Calls the sandbox with its key.
async fn call(sandbox: &Running, method: Method, path: &str, body: &Value) -> (u16, Value) {
    call_as(&format!("Bearer {KEY}"), sandbox, method, path, body.to_string()).await
}

async fn call_as(who: &str, to: &Running, method: Method, path: &str, body: String) -> (u16, Value) {
    let url = Url::parse(&format!("http://{}{path}", to.addr())).unwrap();
    let request = Request::builder().method(method).header(AUTHORIZATION, who);
    let reply = call::call(&url, request, body.into()).await.unwrap();
    (reply.status.as_u16(), serde_json::from_str(&reply.text).unwrap())
}

async fn send(sandbox: &Running, phone: &str) -> (u16, Value) {
    call(sandbox, Method::POST, "/api/v1/send-otp", &json!({"phone": phone, "code": CODE})).await
}

/// Sends with the guide's code; the id, or the error it throws.
async fn send_as_the_guide(sandbox: &Running, phone: &str) -> Result<String, String> {
    let output = send_otp(&sandbox.base_url(), KEY, phone, CODE).await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    if output.status.success() {
        let line = text(&output.stdout);
        let id = line.strip_prefix("Dispatched id=").and_then(|rest| rest.split_once(" via "));
        Ok(id.unwrap_or_else(|| panic!("{line}")).0.to_owned())
    } else {
        let error = text(&output.stderr);
        let word = error.split_once("Error: NEXO send failed: ").unwrap_or_else(|| panic!("{error}")).1;
        Err(word.split_whitespace().next().unwrap().to_owned())
    }
}

/// What the receiver knows of an OTP: its status and error code, and each event's status and how often it came.
async fn known(client: &Client, id: &str) -> Option<(Value, Value, Vec<(String, u64)>)> {
    let answer = client.get(&format!("/api/v1/deliveries/{id}")).await;
    if answer.status == 404 {
        return None;
    }
    let delivery = answer.json();
    let events = client.get(&format!("/api/v1/deliveries/{id}/events")).await.json();
    let event =
        |event: &Value| (event["status"].as_str().unwrap().to_owned(), event["times"].as_u64().unwrap());
    let mut events: Vec<_> = events["events"].as_array().unwrap().iter().map(event).collect();
    events.sort();
    Some((delivery["status"].clone(), delivery["error_code"].clone(), events))
}

fn answers(attempts: &[Attempt], id: &str) -> Vec<u16> {
    attempts.iter().filter(|it| it.id == id).map(|it| it.answered().expect("an answer")).collect()
}

async fn what_the_guides_send_otp_sends_is_answered_delivered(database: Database) {
    let receiver = Receiver::start(&database).await;
    let sandbox = sandbox::start(options(webhook_url(&receiver))).await.unwrap();
    let output = send_otp(&sandbox.base_url(), KEY, ANYBODY, CODE).await;
    let said = String::from_utf8(output.stdout).unwrap();
    let id = said.split(['=', ' ']).nth(2).unwrap().to_owned();
    assert_eq!(
        said,
        format!("Dispatched id={id} via viettel\nCharged $0.022, wallet balance $100.088\n"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let attempts = sandbox.attempts_when(PATIENCE, |attempts| !attempts.is_empty()).await.unwrap();
    assert_eq!(attempts[0].answer, Ok((200, "ok".into())), "{attempts:?}");

    let path = format!("/api/v1/deliveries/{id}");
    let (status, theirs) = call(&sandbox, Method::GET, &path, &Value::Null).await;
    let ours = receiver.client().get(&path).await.json();
    assert_eq!((status, &theirs["status"]), (200, &json!("delivered")));
    for (field, value) in theirs.as_object().unwrap() {
        assert_eq!(ours[field], *value, "{field}");
    }
    let (_, seen) = call(&sandbox, Method::GET, &format!("/sandbox/attempts?id={id}"), &Value::Null).await;
    let seen = &seen["attempts"][0];
    assert_eq!((&seen["answer"], &seen["answer_text"], &seen["nth"]), (&json!(200), &json!("ok"), &json!(1)));
    let evidence = receiver.client().get(&format!("{path}/events")).await.json();
    let evidence = &evidence["events"][0];
    assert_eq!((&seen["body"], &seen["signature"]), (&evidence["body"], &evidence["signature"]));
    sandbox.stop().await;
    receiver.stop().await;
}

async fn each_test_number_ends_as_it_says(database: Database) {
    let receiver = Receiver::start(&database).await;
    let sandbox = sandbox::start(options(webhook_url(&receiver))).await.unwrap();
    let mut sent = Vec::new();
    for number in &NUMBERS {
        let answer = send_as_the_guide(&sandbox, number.phone).await;
        match &number.outcome {
            Outcome::Refused(refusal) => assert_eq!(answer, Err(refusal.code().into())),
            _ => sent.push((number, answer.unwrap())),
        }
    }
    sandbox.settled(PATIENCE).await.unwrap();
    let client = receiver.client();
    for (number, id) in sent {
        let known = known(&client, &id).await.map(|(status, code, _)| (status, code));
        let expected = match (&number.outcome, number.fault) {
            (_, Some(Fault::WrongSignature | Fault::StaleBody | Fault::Dropped)) | (Outcome::Silent, _) => {
                None
            }
            (Outcome::Failed(code), _) => Some((json!("failed"), json!(code))),
            _ => Some((json!("delivered"), Value::Null)),
        };
        assert_eq!(known, expected, "{number}");
        let status = call(&sandbox, Method::GET, &format!("/api/v1/deliveries/{id}"), &Value::Null).await.1;
        let final_status = expected.map_or(json!("delivered"), |(status, _)| status);
        let is_silent = number.outcome == Outcome::Silent;
        assert_eq!(status["status"], if is_silent { json!("sent") } else { final_status }, "{number}");
    }
    receiver.stop().await;
}

async fn each_fault_leaves_one_right_delivery_or_none(database: Database) {
    let receiver = Receiver::start(&database).await;
    let sandbox = sandbox::start(options(webhook_url(&receiver))).await.unwrap();
    let client = receiver.client();
    type Events = &'static [(&'static str, u64)];
    let expected: [(Option<Fault>, &[u16], Events); 9] = [
        (None, &[200], &[("delivered", 1)]),
        (Some(Fault::Twice), &[200, 200], &[("delivered", 2)]),
        (Some(Fault::Late), &[200], &[("delivered", 1)]),
        (Some(Fault::SentAfter), &[200, 200], &[("delivered", 1), ("sent", 1)]),
        (Some(Fault::OppositeAfter), &[200, 200], &[("delivered", 1), ("failed", 1)]),
        (Some(Fault::OppositeBefore), &[200, 200], &[("delivered", 1), ("failed", 1)]),
        (Some(Fault::WrongSignature), &[401], &[]),
        (Some(Fault::StaleBody), &[401], &[]),
        (Some(Fault::Dropped), &[], &[]),
    ];
    let mut kept = 0;
    for (fault, answered, events) in expected {
        sandbox.set_fault(fault);
        let id = send_as_the_guide(&sandbox, ANYBODY).await.unwrap();
        sandbox.settled(PATIENCE).await.unwrap();
        assert_eq!(answers(&sandbox.attempts(), &id), answered, "{fault:?}");
        let events: Vec<_> = events.iter().map(|(status, times)| ((*status).to_owned(), *times)).collect();
        let expected = (!events.is_empty()).then(|| (json!("delivered"), Value::Null, events));
        kept += usize::from(expected.is_some());
        assert_eq!(known(&client, &id).await, expected, "{fault:?}");
        let path = format!("/api/v1/deliveries/{id}");
        let (_, theirs) = call(&sandbox, Method::GET, &path, &Value::Null).await;
        assert_eq!(theirs["status"], "delivered", "{fault:?}");
    }
    let quarantine = client.get("/api/v1/quarantine").await.json();
    assert_eq!(quarantine["quarantine"].as_array().map(Vec::len), Some(0), "{quarantine}");
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, i64::try_from(kept).unwrap());
    receiver.stop().await;
}

async fn nothing_is_lost_and_nothing_is_there_twice(database: Database) {
    const SENT: usize = 300;
    let receiver = Receiver::start(&database).await;
    let faults = Fault::ALL.into_iter().map(|fault| (fault, 0.08)).collect();
    let mut options = options(webhook_url(&receiver));
    options = Options { faults, delivered_rate: 0.7, ..options };
    options.retry = Retry { attempts: 2, pause: Duration::from_millis(1) };
    let sandbox = sandbox::start(options).await.unwrap();
    for _ in 0..SENT {
        assert_eq!(send(&sandbox, ANYBODY).await.0, 202);
    }
    sandbox.settled(PATIENCE).await.unwrap();

    let mut taken = BTreeMap::<String, Vec<(String, u64)>>::new();
    for attempt in sandbox.attempts() {
        let is_forged = matches!(attempt.fault, Some(Fault::WrongSignature | Fault::StaleBody));
        assert_eq!(attempt.answered(), Some(if is_forged { 401 } else { 200 }), "{attempt:?}");
        if is_forged {
            continue;
        }
        let events = taken.entry(attempt.id).or_default();
        events.retain(|(status, _)| status != attempt.status);
        events.push((attempt.status.to_owned(), attempt.nth.into()));
        events.sort();
    }
    assert!((SENT / 2..SENT).contains(&taken.len()), "{}", taken.len());
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, i64::try_from(taken.len()).unwrap());
    let client = receiver.client();
    for (id, events) in taken {
        let (status, code, kept) = known(&client, &id).await.unwrap_or_else(|| panic!("{id} is lost"));
        let (_, theirs) =
            call(&sandbox, Method::GET, &format!("/api/v1/deliveries/{id}"), &Value::Null).await;
        assert_eq!((&theirs["status"], &theirs["error_code"]), (&status, &code), "{id}");
        assert_eq!(kept, events, "{id}");
    }
    receiver.stop().await;
}

#[tokio::test]
async fn the_guides_receiver_accepts_its_webhooks() {
    let guide = Guide::start(WEBHOOK_SECRET);
    let url = format!("http://{}/webhooks/nexo", guide.address);
    let sandbox = sandbox::start(options(Some(url))).await.unwrap();
    for number in ["+84900000000", "+84900000002", "+84900000030", "+84900000035", "+84900000036"] {
        send_as_the_guide(&sandbox, number).await.unwrap();
    }
    sandbox.settled(PATIENCE).await.unwrap();
    let mut answers: Vec<_> = sandbox.attempts().into_iter().map(|it| (it.fault, it.answer)).collect();
    answers.sort_by_key(|(fault, _)| fault.map(Fault::name));
    let ok = Ok((200, "ok".to_owned()));
    let bad = Ok((401, "bad signature".to_owned()));
    let expected = [
        (None, &ok),
        (None, &ok),
        (Some(Fault::StaleBody), &bad),
        (Some(Fault::Twice), &ok),
        (Some(Fault::Twice), &ok),
        (Some(Fault::WrongSignature), &bad),
    ];
    assert_eq!(answers, expected.map(|(fault, answer)| (fault, answer.clone())));
}

#[tokio::test]
async fn a_send_is_checked_and_charged_as_documented() {
    let mut options = options(None);
    let money = |text| Money::parse(text).unwrap();
    options.wallet =
        Wallet { balance: money("0.03"), bonus_credit: Money::ZERO, free_credit: money("0.022") };
    let sandbox = sandbox::start(options).await.unwrap();
    let path = "/api/v1/send-otp";
    for (body, error) in [
        (json!({"phone": "+84241234567", "code": CODE}), "invalid_phone"),
        (json!({"phone": "0981234567", "code": CODE}), "invalid_phone"),
        (json!({"phone": "+6581234567", "code": CODE}), "invalid_phone"),
        (json!({"phone": 84_981_234_567_u64, "code": CODE}), "invalid_phone"),
        (json!({"code": CODE}), "invalid_phone"),
        (json!({"phone": ANYBODY, "code": "123"}), "invalid_code"),
        (json!({"phone": ANYBODY, "code": "123456789"}), "invalid_code"),
        (json!({"phone": ANYBODY, "code": "12a4"}), "invalid_code"),
        (json!({"phone": ANYBODY, "code": 482_917}), "invalid_code"),
        (json!({"phone": ANYBODY}), "invalid_code"),
        (json!([ANYBODY, CODE]), "invalid_request"),
    ] {
        let answer = call(&sandbox, Method::POST, path, &body).await;
        assert_eq!(answer, (400, json!({"ok": false, "error": error})), "{body}");
    }
    for who in ["", "Bearer", "Bearer other", KEY] {
        for (method, path) in [
            (Method::POST, path),
            (Method::GET, "/api/v1/balance"),
            (Method::GET, "/api/v1/deliveries/x"),
            (Method::GET, "/sandbox/attempts"),
        ] {
            let (status, answer) = call_as(who, &sandbox, method, path, String::new()).await;
            assert_eq!((status, answer), (401, json!({"ok": false, "error": "unauthorized"})), "{who}");
        }
    }
    let (status, sent) = send(&sandbox, "+84941234567").await;
    let id = sent["id"].clone();
    let expected = json!({
        "ok": true, "id": id, "carrier": "vinaphone", "status": "sent", "cost": 0.022, "balance": 0.03
    });
    assert_eq!((status, sent), (202, expected));
    assert_eq!(send(&sandbox, ANYBODY).await.1["balance"], json!(0.008));
    let (status, refused) = send(&sandbox, ANYBODY).await;
    let deposit_url = format!("http://{}/sandbox/deposit", sandbox.addr());
    let expected = json!({"ok": false, "error": "insufficient_balance", "deposit_url": deposit_url});
    assert_eq!((status, refused), (402, expected));
    let buckets = json!({"balance": 0.008, "bonus_credit": 0, "free_credit": 0});
    let balance = call(&sandbox, Method::GET, "/api/v1/balance", &Value::Null).await;
    assert_eq!(balance, (200, json!({"ok": true, "balance": 0.008, "buckets": buckets})));
    let unknown = call(&sandbox, Method::GET, "/api/v1/deliveries/x", &Value::Null).await;
    assert_eq!(unknown, (404, json!({"ok": false, "error": "not_found"})));
    // A base URL that is not quite right is told what is.
    for path in ["/send-otp", "/api/send-otp", "/api/v1/api/v1/send-otp", "/"] {
        let (status, refused) = call(&sandbox, Method::POST, path, &json!({})).await;
        let message = format!("no such path: the base URL of the sandbox's API is {}", sandbox.base_url());
        assert_eq!((status, refused), (404, json!({"ok": false, "error": "not_found", "message": message})));
    }
}

#[tokio::test]
async fn options_at_their_extremes_are_kept_or_refused() {
    let endless = Duration::from_millis(u64::MAX);
    let sandbox = sandbox::start(Options {
        delay: endless..=Duration::MAX,
        slow: Duration::MAX,
        webhook_timeout: Duration::MAX,
        retry: Retry { attempts: u32::MAX, pause: Duration::MAX },
        ..options(Some("http://127.0.0.1:9/hook".into()))
    })
    .await
    .unwrap();
    for phone in [ANYBODY, "+84900000000", "+84900000021", "+84900000031"] {
        let (status, sent) = send(&sandbox, phone).await;
        let id = sent["id"].as_str().unwrap();
        assert_eq!(status, 202);
        let path = format!("/api/v1/deliveries/{id}");
        assert_eq!(call(&sandbox, Method::GET, &path, &Value::Null).await.1["status"], "sent");
    }
    for amount in ["-0.000001", "1000000000.000001", "0.0000001", "79228162514264337593543950335"] {
        let amount = Money::parse(amount).unwrap();
        let usual = options(None);
        let wallet = Wallet { bonus_credit: amount, ..usual.wallet };
        assert!(sandbox::start(Options { wallet, ..usual.clone() }).await.is_err(), "{amount}");
        assert!(sandbox::start(Options { price: amount, ..usual }).await.is_err(), "{amount}");
    }
}

/// Answers each connection's one request with the next of these statuses, and ends.
async fn answering(statuses: &'static [u16]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            assert!(request.starts_with(b"POST /hook?a=b HTTP/1.1\r\n"));
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_refused_webhook_is_sent_again_as_often_as_configured() {
    for (statuses, attempts, expected) in [
        (&[503, 401, 200][..], 5, &[Some(503), Some(401), Some(200)][..]),
        (&[500, 500], 2, &[Some(500), Some(500)]),
        (&[500], 1, &[Some(500)]),
        // Nobody listens any more.
        (&[302], 3, &[Some(302), None, None]),
    ] {
        let mut options = options(Some(answering(statuses).await));
        options.retry = Retry { attempts, pause: Duration::from_millis(1) };
        let sandbox = sandbox::start(options).await.unwrap();
        assert_eq!(send(&sandbox, ANYBODY).await.0, 202);
        sandbox.settled(PATIENCE).await.unwrap();
        let seen = sandbox.attempts();
        assert_eq!(seen.iter().map(Attempt::answered).collect::<Vec<_>>(), expected);
        assert!(seen.iter().zip(1..).all(|(attempt, nth)| attempt.nth == nth), "{seen:?}");
        assert!(seen.iter().all(|attempt| attempt.body == seen[0].body));
    }
}

#[tokio::test]
async fn it_is_scripted_from_rust() {
    let receiver_url = answering(&[200, 200]).await;
    let sandbox = sandbox::start(options(Some(receiver_url))).await.unwrap();
    sandbox.set_outcome(ANYBODY, Outcome::Failed("a_new_code".into()));
    sandbox.set_fault_for(ANYBODY, Some(Fault::Twice));
    let (_, sent) = send(&sandbox, ANYBODY).await;
    let attempts = sandbox.attempts_when(PATIENCE, |attempts| attempts.len() == 2).await.unwrap();
    let event: Value = serde_json::from_slice(&attempts[1].body).unwrap();
    assert_eq!((&event["id"], &event["error_code"]), (&sent["id"], &json!("a_new_code")));
    assert_eq!(sandbox.wallet().free_credit, Money::parse("0.088").unwrap());
    let patience = Duration::from_millis(1);
    assert!(sandbox.attempts_when(patience, |attempts| attempts.len() == 3).await.is_err());
    let address = sandbox.addr();
    sandbox.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn it_does_not_pretend_to_speak_https() {
    let error = sandbox::start(options(Some("https://127.0.0.1/webhooks/nexo".into()))).await.err().unwrap();
    assert!(error.to_string().contains("http URLs only"), "{error}");
}
