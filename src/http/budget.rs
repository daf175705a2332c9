//! Bounds the memory that answers take, however many callers ask and however slowly they read.
//!
//! Lives here: [`Budget`], a layer around each call whose answer may be large. Does not: how many bytes of bodies a page
//! may hold (`store/query`), streams (`stream`), answers to webhooks, which are a few bytes.
//!
//! An answer is made in one of a few turns, so that few are in memory as rows and as text at once. A finished one is counted
//! against a room in bytes until its connection has taken the last piece of it. Who finds no turn or no room in time is
//! answered 503.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::refusal::Refusal;

/// Bytes that a connection is given at once. Answers that are no longer are not counted: each connection has room for one.
const PIECE: usize = 16 * 1024;

/// Answers that are made at one time.
const TURNS: usize = 8;

/// How long a call waits for a turn, and its answer for room.
const PATIENCE: Duration = Duration::from_secs(2);

/// Room is counted in units of so many bytes.
const UNIT: usize = 1024;

/// What answers under way may take.
#[derive(Clone)]
pub(super) struct Budget {
    turns: Arc<Semaphore>,
    room: Arc<Semaphore>,
    units: usize,
}

impl Budget {
    /// Room for so many bytes of answers that wait to be read.
    pub(super) fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(u32::MAX as usize);
        Self { turns: Arc::new(Semaphore::new(TURNS)), room: Arc::new(Semaphore::new(units)), units }
    }

    /// Makes an answer in a turn, and counts it until it is read.
    pub(super) async fn spend(State(budget): State<Self>, request: Request, next: Next) -> Response {
        let Ok(Ok(_turn)) = timeout(PATIENCE, budget.turns.acquire()).await else {
            return Refusal::Busy.into_response();
        };
        let response = next.run(request).await;
        budget.admit(response).await
    }

    async fn admit(&self, response: Response) -> Response {
        let Some(bytes) = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok())
        else {
            return response;
        };
        if bytes <= PIECE {
            return response;
        }
        // One that is larger than all the room takes all of it.
        let units = u32::try_from(bytes.div_ceil(UNIT).min(self.units)).unwrap_or(u32::MAX);
        match timeout(PATIENCE, Arc::clone(&self.room).acquire_many_owned(units)).await {
            Ok(Ok(room)) => response
                .map(|body| Body::new(Paced { body, rest: Bytes::new(), left: bytes as u64, _room: room })),
            _ => Refusal::Busy.into_response(),
        }
    }
}

/// An answer that is given to its connection piece by piece: hyper would copy it whole into a buffer of its own, which
/// nobody counts.
struct Paced {
    body: Body,
    rest: Bytes,
    left: u64,
    _room: OwnedSemaphorePermit,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        self.left = self.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_large_answer_comes_in_pieces_and_gives_its_room_back_when_it_is_read() {
        let budget = Budget::new(100_000);
        let whole: Bytes = (0..70_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut answer = budget.admit(Response::new(whole.clone().into())).await.into_body();
        assert_eq!(answer.size_hint().exact(), Some(70_000));
        let free = budget.room.available_permits();
        assert_eq!(free, budget.units - 70_000_usize.div_ceil(UNIT));
        let mut read = Vec::new();
        while let Some(frame) = answer.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE && budget.room.available_permits() == free);
            read.extend(piece);
        }
        assert!(answer.is_end_stream() && read == whole);
        drop(answer);
        assert_eq!(budget.room.available_permits(), budget.units);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_refused_after_a_while_and_small_answers_need_none() {
        let budget = Budget::new(100_000);
        let answer = |bytes: usize| Response::new(vec![0; bytes].into());
        let unread = budget.admit(answer(1_000_000)).await;
        assert_eq!(unread.status(), 200, "one that is larger than all the room takes all of it");
        assert_eq!(budget.admit(answer(PIECE + 1)).await.status(), 503);
        assert_eq!(budget.admit(answer(PIECE)).await.status(), 200);
        drop(unread);
        assert_eq!(budget.admit(answer(PIECE + 1)).await.status(), 200);
    }
}
