//! A request's body: read whole, within its limit and deadline, its memory counted while it comes.
//!
//! Lives here: [`BodyLimits`], and whether a body was read at all ([`Followed`]). Does not: whether a webhook's body, which is
//! read in the same way, is signed (`webhook`).

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody as _},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    Options,
    answer::{closing, text},
    refusal::Refusal,
};

/// The answer to a body that keeps us waiting.
pub(super) const BODY_TOO_SLOW: &str = "request body came too late";

/// Of the bytes of bodies that may be in memory, one in so many more is for callers with a token, who take none of the
/// webhooks'.
const PART_FOR_CALLERS: usize = 4;

/// How much, and within which time.
#[derive(Clone)]
pub(super) struct BodyLimits {
    bytes: usize,
    timeout: Duration,
    room: Arc<Semaphore>,
}

impl BodyLimits {
    pub(super) fn new(options: &Options) -> Self {
        let room = (options.in_flight_bytes / PART_FOR_CALLERS).max(options.body_bytes);
        Self {
            bytes: options.body_bytes,
            timeout: options.body_timeout,
            room: Arc::new(Semaphore::new(room)),
        }
    }

    /// The whole body, or what to answer.
    pub(super) async fn read(&self, body: Body) -> Result<Bytes, Response> {
        match timeout(self.timeout, read_whole(body, self.bytes, &self.room)).await {
            Ok(Ok(whole)) => Ok(whole.into_bytes().0),
            Ok(Err(problem)) => {
                let refusal = match problem {
                    Problem::TooLarge => Refusal::BodyTooLarge(self.bytes),
                    Problem::BrokenOff => Refusal::InvalidBody("the body was broken off".into()),
                    Problem::NoRoom => Refusal::Busy,
                };
                Err(closing(refusal.into_response()))
            }
            Err(_) => Err(closing(text(StatusCode::REQUEST_TIMEOUT, BODY_TOO_SLOW))),
        }
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is, or says that it will be, over the limit.
    TooLarge,
    /// Its end is missing.
    BrokenOff,
    /// The bodies that are still coming take all the room that they may.
    NoRoom,
}

/// Reads a body whole, within the limit. While more of it is to come, what it takes of memory is taken of the room.
pub(super) async fn read_whole<B>(mut body: B, limit: usize, room: &Arc<Semaphore>) -> Result<Whole, Problem>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    // What the head announces, if it does.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Problem::TooLarge);
    }
    let most = if announced > 0 { announced } else { limit };
    let mut whole = Whole::default();
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|_| Problem::BrokenOff)?;
        // Trailers are no part of a body.
        let Ok(bytes) = frame.into_data() else { continue };
        let length = whole.bytes.len() + bytes.len();
        if length > limit {
            return Err(Problem::TooLarge);
        }
        // What is whole is used at once, and needs no room to wait in.
        let capacity =
            if body.is_end_stream() { length } else { length.next_power_of_two().min(most).max(length) };
        if !body.is_end_stream() {
            whole.take_room(capacity, room)?;
        }
        whole.push(bytes, capacity);
    }
    Ok(whole)
}

/// A body as it comes in, with the room that it takes.
#[derive(Default)]
pub(super) struct Whole {
    bytes: Pieces,
    room: Option<OwnedSemaphorePermit>,
}

/// Most bodies come in one piece and are not copied.
enum Pieces {
    One(Bytes),
    Many(Vec<u8>),
}

impl Default for Pieces {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }
}

impl Whole {
    /// Takes room for so many bytes in all.
    fn take_room(&mut self, bytes: usize, room: &Arc<Semaphore>) -> Result<(), Problem> {
        let taken = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = bytes.checked_sub(taken).filter(|more| *more > 0) else { return Ok(()) };
        let more = u32::try_from(more).map_err(|_| Problem::NoRoom)?;
        let more = Arc::clone(room).try_acquire_many_owned(more).map_err(|_| Problem::NoRoom)?;
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        Ok(())
    }

    /// Adds a piece; memory is taken for just so many bytes.
    fn push(&mut self, more: Bytes, capacity: usize) {
        self.bytes = match std::mem::take(&mut self.bytes) {
            Pieces::One(first) if first.is_empty() => Pieces::One(more),
            Pieces::One(first) => {
                let mut bytes = Vec::with_capacity(capacity);
                bytes.extend_from_slice(&first);
                bytes.extend_from_slice(&more);
                Pieces::Many(bytes)
            }
            Pieces::Many(mut bytes) => {
                bytes.reserve_exact(capacity - bytes.len());
                bytes.extend_from_slice(&more);
                Pieces::Many(bytes)
            }
        };
    }

    /// The body, and the room that it takes for as long as that is kept.
    pub(super) fn into_bytes(self) -> (Bytes, Option<OwnedSemaphorePermit>) {
        let bytes = match self.bytes {
            Pieces::One(bytes) => bytes,
            Pieces::Many(bytes) => bytes.into(),
        };
        (bytes, self.room)
    }
}

/// A request's body that tells whether it was read to its end. If it was not, its connection can't be used again: what
/// is still to come would be taken for the next request.
pub(super) struct Followed {
    body: Incoming,
    was_read: Arc<AtomicBool>,
}

impl Followed {
    /// The body, and whether it was read.
    pub(super) fn new(body: Incoming) -> (Self, Arc<AtomicBool>) {
        let was_read = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, was_read: Arc::clone(&was_read) }, was_read)
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if matches!(poll, Poll::Ready(None)) || self.body.is_end_stream() {
            self.was_read.store(true, Ordering::Relaxed);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    /// A body that comes in pieces, without a length or with one.
    fn pieces(pieces: &[usize]) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let frames: Vec<_> = pieces.iter().map(|size| Ok(Frame::data(vec![7; *size].into()))).collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn the_room_that_is_taken_is_the_memory_that_is() {
        for sizes in [&[1][..], &[1, 1], &[100, 1, 1, 1], &[3, 5, 900, 91], &[500, 500], &[1; 1000]] {
            let room = Arc::new(Semaphore::new(1024));
            let whole = read_whole(pieces(sizes), 1000, &room).await.unwrap();
            let taken = 1024 - room.available_permits();
            match &whole.bytes {
                Pieces::One(bytes) => assert_eq!(bytes.len(), taken),
                Pieces::Many(bytes) => assert_eq!(bytes.capacity(), taken, "{sizes:?}"),
            }
            let (bytes, kept) = whole.into_bytes();
            assert_eq!(bytes.len(), sizes.iter().sum::<usize>());
            drop((bytes, kept));
            assert_eq!(room.available_permits(), 1024, "all of it is given back");
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_or_is_too_large_gives_all_of_it_back() {
        let room = Arc::new(Semaphore::new(600));
        for (sizes, problem) in
            [(&[300, 300, 300][..], Problem::NoRoom), (&[200, 200, 601], Problem::TooLarge)]
        {
            let read = read_whole(pieces(sizes), 1000, &room).await;
            assert_eq!(read.err(), Some(problem));
            assert_eq!(room.available_permits(), 600);
        }
    }
}
