//! A connection that knows where in a request it is, and does not wait for ever.
//!
//! Lives here: deadlines for a head, for idling and for a reader that does not read; since when the peer is waited for.
//! Does not: HTTP's grammar, which is hyper's; the deadlines of a body and of an answer (`webhook`); the timer
//! (`deadline`); who makes way when there is no room (`places`).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::deadline::{Deadline, Deadlines};

/// The most that hyper buffers of a head.
pub(super) const HEAD_BYTES: usize = 16 * 1024;

/// Where a connection is between two requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing of a next request has come.
    Idle = 0,
    /// A head has begun to come.
    Head = 1,
    /// A request is being answered.
    Busy = 2,
}

/// What the connection's reader, the service above it and the accept loop tell each other.
pub(super) struct Progress {
    pub(super) deadlines: Deadlines,
    phase: AtomicU8,
    /// Counts requests, so that a deadline is never carried over from one to the next.
    turn: AtomicU64,
    lingers: AtomicBool,
    /// Since when the peer is waited for, as [`Deadlines::at`] has it; 0 while it is not. Only the connection's own task
    /// writes it.
    waiting_since: AtomicU64,
    /// The wait that the accept loop wants to end: a value that `waiting_since` had. A later wait is another one.
    unwanted: AtomicU64,
    waker: AtomicWaker,
}

impl Progress {
    fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            phase: AtomicU8::new(Phase::Idle as u8),
            turn: AtomicU64::new(0),
            lingers: AtomicBool::new(false),
            // A new connection waits for its first byte.
            waiting_since: AtomicU64::new(1),
            unwanted: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// A request's head is complete.
    pub(super) fn begin(&self) {
        self.enter(Phase::Busy);
    }

    /// The request is answered. `lingers`: the connection may close after it, with unread bytes still coming.
    pub(super) fn end(&self, lingers: bool) {
        if lingers {
            self.lingers.store(true, Ordering::Release);
        }
        // Only this task counts.
        self.turn.store(self.turn.load(Ordering::Acquire) + 1, Ordering::Release);
        self.enter(Phase::Idle);
    }

    fn has_no_request(&self) -> bool {
        self.turn.load(Ordering::Acquire) == 0
    }

    /// Whether nothing of any request has ever come.
    pub(super) fn is_untouched(&self) -> bool {
        self.has_no_request() && self.phase() == Phase::Idle
    }

    /// Whether unread bytes may still be coming when the connection closes.
    pub(super) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Acquire)
    }

    /// The peer's turn is over: it has sent, or read, something.
    fn moved(&self) {
        self.waiting_since.store(0, Ordering::Release);
    }

    fn received(&self) {
        self.moved();
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// The peer is waited for. Ready when the connection is to make way.
    fn wait(&self, context: &Context<'_>, now: Instant) -> Poll<()> {
        let mut since = self.waiting_since.load(Ordering::Relaxed);
        if since == 0 {
            since = self.deadlines.at(now).max(1);
            self.waiting_since.store(since, Ordering::Release);
        }
        self.waker.register(context.waker());
        if self.unwanted.load(Ordering::Acquire) == since { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Since when the connection has waited for its peer, if it does.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let since = self.waiting_since.load(Ordering::Acquire);
        (since != 0).then(|| self.deadlines.instant(since))
    }

    /// Ends the connection, unless its peer has sent or read something since. Answers whether it had not.
    pub(super) fn make_way(&self, since: Instant) -> bool {
        let waits = self.waiting_since() == Some(since);
        if waits {
            self.unwanted.store(self.deadlines.at(since).max(1), Ordering::Release);
            self.waker.wake();
        }
        waits
    }

    /// Whether the connection makes way for a new one.
    pub(super) fn makes_way(&self) -> bool {
        let unwanted = self.unwanted.load(Ordering::Acquire);
        unwanted != 0 && unwanted == self.waiting_since.load(Ordering::Acquire)
    }
}

/// How long a connection may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the first byte of all.
    pub(super) first: Duration,
    pub(super) idle: Duration,
    pub(super) head: Duration,
    pub(super) write: Duration,
    /// The shortest of these and of all other limits that a request has.
    pub(super) shortest: Duration,
}

/// A stream whose reads and writes fail with [`io::ErrorKind::TimedOut`] when a deadline passes.
pub(super) struct Connection<S> {
    stream: S,
    progress: Arc<Progress>,
    patience: Patience,
    reading: Deadline<(Phase, u64)>,
    writing: Deadline<()>,
    expired: Option<Phase>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Self {
        Self {
            stream,
            progress: Arc::new(Progress::new(Deadlines::new(patience.shortest))),
            patience,
            reading: Deadline::default(),
            writing: Deadline::default(),
            expired: None,
        }
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// The phase in which the peer kept us waiting for too long, or for longer than all others when there was no room.
    pub(super) fn expired(&self) -> Option<Phase> {
        self.expired
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    fn expire(&mut self, phase: Phase) -> io::Error {
        self.expired = Some(phase);
        io::ErrorKind::TimedOut.into()
    }

    fn poll_read_deadline(&mut self, context: &Context<'_>) -> Poll<io::Error> {
        let now = Instant::now();
        let phase = self.progress.phase();
        if self.progress.wait(context, now).is_ready() {
            return Poll::Ready(self.expire(phase));
        }
        let after = match phase {
            Phase::Idle if self.progress.has_no_request() => self.patience.first,
            Phase::Idle => self.patience.idle,
            Phase::Head => self.patience.head,
            Phase::Busy => return Poll::Pending,
        };
        let turn = self.progress.turn.load(Ordering::Acquire);
        ready!(self.reading.poll(&self.progress.deadlines, now, (phase, turn), after));
        Poll::Ready(self.expire(phase))
    }

    fn poll_write_deadline(&mut self, context: &Context<'_>) -> Poll<io::Error> {
        let now = Instant::now();
        if self.progress.wait(context, now).is_pending() {
            ready!(self.writing.poll(&self.progress.deadlines, now, (), self.patience.write));
        }
        Poll::Ready(self.expire(Phase::Busy))
    }

    fn wrote(&mut self) {
        self.writing.clear();
        self.progress.moved();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if buffer.filled().len() > before {
                self.progress.received();
            }
            return Poll::Ready(result);
        }
        self.poll_read_deadline(context).map(Err)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(result) => {
                self.wrote();
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_write_deadline(context).map(Err),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Ready(result) => {
                self.wrote();
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_write_deadline(context).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
