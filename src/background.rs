//! Tasks in the background, which go on until they are told to stop.
//!
//! Lives here: how one is started, paused and stopped. Does not: what it does.

use std::time::Duration;

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

/// Waits; whether it was told to stop meanwhile, or nobody is left to tell.
pub async fn told_within(time: Duration, stop: &mut watch::Receiver<()>) -> bool {
    timeout(time, stop.changed()).await.is_ok()
}

/// A task in the background.
pub struct Background {
    /// Dropped, it tells the task to end.
    going_on: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Background {
    /// Starts a task, which is told to end through what it is given.
    pub fn start<T>(task: impl FnOnce(watch::Receiver<()>) -> T) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (going_on, told) = watch::channel(());
        Self { going_on, task: tokio::spawn(task(told)) }
    }

    /// Tells it to end, and waits for that until the deadline. Nothing is lost if it is cut off: it keeps nothing that is
    /// not done another time.
    pub async fn stop(mut self, deadline: Instant) {
        drop(self.going_on);
        if timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
