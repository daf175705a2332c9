//! A future that wakes itself while it is polled is polled again at once.
//!
//! Lives here: the waker that tells such a wake from others. Does not: anything of HTTP.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Drives a future to its end. hyper wakes its own task for each body that it hands over; told to the scheduler, that
/// is another turn in the queue with all caches cold, and where a worker sleeps, a system call that wakes it for nothing.
pub(super) async fn again<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut own = None;
    poll_fn(|context| {
        let (turn, waker) = own.get_or_insert_with(|| {
            let turn = Arc::new(Turn { task: context.waker().clone(), state: AtomicU8::new(AWAY) });
            (Arc::clone(&turn), Waker::from(turn))
        });
        for _ in 0..AT_ONCE {
            turn.state.store(POLLED, Ordering::Release);
            let poll = future.as_mut().poll(&mut Context::from_waker(waker));
            if turn.state.swap(AWAY, Ordering::AcqRel) == POLLED || poll.is_ready() {
                return poll;
            }
        }
        // Others want a turn too.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// So many times in one turn a future is polled at most.
const AT_ONCE: usize = 2;

/// What a future is, as far as who wakes it has to know.
const AWAY: u8 = 0;
const POLLED: u8 = 1;
const WOKEN: u8 = 2;

struct Turn {
    /// A task's waker stays the same.
    task: Waker,
    state: AtomicU8,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let seen = self.state.compare_exchange(POLLED, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if seen == Err(AWAY) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many turns a future takes that wakes itself so many times.
    async fn turns(wakes: usize) -> usize {
        let (mut left, mut turns) = (wakes, 0);
        let future = poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let mut driven = pin!(again(future));
        poll_fn(|context| {
            turns += 1;
            driven.as_mut().poll(context)
        })
        .await;
        turns
    }

    #[tokio::test]
    async fn its_own_wake_costs_no_turn_and_many_do_not_keep_the_thread() {
        assert_eq!([turns(0).await, turns(1).await, turns(2).await, turns(9).await], [1, 1, 2, 5]);
    }

    #[tokio::test]
    async fn others_wake_it_too() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(again(told));
        tokio::task::yield_now().await;
        tell.send("told").unwrap();
        assert_eq!(waiting.await.unwrap(), Ok("told"));
    }
}
