//! `demo`: a receiver and the sandbox side by side, a handful of OTPs, and what became of each, as it happens.
//!
//! All of it lives in a folder of its own, on ports of its own, with secrets made for this run, and is gone at its end.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};
use url::Url;

use super::{Answer, sandbox::new_secret, serve::Signals};
use crate::{
    call::call,
    sandbox::{self, Attempt, Options, Running},
    secret::Secret,
    service,
    settings::Settings,
};

/// The OTPs that are sent, each to a number of which the end is known.
const SENDS: [(&str, &str); 7] = [
    ("+84900000000", "is delivered"),
    ("+84981234567", "is delivered, as to any number here"),
    ("+84900000002", "fails: busy"),
    ("+84900000030", "webhook sent twice"),
    ("+84900000035", "webhook forged"),
    ("+84900000021", "is delivered, slowly"),
    ("+84900000020", "stays sent for ever"),
];

/// How often it looks.
const GLANCE: Duration = Duration::from_millis(100);
/// How long the slow one takes.
const SLOW: Duration = Duration::from_secs(4);
/// How long what is under way may take at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs until SIGTERM, SIGINT or SIGHUP.
pub(super) async fn run() -> anyhow::Result<Answer> {
    let mut signals = Signals::new().context("signals can't be caught")?;
    // Whoever closes the window wants it gone too.
    let mut hangup = signal(SignalKind::hangup()).context("signals can't be caught")?;
    let folder = tempfile::Builder::new().prefix("nexo-receiver-demo").tempdir()?;
    let [secret, token, key] = ["whsec", "token", "sk_sandbox"].map(new_secret);
    let data = folder.path().as_os_str().to_owned();
    let environment = [
        ("NEXO_WEBHOOK_SECRET", secret.clone().into()),
        ("API_TOKEN", token.clone().into()),
        ("DATA_DIR", data),
        ("PORT", "0".into()),
    ];
    let settings = Settings::load(None, environment.map(|(name, value)| (name.into(), value)))?;
    let receiver = service::start(settings.service()?).await?;
    let options = Options {
        webhook_url: Some(Url::parse(&format!("http://{}/webhooks/nexo", receiver.addr()))?),
        delay: Duration::from_millis(400)..=Duration::from_millis(1500),
        slow: SLOW,
        ..Options::new(Secret::new(key.clone()), Secret::new(secret))
    };
    let sandbox = sandbox::start(options).await.context("the sandbox can't start")?;
    let stage = Stage { receiver: receiver.addr(), sandbox, token, key };
    let shown = tokio::select! {
        shown = stage.play() => shown,
        part = receiver.failed() => bail!("{part} ended by itself"),
        _ = signals.next() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    stage.sandbox.stop().await;
    receiver.stop(DRAIN).await;
    folder.close()?;
    shown.map(|()| Answer::good(""))
}

/// Where it all happens.
struct Stage {
    receiver: SocketAddr,
    sandbox: Running,
    token: String,
    key: String,
}

/// One OTP: where to, what is to become of it, and what is seen of it.
struct Row {
    phone: &'static str,
    plan: &'static str,
    id: String,
    webhooks: String,
    known: String,
}

impl Stage {
    /// Sends, shows until all has happened, prints what to try next, and then waits for ever.
    async fn play(&self) -> anyhow::Result<()> {
        print(&format!("receiver http://{}   sandbox http://{}\n\n", self.receiver, self.sandbox.addr()));
        let mut rows = Vec::new();
        for (phone, plan) in SENDS {
            let id = self.send(phone).await?;
            rows.push(Row { phone, plan, id, webhooks: String::new(), known: "sending".into() });
        }
        let is_terminal = io::stdout().is_terminal();
        print(&table(&rows));
        loop {
            // Asked first: what has happened by then is in the last table.
            let is_over = self.sandbox.settled(Duration::ZERO).await.is_ok();
            let changed = self.look(&mut rows).await?;
            if is_terminal && !changed.is_empty() {
                print(&format!("\x1b[{}A\x1b[J{}", rows.len() + 1, table(&rows)));
            } else {
                changed.into_iter().for_each(|changed| print(&line(&rows[changed])));
            }
            if is_over {
                break;
            }
            sleep_until(Instant::now() + GLANCE).await;
        }
        print(&self.next(&rows));
        std::future::pending().await
    }

    async fn send(&self, phone: &str) -> anyhow::Result<String> {
        let url = format!("{}/send-otp", self.sandbox.base_url());
        let request = Request::post("/").header(AUTHORIZATION, format!("Bearer {}", self.key));
        let body = json!({"phone": phone, "code": "482917"}).to_string();
        let reply = call(&Url::parse(&url)?, request, body.into()).await?;
        let sent: Value = serde_json::from_str(&reply.text)?;
        sent["id"].as_str().map(str::to_owned).with_context(|| format!("the sandbox says {}", reply.text))
    }

    /// Looks at each row again; those that changed.
    async fn look(&self, rows: &mut [Row]) -> anyhow::Result<Vec<usize>> {
        let attempts = self.sandbox.attempts();
        let mut changed = Vec::new();
        for (at, row) in rows.iter_mut().enumerate() {
            let answers = attempts.iter().filter(|attempt| attempt.id == row.id).map(answer);
            let webhooks = answers.collect::<Vec<_>>().join(" ");
            let known = self.known(&row.id).await?;
            if (&row.webhooks, &row.known) != (&webhooks, &known) {
                (row.webhooks, row.known) = (webhooks, known);
                changed.push(at);
            }
        }
        Ok(changed)
    }

    /// What the receiver's API says.
    async fn known(&self, id: &str) -> anyhow::Result<String> {
        let url = format!("http://{}/api/v1/deliveries/{id}", self.receiver);
        let request = Request::get("/").header(AUTHORIZATION, format!("Bearer {}", self.token));
        let reply = call(&Url::parse(&url)?, request, Bytes::new()).await?;
        let known: Value = serde_json::from_str(&reply.text)?;
        Ok(match (known["status"].as_str(), known["error_code"].as_str()) {
            (Some(status), Some(code)) => format!("{status}: {code}"),
            (Some(status), None) => status.to_owned(),
            (None, _) => "nothing".to_owned(),
        })
    }

    /// The calls to try next.
    fn next(&self, rows: &[Row]) -> String {
        let (receiver, sandbox) = (format!("http://{}/api/v1", self.receiver), self.sandbox.base_url());
        let ask = format!("curl -H 'Authorization: Bearer {}'", self.token);
        let send = format!("curl -H 'Authorization: Bearer {}'", self.key);
        let (first, twice) = (&rows[0].id, &rows[3].id);
        let phone = rows[1].phone;
        format!(
            "\nWhat became of the first:\n  {ask} {receiver}/deliveries/{first}\n\
             The evidence for the one whose webhook came twice:\n  {ask} {receiver}/deliveries/{twice}/events\n\
             Those that failed, and how many by carrier:\n  {ask} '{receiver}/deliveries?status=failed'\n  \
             {ask} '{receiver}/stats?by=carrier'\n\
             Send another; a second or so later it is the newest:\n  \
             {send} -d '{{\"phone\":\"{phone}\",\"code\":\"482917\"}}' {sandbox}/send-otp\n  \
             {ask} '{receiver}/deliveries?limit=1'\n\
             What the sandbox saw of the receiver:\n  {send} http://{}/sandbox/attempts\n\n\
             Ctrl-C ends it; nothing is kept.\n",
            self.sandbox.addr()
        )
    }
}

fn answer(attempt: &Attempt) -> String {
    attempt.answered().map_or_else(|| "none".to_owned(), |status| status.to_string())
}

fn table(rows: &[Row]) -> String {
    let head = format!("{:<13} {:<36} {:<9} {}\n", "PHONE", "ITS OTP", "ANSWERED", "RECEIVER KNOWS");
    rows.iter().fold(head, |text, row| text + &line(row))
}

/// Not wider than any terminal: a line that is broken in two would be drawn over.
fn line(row: &Row) -> String {
    let mut line = String::new();
    let Row { phone, plan, webhooks, known, .. } = row;
    let _ = writeln!(line, "{phone:<13} {plan:<36} {webhooks:<9} {known}");
    line
}

/// Whoever closes the pipe has seen enough.
fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
