//! What it costs that thousands wait for a delivery while events come in.
//!
//!     cargo bench --bench waiters -- [WAITERS] [EVENTS_A_SECOND]
//!
//! Starts a receiver (with `DATABASE_URL` on that Postgres, else on a store of its own), lets 10,000 callers wait, each over
//! a connection of its own and for an OTP of its own, and sends the webhooks of all, 1,000 a second unless told. Prints the
//! memory by waiter, and the time from a webhook's 200 to its waiter's answer. Needs two open files for each waiter.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command that prints, and stops at what goes wrong"
)]

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nexo_receiver::{
    clock::Timestamp,
    flood::{
        sample::{Outcome, Sample, UNDER_WAY, Webhook, before},
        target::Target,
        wire::Connection,
    },
    money::Money,
    phone::Phone,
    secret::Secret,
    signature::SigningKey,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{interval, sleep},
};

const SECRET: &str = "whsec_of_a_benchmark";
const TOKEN: &str = "token_of_a_benchmark";
/// Connections that send the webhooks.
const SENDERS: usize = 16;

/// The receiver, for as long as this lives.
struct Receiver {
    process: Child,
    target: Target,
    _data: tempfile::TempDir,
}

impl Receiver {
    async fn start(connections: usize) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = tempfile::tempdir().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
            .env("NEXO_WEBHOOK_SECRET", SECRET)
            .env("API_TOKEN", TOKEN)
            .env("DATA_DIR", data.path())
            .env("PORT", port.to_string())
            .env("LIMITS_CONNECTIONS", connections.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let target = Target::parse(&format!("http://127.0.0.1:{port}/webhooks/nexo")).unwrap();
        let receiver = Self { process, target, _data: data };
        while receiver.connection().await.is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        receiver
    }

    async fn connection(&self) -> Option<Connection> {
        Connection::open(&self.target.addresses().await.unwrap()).await.ok()
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    async fn waiters(&self) -> usize {
        let mut connection = self.connection().await.unwrap();
        let answer = connection.exchange(get("/metrics").as_bytes()).await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix("nexo_waiters ")).unwrap().parse().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let waiters: usize = arguments.next().map_or(10_000, |number| number.parse().unwrap());
    let rate: u32 = arguments.next().map_or(1_000, |number| number.parse().unwrap());
    let receiver = Receiver::start(waiters + 2 * SENDERS).await;
    let before = receiver.memory();
    // Ids that no run before has settled.
    let run = uuid::Uuid::new_v4().simple().to_string();
    let answers = wait_for_all(&receiver, &run, waiters).await;
    let each = (receiver.memory() - before) as f64 / waiters as f64;
    println!("{waiters} wait: {each:.1} KiB each, their connections' included");
    let (acknowledged, took) = send_all(&receiver, &run, waiters, rate).await;
    let mut latencies = Vec::with_capacity(waiters);
    for (answer, acknowledged) in answers.into_iter().zip(acknowledged) {
        latencies.push(answer.await.unwrap().saturating_duration_since(acknowledged));
    }
    latencies.sort();
    let percentile = |percent: usize| latencies[(waiters * percent).div_ceil(100) - 1];
    println!("{:.0} events a second", waiters as f64 / took.as_secs_f64());
    println!(
        "from the webhook's 200 to the waiter's answer: p50 {:.2?}, p99 {:.2?}, longest {:.2?}",
        percentile(50),
        percentile(99),
        percentile(100)
    );
    println!("{} KiB at the end", receiver.memory());
}

/// Lets each wait for an OTP of its own; each tells when it was answered.
async fn wait_for_all(receiver: &Receiver, run: &str, waiters: usize) -> Vec<JoinHandle<Instant>> {
    let mut answers = Vec::with_capacity(waiters);
    for n in 0..waiters {
        let mut connection = receiver.connection().await.unwrap();
        let request = get(&format!("/api/v1/deliveries/{run}-{n}?wait=60"));
        answers.push(tokio::spawn(async move {
            let answer = connection.exchange(request.as_bytes()).await.unwrap();
            assert_eq!(answer.status, 200, "answered before its webhook came");
            Instant::now()
        }));
    }
    while receiver.waiters().await < waiters {
        sleep(Duration::from_millis(10)).await;
    }
    answers
}

/// Sends the webhook of each at its time; when each was acknowledged, and how long all took.
async fn send_all(receiver: &Receiver, run: &str, waiters: usize, rate: u32) -> (Vec<Instant>, Duration) {
    let key = SigningKey::from_secret(&Secret::new(SECRET.into()));
    let mut senders = JoinSet::new();
    let begun = Instant::now();
    for sender in 0..SENDERS {
        let mut connection = receiver.connection().await.unwrap();
        let requests: Vec<_> = (sender..waiters)
            .step_by(SENDERS)
            .map(|n| (n, webhook(&receiver.target, &key, format!("{run}-{n}"))))
            .collect();
        senders.spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) * SENDERS as u32 / rate);
            let mut acknowledged = Vec::with_capacity(requests.len());
            for (n, request) in requests {
                ticks.tick().await;
                let answer = connection.exchange(&request).await.unwrap();
                assert_eq!(answer.status, 200);
                acknowledged.push((n, Instant::now()));
            }
            acknowledged
        });
    }
    let mut acknowledged: Vec<_> = senders.join_all().await.into_iter().flatten().collect();
    let took = begun.elapsed();
    acknowledged.sort_unstable_by_key(|(n, _)| *n);
    (acknowledged.into_iter().map(|(_, at)| at).collect(), took)
}

fn webhook(target: &Target, key: &SigningKey, id: String) -> Vec<u8> {
    let now = Timestamp::now();
    let sample = Sample {
        id,
        phone: Phone::parse("+84981234567").unwrap(),
        carrier: "viettel".into(),
        outcome: Outcome::Delivered(Money::parse("0.022").unwrap()),
        created_at: before(now, UNDER_WAY),
        completed_at: now,
    };
    Webhook::new(target, &sample.body(), key).request
}
