//! `health`: asks the running instance whether it lives, as a container's health check does.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Answer;
use crate::{logs, settings::Settings};

/// How long the whole question may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// The most of an answer that is read, in bytes.
const LONGEST_ANSWER: usize = 4_096;

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
    let (status, body) = tokio::time::timeout(DEADLINE, get(&host, port, &authority, path))
        .await
        .with_context(|| format!("{url} gave no answer within {} s", DEADLINE.as_secs()))?
        .with_context(|| format!("{url} can't be asked"))?;
    let line = format!("{url} answered {}: {}", status.as_u16(), logs::one_line(body.trim()));
    Ok(if status.is_success() { Answer::good(line + "\n") } else { Answer::bad(line + "\n") })
}

/// An address to reach a listener at: one that listens everywhere is also here.
fn host_to_ask(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".to_owned(),
        _ => host.to_owned(),
    }
}

async fn get(host: &str, port: u16, authority: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", authority).body(Empty::<Bytes>::new())?;
    let ask = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(connection);
    tokio::pin!(ask);
    tokio::select! {
        biased;
        answer = &mut ask => answer,
        ended = &mut connection => { ended?; ask.await }
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
