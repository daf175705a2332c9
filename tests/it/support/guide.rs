//! The code of the provider's own guide, run with Node.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

/// The guide's receiver, until it is dropped.
pub struct Guide {
    process: Child,
    pub address: SocketAddr,
    _log: BufReader<ChildStdout>,
}

impl Guide {
    pub fn start(secret: &str) -> Self {
        let mut process = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/receiver.mjs"))
            .env("NEXO_WEBHOOK_SECRET", secret)
            // Express prints no exceptions then.
            .env("NODE_ENV", "test")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/run makes sure of Node");
        let mut log = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut port = String::new();
        log.read_line(&mut port).expect("the guide's receiver tells its port");
        let port: u16 = port.trim().parse().expect("tests/run installs what the guide's receiver needs");
        Self { process, address: ([127, 0, 0, 1], port).into(), _log: log }
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends one OTP with the guide's `sendOtp`, as a program of its own.
pub async fn send_otp(base_url: &str, key: &str, phone: &str, code: &str) -> Output {
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/send-otp.mjs"))
        .args([phone, code])
        .envs([("NEXO_BASE_URL", base_url), ("NEXO_KEY", key)]);
    tokio::task::spawn_blocking(move || node.output().expect("tests/run makes sure of Node")).await.unwrap()
}
