//! `flood`: signed events in numbers against a receiver, and how it bore them.

use std::{future, num::NonZeroU32, thread, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::{runtime, signal, sync::oneshot};

use super::Answer;
use crate::{
    flood::{
        self, Amount, Plan, Progress, Report,
        check::{self, Verdict},
        target::Target,
    },
    secret::Secret,
    settings::Settings,
    signature::SigningKey,
};

/// How long a run takes unless told otherwise.
const USUAL: Duration = Duration::from_secs(10);

/// What to send, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The receiver's webhook URL, http://HOST:PORT/webhooks/nexo.
    #[arg(long, value_parser = Target::parse)]
    url: Target,
    /// Events a second, sent when they are due whatever becomes of those before; without it, as many as possible.
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// How long: 500ms, 10s, 5m, 1h at most. 10s unless this or --count is given.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// How many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    count: Option<u64>,
    /// Connections, with one request at a time on each.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// How many of a hundred requests send the event before once more.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=99))]
    duplicates: u8,
    /// Afterwards ask the API (with API_TOKEN) for every event that got its 200.
    #[arg(long)]
    verify: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Send to a receiver that is not on this machine. Its store keeps what it is sent.
    #[arg(long)]
    yes_this_is_mine: bool,
    /// Send one event over and over.
    #[arg(long, hide = true)]
    fixed: bool,
}

/// Floods; the exit code is 0 when everything that was due was answered 200 and, with `--verify`, is there.
pub(super) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let key = SigningKey::from_secret(&settings.webhook_secret()?);
    let token = if args.verify { Some(settings.api_token()?) } else { None };
    refuse_strangers(args).await?;
    let bar = bar();
    let report = apart(args.plan(), key, bar.clone()).await;
    let report = report.with_context(|| format!("{} can't be flooded", args.url))?;
    let verdict = match &token {
        Some(token) => Some(verify(args, token, &report, &bar).await?),
        None => None,
    };
    bar.finish_and_clear();
    let text =
        if args.json { as_json(&report, verdict.as_ref()) } else { as_text(&report, verdict.as_ref()) };
    let good = report.is_good() && verdict.is_none_or(|verdict| verdict.missing == 0);
    Ok(if good { Answer::good(text) } else { Answer::bad(text) })
}

impl Args {
    fn plan(&self) -> Plan {
        Plan {
            target: self.url.clone(),
            connections: self.connections.into(),
            amount: match self.count {
                Some(count) => Amount::Count(count),
                None => Amount::Duration(self.duration.unwrap_or(USUAL)),
            },
            rate: self.rate,
            duplicates: self.duplicates,
            fixed: self.fixed,
        }
    }
}

/// Reads `500ms`, `10s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let wrong = "a time such as 500ms, 10s, 5m or 1h is needed, 1h at most";
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or(wrong)?;
    let number: u64 = text[..unit].parse().map_err(|_| wrong)?;
    let millis = match &text[unit..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong),
    };
    let millis = number.checked_mul(millis).filter(|millis| (1..=3_600_000).contains(millis)).ok_or(wrong)?;
    Ok(Duration::from_millis(millis))
}

async fn refuse_strangers(args: &Args) -> anyhow::Result<()> {
    let addresses = args.url.addresses().await;
    let addresses = addresses.with_context(|| format!("{} can't be looked up", args.url))?;
    let stranger = addresses.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), false) = (stranger, args.yes_this_is_mine) {
        bail!(
            "{} leads to {address}, which is another machine: its store keeps every event that it is sent; if it is \
             yours and may be flooded, say --yes-this-is-mine",
            args.url
        );
    }
    Ok(())
}

/// Runs on a thread of its own: no request is handed from one thread to another, which would cost more than it does.
async fn apart(plan: Plan, key: SigningKey, bar: ProgressBar) -> anyhow::Result<Report> {
    let (done, report) = oneshot::channel();
    thread::Builder::new().name("flood".to_owned()).spawn(move || {
        let run = || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let told = |Progress { share, answered, elapsed }: Progress| {
                let rate = u128::from(answered) * 1_000 / elapsed.as_millis().max(1);
                bar.set_position(permille(share));
                bar.set_message(format!("{answered} answers, {rate} a second"));
            };
            runtime.block_on(flood::run(plan, key, interrupted(), told))
        };
        // Nobody waits any more when the command has ended.
        let _ = done.send(run());
    })?;
    Ok(report.await.context("the sending thread ended by itself")??)
}

/// Ctrl-C ends a run early; what it has found so far is told.
async fn interrupted() {
    if signal::ctrl_c().await.is_err() {
        future::pending::<()>().await;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1")]
fn permille(share: f64) -> u64 {
    (share * 1_000.0) as u64
}

/// A bar on standard error, if that is a terminal; hidden otherwise.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}").expect("a template");
    ProgressBar::new(1_000).with_style(style)
}

async fn verify(args: &Args, token: &Secret, report: &Report, bar: &ProgressBar) -> anyhow::Result<Verdict> {
    bar.set_message(format!("asking the API for {} events", report.acknowledged.len()));
    tokio::select! {
        verdict = check::check(&args.url, token, report) => Ok(verdict.context("the API can't be asked")?),
        () = interrupted() => bail!("stopped before every event was asked for"),
    }
}

fn as_text(report: &Report, verdict: Option<&Verdict>) -> String {
    let mut text = report.to_string();
    if let Some(Verdict { asked, found, missing, missing_ids }) = verdict {
        text += &format!("verified   {found} of the {asked} events answered 200 are there\n");
        if *missing > 0 {
            text += &format!("LOST       {missing}, such as {}\n", missing_ids.join(" "));
        }
    }
    text
}

fn as_json(report: &Report, verdict: Option<&Verdict>) -> String {
    let mut json = json!(report);
    json["verified"] = json!(verdict);
    format!("{json}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_an_end() {
        for (text, millis) in
            [("1ms", 1), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("60m", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "0s", "-1s", "1.5s", "10 s", "2h", "61m", "99999999999999999999s", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
