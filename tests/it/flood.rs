//! `flood` through the real binary: against the service, and against servers that fail in ways of their own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    database::{Database, on_each_store},
    http::API_TOKEN,
    provider::WEBHOOK_SECRET,
    receiver::Receiver,
};

/// What the command said, and its exit code.
struct Flooded {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Flooded {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}{}", self.stdout, self.stderr))
    }
}

async fn flood(address: SocketAddr, secret: &str, args: &[&str]) -> Flooded {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"));
    command.args(["flood", "--json", "--url"]).arg(format!("http://{address}/webhooks/nexo")).args(args);
    command.env_clear().env("NEXO_WEBHOOK_SECRET", secret).env("API_TOKEN", API_TOKEN).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Flooded { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

on_each_store!(all_are_answered_and_all_are_there, repeats_make_no_more_deliveries, a_wrong_secret_is_told);

async fn all_are_answered_and_all_are_there(database: Database) {
    let receiver = Receiver::start(&database).await;
    let ran = flood(receiver.address(), WEBHOOK_SECRET, &["--count", "2000", "--verify"]).await;
    let json = ran.json();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{json}");
    assert_eq!((&json["sent"], &json["answers"]), (&2000.into(), &serde_json::json!({"200": 2000})));
    assert_eq!((&json["verified"]["asked"], &json["verified"]["found"]), (&2000.into(), &2000.into()));
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, 2000);
    assert_eq!(database.number("SELECT count(*) FROM quarantine").await, 0);
    receiver.stop().await;
}

async fn repeats_make_no_more_deliveries(database: Database) {
    let receiver = Receiver::start(&database).await;
    let args =
        ["--rate", "2000", "--duration", "500ms", "--duplicates", "20", "--connections", "8", "--verify"];
    let ran = flood(receiver.address(), WEBHOOK_SECRET, &args).await;
    let json = ran.json();
    assert_eq!((ran.code, &json["sent"], &json["rate"]), (Some(0), &1000.into(), &2000.into()), "{json}");
    let repeats = json["repeats"].as_i64().unwrap();
    assert!((150..=200).contains(&repeats), "{json}");
    let deliveries = database.number("SELECT count(*) FROM deliveries").await;
    assert_eq!((deliveries, json["verified"]["found"].as_i64()), (1000 - repeats, Some(1000 - repeats)));
    receiver.stop().await;
}

async fn a_wrong_secret_is_told(database: Database) {
    let receiver = Receiver::start(&database).await;
    let ran = flood(receiver.address(), "another", &["--count", "100"]).await;
    assert_eq!((ran.code, &ran.json()["answers"]), (Some(1), &serde_json::json!({"401": 100})));
    assert_eq!(database.number("SELECT count(*) FROM deliveries").await, 0);
    receiver.stop().await;
}

/// A server that answers each request as `answer` says, which is given how many came before and the first line.
fn server(answer: impl Fn(usize, &str) -> Option<&'static str> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
            thread::spawn(move || {
                serve(stream.unwrap(), |line| answer(asked.fetch_add(1, Ordering::Relaxed), line))
            });
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: impl Fn(&str) -> Option<&'static str>) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut first, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if first.is_empty() {
                first = line;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let Some(answer) = answer(&first) else { return };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_stall_shows_in_every_request_that_was_due_in_it() {
    const STALL: Duration = Duration::from_millis(300);
    let gate = Mutex::new(());
    let address = server(move |number, _| {
        let held = gate.lock().unwrap();
        if number == 500 {
            // What is under test is that others wait as long.
            thread::sleep(STALL);
        }
        drop(held);
        Some(OK)
    });
    let args = ["--rate", "1000", "--count", "2000", "--connections", "4"];
    let ran = flood(address, WEBHOOK_SECRET, &args).await;
    let json = ran.json();
    assert_eq!((ran.code, &json["answers"]["200"]), (Some(0), &2000.into()), "{json}");
    let latency = |name: &str| json["latency_ms"][name].as_f64().unwrap();
    // 300 of 2,000 were due while it stalled, and waited for what was left of it: 15 percent of all, between nothing
    // and 300 ms. Of the requests themselves only 4 were under way.
    assert!(latency("max") >= 299.0, "{json}");
    assert!(latency("p99") >= 270.0, "{json}");
    assert!(latency("p90") >= 80.0, "{json}");
}

#[tokio::test]
async fn what_is_answered_200_and_lost_is_found_out() {
    let address = server(|_, line| Some(if line.starts_with("POST") { OK } else { NOT_FOUND }));
    let ran = flood(address, WEBHOOK_SECRET, &["--count", "50", "--verify", "--connections", "3"]).await;
    let json = ran.json();
    assert_eq!((ran.code, &json["answers"]["200"]), (Some(1), &50.into()), "{json}");
    assert_eq!((&json["verified"]["found"], &json["verified"]["missing"]), (&0.into(), &50.into()), "{json}");
    assert_eq!(json["verified"]["missing_ids"].as_array().unwrap().len(), 10);
    // Nor does one help who says yes to everything.
    let ran = flood(server(|_, _| Some(OK)), WEBHOOK_SECRET, &["--count", "5", "--verify"]).await;
    assert_eq!((ran.code, &ran.json()["verified"]["missing"]), (Some(1), &5.into()));
}

#[tokio::test]
async fn a_connection_that_breaks_is_counted_and_made_again() {
    let address = server(|number, _| if number % 10 == 9 { None } else { Some(OK) });
    let ran = flood(address, WEBHOOK_SECRET, &["--count", "100", "--connections", "2"]).await;
    let json = ran.json();
    assert_eq!(
        (ran.code, &json["sent"], &json["answers"]["200"]),
        (Some(1), &100.into(), &90.into()),
        "{json}"
    );
    assert_eq!(
        (&json["connection_errors"], &json["first_error"]),
        (&10.into(), &"closed before an answer".into())
    );
}

#[tokio::test]
async fn nothing_is_sent_where_it_should_not_be() {
    for (url, said) in [
        ("https://127.0.0.1/webhooks/nexo", "only http:// is spoken here"),
        ("http://192.0.2.1/webhooks/nexo", "--yes-this-is-mine"),
        ("http://127.0.0.1:1/webhooks/nexo", "can't be flooded"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"));
        let output = command
            .args(["flood", "--url", url])
            .env_clear()
            .env("NEXO_WEBHOOK_SECRET", "s")
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(said), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}
