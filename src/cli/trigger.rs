//! `trigger`: one signed event by hand, and whether the answer is what a correct receiver gives.

use std::{fmt::Write as _, io, time::Duration};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Deserialize;
use uuid::Uuid;

use super::Answer;
use crate::{
    clock::Timestamp,
    flood::{
        check::Asker,
        sample::{Outcome, Sample, UNDER_WAY, Webhook, before, whole_second},
        target::Target,
        wire::Connection,
    },
    logs,
    money::Money,
    phone::Phone,
    secret::Secret,
    settings::Settings,
    signature::SigningKey,
};

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The id in the provider's own hand-made event.
const PING: &str = "test";

/// How much of an answer is shown, in characters.
const SHOWN: usize = 300;

/// Which event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An OTP was delivered.
    Delivered,
    /// An OTP failed.
    Failed,
    /// A test ping: the id is `test`, and no OTP was sent.
    Ping,
    /// `delivered`, sent twice.
    Duplicate,
    /// `delivered`, then a `failed` of the same OTP that completed an hour before it: the state stays `delivered`.
    Late,
    /// `delivered`, signed with another secret: the answer must be 401.
    Forged,
}

/// What to send.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which event.
    kind: Kind,
    /// The receiver's webhook URL, http://HOST:PORT/webhooks/nexo.
    #[arg(long, value_parser = Target::parse)]
    url: Target,
    /// The OTP's id; a new one unless given.
    #[arg(long)]
    id: Option<String>,
    /// Whom the OTP was sent to.
    #[arg(long, default_value = "+84981234567", value_parser = Phone::parse)]
    phone: Phone,
    /// Over which carrier.
    #[arg(long, default_value = "viettel")]
    carrier: String,
    /// What a delivered OTP cost, in US dollars.
    #[arg(long, default_value = "0.022", value_parser = Money::parse)]
    cost: Money,
    /// Why an OTP failed.
    #[arg(long, default_value = "no_answer")]
    error_code: String,
    /// Afterwards ask the API (with API_TOKEN) what has become of the OTP.
    #[arg(long)]
    verify: bool,
}

/// Sends; the exit code is 0 when every answer is what a correct receiver gives.
pub(super) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let secret = match args.kind {
        Kind::Forged => Secret::new(Uuid::new_v4().to_string()),
        _ => settings.webhook_secret()?,
    };
    let token = if args.verify { Some(settings.api_token()?) } else { None };
    let key = SigningKey::from_secret(&secret);
    let id = match (args.kind, &args.id) {
        (Kind::Ping, _) => PING.to_owned(),
        (_, Some(id)) => id.clone(),
        (_, None) => Uuid::new_v4().to_string(),
    };
    let sent = tokio::time::timeout(DEADLINE, send(args, &id, &key)).await;
    let mut answer = sent
        .with_context(|| format!("{} gave no answer within {} s", args.url, DEADLINE.as_secs()))?
        .with_context(|| format!("{} can't be sent to", args.url))?;
    if let Some(token) = token {
        let status = status(args, token, &id).await.context("the API can't be asked")?;
        let (status, right) = (named(status.as_deref()), named(args.kind.status()));
        let wrong = if status == right { String::new() } else { format!(", but {right} is right") };
        answer.good &= wrong.is_empty();
        let _ = writeln!(answer.text, "delivery   {status}{wrong}\n");
    }
    let not = if answer.good { "" } else { "NOT " };
    let _ = writeln!(answer.text, "{not}as a correct receiver answers");
    Ok(answer)
}

fn named(status: Option<&str>) -> &str {
    status.unwrap_or("none of this id")
}

/// Sends each event over one connection, and tells what was sent and answered.
async fn send(args: &Args, id: &str, key: &SigningKey) -> io::Result<Answer> {
    let addresses = args.url.addresses().await?;
    let mut connection = Connection::open(&addresses).await?;
    let mut told = Answer::good("");
    for sample in args.samples(id) {
        let body = sample.body();
        let webhook = Webhook::new(&args.url, &body, key);
        let answer = connection.exchange(&webhook.request).await?;
        let right = args.kind.expects(answer.status, answer.body);
        told.good &= right;
        let (body, signature) = (String::from_utf8_lossy(&body), webhook.signature);
        let wrong = if right { String::new() } else { format!(", but {} is right", args.kind.expected()) };
        let (status, text) = (answer.status, shown(answer.body));
        let _ = writeln!(
            told.text,
            "body       {body}\nsignature  {signature}\nanswer     {status} {text}{wrong}\n"
        );
        if !answer.stays_open {
            connection = Connection::open(&addresses).await?;
        }
    }
    Ok(told)
}

impl Kind {
    /// What the API says afterwards of an id that is new.
    fn status(self) -> Option<&'static str> {
        match self {
            Self::Delivered | Self::Duplicate | Self::Late => Some("delivered"),
            Self::Failed => Some("failed"),
            Self::Ping | Self::Forged => None,
        }
    }

    /// The right answer, in words.
    fn expected(self) -> &'static str {
        if self == Self::Forged { "401" } else { "200 ok" }
    }

    /// Whether this is the right answer.
    fn expects(self, status: u16, body: &[u8]) -> bool {
        if self == Self::Forged { status == 401 } else { status == 200 && body == b"ok" }
    }
}

impl Args {
    /// The events to send, in this order.
    fn samples(&self, id: &str) -> Vec<Sample> {
        let delivered = || Outcome::Delivered(self.cost);
        let failed = || Outcome::Failed(self.error_code.clone());
        match self.kind {
            Kind::Delivered | Kind::Ping | Kind::Forged => vec![self.sample(id, delivered(), 0)],
            Kind::Failed => vec![self.sample(id, failed(), 0)],
            Kind::Duplicate => {
                let sample = self.sample(id, delivered(), 0);
                vec![sample.clone(), sample]
            }
            Kind::Late => vec![self.sample(id, delivered(), 0), self.sample(id, failed(), 1)],
        }
    }

    /// An OTP that took 25 seconds and has completed so many hours ago.
    fn sample(&self, id: &str, outcome: Outcome, hours: u32) -> Sample {
        let completed_at = whole_second(Timestamp::now().hours_before(hours));
        Sample {
            id: id.to_owned(),
            phone: self.phone.clone(),
            carrier: self.carrier.clone(),
            outcome,
            created_at: before(completed_at, UNDER_WAY),
            completed_at,
        }
    }
}

/// An answer's text in one line, with an end.
fn shown(body: &[u8]) -> String {
    let line = logs::one_line(&String::from_utf8_lossy(body));
    if line.chars().count() > SHOWN { line.chars().take(SHOWN).chain(['…']).collect() } else { line }
}

/// What the API says of the OTP.
async fn status(args: &Args, token: Secret, id: &str) -> io::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Delivery {
        status: String,
    }
    let delivery = Asker::new(args.url.clone(), token).await?.delivery(id).await?;
    let read = |body: Vec<u8>| serde_json::from_slice::<Delivery>(&body).map_err(io::Error::other);
    Ok(delivery.map(read).transpose()?.map(|delivery| logs::one_line(&delivery.status)))
}
