//! `serve`: the service, from the first log line to the exit.

use std::{io, process, time::Duration};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Answer;
use crate::{logs, service, settings::Settings, store::open};

/// The exit code of a second signal, as a shell has it for SIGINT.
const IMPATIENT: i32 = 130;

/// Open files beside connections: the log, the store's, a listener, the runtime's own.
const OTHER_FILES: usize = 64;

/// Runs until SIGTERM or SIGINT, then finishes what is under way.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<Answer> {
    let mut options = settings.service()?;
    logs::init(&settings.log);
    let connections = options.http.connections;
    let files = raise_open_files();
    options.http.connections = fitting(connections, files);
    let mut signals = Signals::new().context("signals can't be caught")?;
    let running = tokio::select! {
        running = start(settings, options.clone()) => running?,
        () = signals.next() => return Ok(Answer::good("")),
    };
    tracing::info!("listening on http://{}", running.addr());
    if options.http.connections < connections {
        tracing::warn!(
            "limits.connections lowered from {connections} to {}: the limit of open files is {files:?}",
            options.http.connections
        );
    }
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    signals.next().await;
    tracing::info!("stopping: what is under way is finished first; a second signal ends it at once");
    tokio::select! {
        stopped = stop(running, settings.server.drain) => stopped?,
        () = signals.next() => process::exit(IMPATIENT),
    }
    tracing::info!("stopped");
    Ok(Answer::good(""))
}

async fn start(settings: &Settings, options: service::Options) -> anyhow::Result<service::Running> {
    if settings.migrate {
        let store = open::open(&options.location).await?;
        let applied = store.migrate().await;
        store.close().await;
        applied?;
    }
    Ok(service::start(options).await?)
}

async fn stop(running: service::Running, drain: Duration) -> anyhow::Result<()> {
    running.stop(drain).await
}

/// SIGTERM and SIGINT; from when this is made they no longer end the process by themselves.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
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
