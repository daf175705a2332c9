//! Processes that are started here and are gone when this one is, also at Ctrl-C.

use std::{
    io::Read as _,
    process::{Child, Command, exit},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Those that run.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// How long one may take to end by itself when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How often a condition is looked at.
const OFTEN: Duration = Duration::from_millis(5);

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At Ctrl-C, or when asked to end, ends all that was started, and then this process.
pub(crate) fn end_with_us() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // Held until the end, so that nothing more starts.
        let running = running();
        for pid in running.iter() {
            let _ = kill_process(*pid, Signal::KILL);
        }
        exit(130);
    })?;
    Ok(())
}

/// Waits until something is there.
pub(crate) fn wait_for<T>(
    patience: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{patience:?} were not enough");
        }
        thread::sleep(OFTEN);
    }
}

/// A process that ends when this is dropped.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut running = running();
        let child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let pid = Pid::from_child(&child);
        running.push(pid);
        Ok(Self { child, pid })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What it prints until it ends, which is to be soon, and no more than a pipe holds.
    pub(crate) fn output(mut self, patience: Duration) -> anyhow::Result<String> {
        wait_for(patience, || Ok(self.child.try_wait()?))?;
        let mut text = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut text)?;
        }
        Ok(text)
    }

    /// Asks it to end, and sees that it does.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        if !self.has_ended()? {
            kill_process(self.pid, Signal::TERM)?;
        }
        wait_for(GRACE, || Ok(self.child.try_wait()?)).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut running = running();
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        running.retain(|pid| *pid != self.pid);
    }
}
