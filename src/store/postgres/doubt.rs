//! Which idle connections have to be checked before they are used, and which are left.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, timeout};

use super::{is_read_only, sqlstate};

/// A connection that was idle for longer is checked before it is used: firewalls forget connections without telling
/// either end.
pub(super) const TRUSTED_IDLE: Duration = Duration::from_secs(10);

/// The server, the way to it, or this connection to it is gone, or the server takes no writes any more: the same over
/// another connection may work.
pub(super) fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(_) => sqlstate(error).is_some_and(|code| {
            // Connection exceptions, and ends by an administrator, a crash, a shutdown or `idle_session_timeout`.
            code.starts_with("08")
                || ["57P01", "57P02", "57P03", "57P05"].contains(&&*code)
                || is_read_only(error)
        }),
        _ => false,
    }
}

/// Whether a connection's other end answers within a time limit.
pub(super) async fn answers(connection: &mut PgConnection, limit: Duration) -> bool {
    timeout(limit, connection.ping()).await.is_ok_and(|answer| answer.is_ok())
}

/// What the end of one connection says of the others.
#[derive(Default)]
pub(super) struct Doubt(Mutex<Found>);

#[derive(Default, Clone, Copy)]
struct Found {
    /// When a connection was last found dead.
    dead: Option<Instant>,
    /// When the server was last found read-only.
    read_only: Option<Instant>,
}

impl Doubt {
    /// Remembers that a connection has ended with this error.
    pub(super) fn found(&self, error: &sqlx::Error) {
        let now = Some(Instant::now());
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.dead = now;
        if is_read_only(error) {
            found.read_only = now;
        }
    }

    /// Whether a connection that was idle for so long is to be checked: what ended another one may have ended it too.
    pub(super) fn is_doubted(&self, idle: Duration) -> bool {
        idle > TRUSTED_IDLE || is_before(self.get().dead, idle)
    }

    /// Whether a connection of this age leads to a server that has become read-only: another may have taken over, which
    /// a check does not tell.
    pub(super) fn is_left(&self, age: Duration) -> bool {
        is_before(self.get().read_only, age)
    }

    fn get(&self) -> Found {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what began so long ago began before a point in time.
fn is_before(point: Option<Instant>, ago: Duration) -> bool {
    point.is_some_and(|point| point.elapsed() <= ago)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_was_idle_since_before_a_death_is_doubted() {
        let (doubt, long) = (Doubt::default(), Duration::from_secs(3));
        assert!(!doubt.is_doubted(long) && !doubt.is_doubted(TRUSTED_IDLE));
        assert!(doubt.is_doubted(TRUSTED_IDLE + Duration::from_millis(1)));
        doubt.found(&sqlx::Error::Io(io::ErrorKind::UnexpectedEof.into()));
        assert!(doubt.is_doubted(long));
        assert!(!doubt.is_left(long), "it is as old as before");
    }
}
