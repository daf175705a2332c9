//! `serve`: the service, from the first log line to the exit.

use std::{io, process};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Answer;
use crate::{logs, service, settings::Settings};

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
    let fitting = fitting(connections, files);
    options.http.connections = fitting;
    let mut signals = Signals::new().context("signals can't be caught")?;
    let running = tokio::select! {
        running = service::start(options) => running?,
        () = signals.next() => {
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
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    tokio::select! {
        () = signals.next() => {}
        () = running.failed() => bail!("a part of the service ended by itself"),
    }
    tracing::info!("stopping: what is under way is finished first; a second signal ends it at once");
    tokio::select! {
        done = running.stop(settings.server.drain) => match done {
            true => tracing::info!("stopped"),
            false => tracing::warn!("stopped; what was still under way is cut off, and was never acknowledged"),
        },
        () = signals.next() => process::exit(IMPATIENT),
    }
    Ok(Answer::good(""))
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

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
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
