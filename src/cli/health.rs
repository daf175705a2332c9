//! `health`: asks the running instance whether it lives, as a container's health check does.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use url::Url;

use super::Answer;
use crate::{call::call, logs, settings::Settings};

/// How long the whole question may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// What to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask whether it is ready to take webhooks, its store included, rather than whether it lives.
    #[arg(long)]
    ready: bool,
}

/// Asks; no secret is needed.
pub(super) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let port = settings.server.port;
    if port == 0 {
        bail!(
            "PORT is 0, so that the port of the running instance can't be known; set PORT to the one it took"
        );
    }
    let host = host_to_ask(&settings.server.host);
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let url = format!("http://{authority}{path}");
    let asked = Url::parse(&url).with_context(|| format!("{url} is no URL"))?;
    let reply = tokio::time::timeout(DEADLINE, call(&asked, Request::get("/"), Bytes::new()))
        .await
        .with_context(|| format!("{url} gave no answer within {} s", DEADLINE.as_secs()))?
        .with_context(|| format!("{url} can't be asked"))?;
    let line = format!("{url} answered {}: {}", reply.status.as_u16(), logs::one_line(reply.text.trim()));
    Ok(if reply.status.is_success() { Answer::good(line + "\n") } else { Answer::bad(line + "\n") })
}

/// An address to reach a listener at: one that listens everywhere is also here.
fn host_to_ask(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".to_owned(),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_everywhere_is_asked_here() {
        for (host, asked) in
            [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("localhost", "localhost"), ("10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(host_to_ask(host), asked);
        }
    }
}
