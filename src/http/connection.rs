//! A connection that knows where in a request it is, and does not wait for ever.
//!
//! Lives here: deadlines for a head, for idling and for a reader that does not read; the bytes of the present head.
//! Does not: HTTP's grammar, which is hyper's; the deadlines of a body and of an answer (`webhook`); the timer
//! (`deadline`).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::{Deadline, Deadlines};

/// As much of a head as is looked at; also the most that hyper buffers of one.
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

/// What the connection's reader and the service above it tell each other.
pub(super) struct Progress {
    pub(super) deadlines: Deadlines,
    phase: AtomicU8,
    /// Counts requests, so that a deadline is never carried over from one to the next.
    turn: AtomicU64,
    head: Mutex<Vec<u8>>,
    closing: AtomicBool,
}

impl Progress {
    fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            phase: AtomicU8::new(Phase::Idle as u8),
            turn: AtomicU64::new(0),
            head: Mutex::default(),
            closing: AtomicBool::new(false),
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

    /// The request is answered. `closing`: the answer says that the connection will close.
    pub(super) fn end(&self, closing: bool) {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if closing {
            self.closing.store(true, Ordering::Release);
        }
        // Only this task counts.
        self.turn.store(self.turn.load(Ordering::Acquire) + 1, Ordering::Release);
        self.enter(Phase::Idle);
    }

    /// Whether nothing of any request has ever come.
    pub(super) fn is_untouched(&self) -> bool {
        self.turn.load(Ordering::Acquire) == 0 && self.phase() == Phase::Idle
    }

    /// Whether an answer has said that the connection will close, so that unread bytes may still be coming.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether the present head, which has a `Transfer-Encoding`, may have a `Content-Length` too. hyper drops the
    /// latter without a word; here it must be refused, since a proxy in front may have believed it. A head that came
    /// together with the request before it (pipelined) was not seen whole and counts as one that has both.
    pub(super) fn may_have_both_lengths(&self) -> bool {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return true };
        head[..end].split(|byte| *byte == b'\n').any(|line| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"content-length")
        })
    }

    fn received(&self, bytes: &[u8]) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
        if self.phase() == Phase::Head {
            let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
            let room = HEAD_BYTES.saturating_sub(head.len());
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}

/// How long a connection may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
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

    /// The phase in which the peer kept us waiting for too long, if it did.
    pub(super) fn expired(&self) -> Option<Phase> {
        self.expired
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    fn poll_write_deadline(&mut self) -> Poll<io::Error> {
        ready!(self.writing.poll(&self.progress.deadlines, (), self.patience.write));
        Poll::Ready(io::ErrorKind::TimedOut.into())
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
            if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
                self.progress.received(bytes);
            }
            return Poll::Ready(result);
        }
        let phase = self.progress.phase();
        let after = match phase {
            Phase::Idle => self.patience.idle,
            Phase::Head => self.patience.head,
            Phase::Busy => return Poll::Pending,
        };
        let turn = self.progress.turn.load(Ordering::Acquire);
        let this = &mut *self;
        ready!(this.reading.poll(&this.progress.deadlines, (phase, turn), after));
        self.expired = Some(phase);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
                self.writing.clear();
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_write_deadline().map(Err),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Ready(result) => {
                self.writing.clear();
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_write_deadline().map(Err),
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
