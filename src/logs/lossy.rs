//! Writes lines to standard output on a thread of their own, and drops those for which there is no room.
//!
//! Standard output is mostly a pipe. When its reader stops reading, a write blocks: a thread that serves requests must
//! not be the one that writes.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written. One at `info` has some 300 bytes, and less than a kilobyte.
const LINES: usize = 8_192;

/// Shortest time between two lines that say how many were dropped, while others wait.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// How often [`flush`] looks.
const LOOK: Duration = Duration::from_millis(2);

/// Lines handed over, whatever became of them.
static HANDED_OVER: AtomicUsize = AtomicUsize::new(0);
/// Lines that standard output has taken.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);
/// Lines that standard output has refused.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// Counts the lines for which there was no room. The guard lives as long as the process: dropped while there is no room
/// it would print to standard output, and so wait for its reader.
static THREAD: OnceLock<(ErrorCounter, WorkerGuard)> = OnceLock::new();

/// Hands lines to the thread.
#[derive(Clone)]
pub(super) struct Lines(NonBlocking);

impl Lines {
    /// Starts the thread.
    ///
    /// # Errors
    /// When standard output can't be duplicated.
    pub(super) fn to_stdout() -> io::Result<Self> {
        // Not `io::stdout`: whoever writes holds its lock, for which an exiting process may wait.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let output =
            Output { to: BufWriter::new(stdout), pending: 0, reported: 0, report_due: Instant::now() };
        let builder =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).thread_name("log");
        let (lines, guard) = builder.finish(output);
        // Another one would be of a log that is never installed.
        let _ = THREAD.set((lines.error_counter(), guard));
        Ok(Self(lines))
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        HANDED_OVER.fetch_add(1, Relaxed);
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Lines that were dropped since the start.
pub(super) fn dropped() -> usize {
    let without_room = THREAD.get().map_or(0, |(without_room, _)| without_room.dropped_lines());
    without_room + REFUSED.load(Relaxed)
}

/// Waits until every line is written or dropped, at most until `deadline`.
pub(super) fn flush(deadline: Instant) {
    while WRITTEN.load(Relaxed) + dropped() < HANDED_OVER.load(Relaxed) && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
}

/// Standard output, as the thread sees it: it flushes whenever no line waits.
struct Output {
    to: BufWriter<File>,
    /// Lines since the last flush.
    pending: usize,
    /// Dropped lines that the log has told of.
    reported: usize,
    report_due: Instant,
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.to.write_all(line).inspect_err(|_| {
            REFUSED.fetch_add(1, Relaxed);
        })?;
        self.pending += 1;
        if dropped() > self.reported && Instant::now() >= self.report_due {
            self.report();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.to.flush();
        let counter = if flushed.is_ok() { &WRITTEN } else { &REFUSED };
        counter.fetch_add(std::mem::take(&mut self.pending), Relaxed);
        flushed?;
        self.report();
        Ok(())
    }
}

impl Output {
    /// Logs how many lines were dropped since it last did. Where that line is dropped too, the next one tells of all.
    fn report(&mut self) {
        let in_all = dropped();
        if in_all == self.reported {
            return;
        }
        let lines = in_all - self.reported;
        self.report_due = Instant::now() + REPORT_PAUSE;
        tracing::warn!(lines, in_all, "log lines were dropped: standard output was not read fast enough");
        if dropped() == in_all {
            self.reported = in_all;
        }
    }
}
