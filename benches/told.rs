//! How soon who waits is told, the whole way: an OTP is sent through one replica, its webhook comes to another, and it is
//! waited for at both.
//!
//!     cargo bench --bench told -- [SENDS]
//!
//! Starts a sandbox and, with `DATABASE_URL` on that Postgres, two receivers; else one on a store of its own. Prints the
//! time from the webhook's 200, as the sandbox saw it, to the answer of `?wait=60`, at each.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command that prints, and stops at what goes wrong"
)]

use std::{
    collections::HashMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nexo_receiver::{
    clock::Timestamp,
    flood::{target::Target, wire::Connection},
    sandbox,
    secret::Secret,
};
use tokio::{task::JoinSet, time::sleep};
use url::Url;

const SECRET: &str = "whsec_of_a_benchmark";
const TOKEN: &str = "token_of_a_benchmark";
const KEY: &str = "sk_live_of_a_benchmark";
/// Callers at one time.
const LANES: usize = 4;

/// A receiver, for as long as this lives.
struct Receiver {
    process: Child,
    target: Target,
}

impl Receiver {
    async fn start(port: u16, data: &tempfile::TempDir, provider: &str) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
            .envs([("NEXO_WEBHOOK_SECRET", SECRET), ("API_TOKEN", TOKEN), ("NEXO_KEY", KEY)])
            .envs([("NEXO_BASE_URL", provider), ("PORT", &port.to_string())])
            .env("DATA_DIR", data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let target = Target::parse(&format!("http://127.0.0.1:{port}/webhooks/nexo")).unwrap();
        let addresses = target.addresses().await.unwrap();
        while Connection::open(&addresses).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        Self { process, target }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One call over a connection of its own; the answer's body.
async fn call(target: Target, head: String, body: &str) -> Vec<u8> {
    let mut connection = Connection::open(&target.addresses().await.unwrap()).await.unwrap();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = connection.exchange(request.as_bytes()).await.unwrap();
    assert!([200, 202].contains(&answer.status), "{}", String::from_utf8_lossy(answer.body));
    answer.body.to_vec()
}

/// Sends one OTP at the first receiver and waits for it at all; its id, and when each answered.
async fn send_and_wait(receivers: Vec<Target>) -> (String, Vec<Timestamp>) {
    let body = r#"{"phone":"+84981234567","code":"482917"}"#;
    let sent = call(receivers[0].clone(), "POST /api/v1/send-otp".into(), body).await;
    let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
    let id = sent["id"].as_str().unwrap().to_owned();
    let mut waits = Vec::new();
    for receiver in receivers {
        let head = format!("GET /api/v1/deliveries/{id}?wait=60");
        waits.push(tokio::spawn(async move {
            let answer = call(receiver, head, "").await;
            let at = Timestamp::now();
            assert!(String::from_utf8(answer).unwrap().contains(r#""status":"delivered""#));
            at
        }));
    }
    let mut answered = Vec::new();
    for wait in waits {
        answered.push(wait.await.unwrap());
    }
    (id, answered)
}

fn print(where_at: &str, mut latencies: Vec<Duration>) {
    latencies.sort();
    let percentile = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100) - 1];
    println!(
        "{where_at}: {} waits, from the webhook's 200: median {:.2?}, p99 {:.2?}, longest {:.2?}",
        latencies.len(),
        percentile(50),
        percentile(99),
        percentile(100)
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let sends: usize = arguments.next().map_or(400, |number| number.parse().unwrap());
    let replicas = if std::env::var_os("DATABASE_URL").is_some() { 2 } else { 1 };
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports: Vec<_> = (0..replicas).map(|_| free()).collect();
    let secret = |text: &str| Secret::new(text.into());
    let mut options = sandbox::Options::new(secret(KEY), secret(SECRET));
    options.wallet.balance = nexo_receiver::money::Money::parse("100000").unwrap();
    options.delay = Duration::from_millis(50)..=Duration::from_millis(150);
    let last = ports.last().unwrap();
    options.webhook_url = Some(Url::parse(&format!("http://127.0.0.1:{last}/webhooks/nexo")).unwrap());
    let provider = sandbox::start(options).await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut receivers = Vec::new();
    for port in ports {
        receivers.push(Receiver::start(port, &data, &provider.base_url()).await);
    }
    let targets: Vec<_> = receivers.iter().map(|receiver| receiver.target.clone()).collect();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let targets = targets.clone();
        lanes.spawn(async move {
            let mut answered = Vec::new();
            for _ in (lane..sends).step_by(LANES) {
                answered.push(send_and_wait(targets.clone()).await);
            }
            answered
        });
    }
    let answered: Vec<_> = lanes.join_all().await.into_iter().flatten().collect();
    let taken = |attempt: sandbox::Attempt| {
        let took = i64::try_from(attempt.took.as_micros()).unwrap();
        (attempt.id, Timestamp::from_micros(attempt.sent_at.micros() + took).unwrap())
    };
    let taken: HashMap<_, _> = provider.attempts().into_iter().map(taken).collect();
    for n in 0..replicas {
        let latencies = answered.iter().map(|(id, at)| at[n].since(taken[id])).collect();
        let where_at = match (n + 1 == replicas, replicas) {
            (_, 1) => "at the one receiver",
            (true, _) => "at the one that the webhook came to",
            (false, _) => "at the other one, which has sent it",
        };
        print(where_at, latencies);
    }
}
