//! Waiting for a condition, with a deadline; and for a moment that chance has chosen.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::wire::PATIENCE;

/// Waits until something is true.
pub async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it does not come true");
        look_again().await;
    }
}

/// Between two looks at what is to become true.
#[expect(clippy::disallowed_methods, reason = "whoever looks has a deadline")]
pub async fn look_again() {
    sleep(Duration::from_millis(2)).await;
}

/// Any moment within so much time: the subject of a test in which something may happen at any moment.
#[expect(
    clippy::disallowed_methods,
    reason = "the moment is the subject, not a guess at when something is done"
)]
pub async fn any_moment(rng: &mut Rng, within: Duration) {
    sleep(within.mul_f64(rng.f64())).await;
}
