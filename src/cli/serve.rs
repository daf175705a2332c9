//! `serve`: the service, from the first log line to the exit.

use std::{io, process};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::Answer;
use crate::{
    logs,
    service::{self, Running},
    settings::{Server, Settings},
};

/// The exit code when a signal cuts off what is under way, as a shell has it for SIGINT.
const IMPATIENT: i32 = 130;

/// Open files beside connections: the log, the store's, a listener, the runtime's own.
const OTHER_FILES: usize = 64;

/// Runs until SIGTERM or SIGINT, then finishes what is under way.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<Answer> {
    let mut options = settings.service()?;
    logs::init(&settings.log).context("the log can't be started")?;
    let connections = options.http.connections;
    let files = raise_open_files();
    let fitting = fitting(connections, files);
    options.http.connections = fitting;
    let mut signals = Signals::new().context("signals can't be caught")?;
    ignore_hangups().context("signals can't be caught")?;
    let started = tokio::select! {
        started = service::start(options) => started,
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            tracing::info!("stopped");
            return Ok(Answer::good(""));
        }
    };
    if fitting < connections {
        let files = files.unwrap_or_default();
        tracing::warn!(
            "limits.connections lowered from {connections} to {fitting}: {files} files may be open"
        );
    }
    // Also when the start failed: a mangled password may be why.
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let running = started?;
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        part = running.failed() => bail!("{part} ended by itself; the log says why"),
    }
    stop(running, &settings.server, &mut signals).await
}

/// Serves on for as long as load balancers need to notice, then finishes what is under way.
async fn stop(running: Running, server: &Server, signals: &mut Signals) -> anyhow::Result<Answer> {
    running.announce_stop();
    if !server.notice.is_zero() {
        tracing::info!(
            seconds = server.notice.as_secs(),
            "/readyz is 503 and new connections are still served; a second signal skips this"
        );
        let ended_early = async {
            tokio::select! {
                signal = signals.next() => Ok(signal),
                part = running.failed() => Err(part),
            }
        };
        match timeout(server.notice, ended_early).await {
            Err(_) => {}
            Ok(Ok(signal)) => tracing::info!(signal, "new connections are no longer served"),
            Ok(Err(part)) => bail!("{part} ended by itself; the log says why"),
        }
    }
    tracing::info!(
        seconds = server.drain.as_secs(),
        "draining: what is under way is finished; another signal ends it at once"
    );
    tokio::select! {
        done = running.stop(server.drain) => match done {
            true => tracing::info!("stopped"),
            false => tracing::warn!("stopped; what was still under way is cut off, and was never acknowledged"),
        },
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once; what was still under way is cut off, and was never acknowledged");
            logs::flush();
            process::exit(IMPATIENT);
        }
    }
    Ok(Answer::good(""))
}

/// A SIGHUP ends nothing: it is what asks a service to read its configuration again.
fn ignore_hangups() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(signal = "SIGHUP", "nothing to reload");
        }
    });
    Ok(())
}

/// SIGTERM and SIGINT; from when this is made they no longer end the process by themselves.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they are caught.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one, and says which.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Raises this process's limit of open files as far as it may; the limit then, `None` for none.
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current == limit.maximum || setrlimit(Resource::Nofile, raised).is_ok() {
        limit.maximum
    } else {
        limit.current
    }
}

/// As many connections as the limit of open files leaves room for, one at least.
fn fitting(connections: usize, files: Option<u64>) -> usize {
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    connections.min(files.saturating_sub(OTHER_FILES)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(fitting(4096, None), 4096);
        assert_eq!(fitting(4096, Some(1 << 20)), 4096);
        assert_eq!(fitting(4096, Some(1024)), 960);
        assert_eq!(fitting(960, Some(1024)), 960);
        assert_eq!(fitting(4096, Some(64)), 1);
    }
}
