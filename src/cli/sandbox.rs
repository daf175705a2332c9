//! `sandbox`: the provider simulated, until SIGTERM or SIGINT.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, bail};
use url::Url;
use uuid::Uuid;

use super::{Answer, serve::Signals};
use crate::{
    logs,
    money::Money,
    sandbox::{self, Fault, NUMBERS, Options, Retry, Running, Wallet},
    secret::Secret,
    settings::Settings,
};

/// What it is to be like.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4000", value_parser = listen)]
    listen: (String, u16),
    /// Where webhooks go, signed with NEXO_WEBHOOK_SECRET; http only. Without it none are sent.
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    webhook_url: Option<Url>,
    /// The API key to ask for [default: NEXO_KEY, else one made for this run].
    #[arg(long)]
    key: Option<String>,
    /// What the wallet holds, in USD, beside the free credit for five OTPs.
    #[arg(long, value_name = "USD", default_value = "100", value_parser = money)]
    balance: Money,
    /// Repeats the run that had the same number: outcomes, delays and faults, not ids.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How long an OTP takes to its final state (the provider's: 25000..60000).
    #[arg(long, value_name = "FROM..TO", default_value = "500..2000", value_parser = delay)]
    delay_ms: RangeInclusive<Duration>,
    /// How long a slow OTP takes, and how late a late webhook is.
    #[arg(long, value_name = "MS", default_value = "30000")]
    slow_ms: u64,
    /// The share of OTPs that are delivered; the others fail.
    #[arg(long, value_name = "0..1", default_value = "0.9", value_parser = share)]
    delivered_rate: f64,
    /// A fault of all webhooks, or of a share of them: twice, late, sent-after, opposite-after, opposite-before,
    /// wrong-signature, stale-body, dropped. May be given several times.
    #[arg(long, value_name = "NAME[=SHARE]", value_parser = fault)]
    fault: Vec<(Fault, f64)>,
    /// How often a webhook that was not answered 2xx is sent again.
    #[arg(long, value_name = "TIMES", default_value = "0")]
    retries: u32,
    /// The pause before it is sent again the first time; each later one is twice as long.
    #[arg(long, value_name = "MS", default_value = "1000")]
    retry_ms: u64,
}

/// Runs until told to stop.
pub(super) async fn run(args: Args, settings: &Settings) -> anyhow::Result<Answer> {
    if args.fault.iter().map(|(_, share)| share).sum::<f64>() > 1.0 {
        bail!("--fault: the shares are more than 1 together; give each as NAME=SHARE");
    }
    let secret = match (&args.webhook_url, &settings.webhook.current) {
        (None, None) => Secret::new(new_secret("whsec")),
        _ => settings.webhook_secret()?,
    };
    let (key, shown_key) = match (&args.key, &settings.provider.key) {
        (Some(given), _) => (Secret::new(given.clone()), given.clone()),
        // It may be the one that costs money.
        (None, Some(key)) => (key.clone(), "$NEXO_KEY".to_owned()),
        (None, None) => {
            let key = new_secret("sk_sandbox");
            (Secret::new(key.clone()), key)
        }
    };
    let everybody = everybody(&args);
    let hook = args.webhook_url.as_ref().map_or("nowhere: give --webhook-url".to_owned(), Url::to_string);
    let mut signals = Signals::new().context("signals can't be caught")?;
    let running = sandbox::start(options(args, key, secret)).await.context("the sandbox can't start")?;
    logs::init(&settings.log.for_people()).context("the log can't be started")?;
    let banner = banner(&running, &shown_key, &hook, &everybody);
    let _ = io::stdout().write_all(banner.as_bytes());
    signals.next().await;
    running.stop().await;
    Ok(Answer::good(""))
}

/// A secret made for one run.
pub(super) fn new_secret(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

fn options(args: Args, key: Secret, secret: Secret) -> Options {
    let options = Options::new(key, secret);
    let (host, port) = args.listen;
    Options {
        host,
        port,
        webhook_url: args.webhook_url,
        retry: Retry {
            attempts: args.retries.saturating_add(1),
            pause: Duration::from_millis(args.retry_ms),
        },
        wallet: Wallet { balance: args.balance, ..options.wallet },
        delivered_rate: args.delivered_rate,
        delay: args.delay_ms,
        slow: Duration::from_millis(args.slow_ms),
        faults: args.fault,
        seed: args.seed,
        ..options
    }
}

/// What becomes of OTPs to numbers that are not in the table.
fn everybody(args: &Args) -> String {
    let (from, to) = (args.delay_ms.start().as_millis(), args.delay_ms.end().as_millis());
    let mut text = format!("delivered at a rate of {}, after {from} to {to} ms", args.delivered_rate);
    for (fault, share) in &args.fault {
        let _ = write!(text, "; {} at a rate of {share}", fault.name());
    }
    text
}

fn banner(running: &Running, key: &str, hook: &str, everybody: &str) -> String {
    let base = running.base_url();
    let address = running.addr();
    let mut text = format!(
        "NEXO ROUTE's API, simulated: {base}\nIts key: {key}\nWebhooks go to: {hook}\n\n\
         What becomes of an OTP to\n"
    );
    for number in &NUMBERS {
        let _ = writeln!(text, "  {}  {number}", number.phone);
    }
    let call = format!("curl -H \"Authorization: Bearer {key}\"");
    let _ = write!(
        text,
        "  any other     {everybody}\n\n\
         Try it:\n  \
         {call} -d '{{\"phone\":\"+84900000000\",\"code\":\"482917\"}}' {base}/send-otp\n  \
         {call} {base}/balance\n  \
         {call} http://{address}/sandbox/attempts\n\n\
         Ctrl-C ends it.\n\n"
    );
    text
}

fn listen(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or("must be HOST:PORT")?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

fn money(text: &str) -> Result<Money, String> {
    Money::parse(text)
        .ok()
        .filter(|amount| sandbox::is_countable(*amount))
        .ok_or_else(|| "must be an amount from 0 to 1000000000 with 6 decimals at most".to_owned())
}

fn delay(text: &str) -> Result<RangeInclusive<Duration>, String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from <= to => Ok(Duration::from_millis(from)..=Duration::from_millis(to)),
        _ => Err("must be milliseconds, as 500..2000 or 500".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn fault(text: &str) -> Result<(Fault, f64), String> {
    let (name, part) = text.split_once('=').unwrap_or((text, "1"));
    let fault = Fault::parse(name).ok_or_else(|| {
        let names: Vec<_> = Fault::ALL.into_iter().map(Fault::name).collect();
        format!("must be one of {}", names.join(", "))
    })?;
    Ok((fault, share(part)?))
}
