//! Whether webhooks can be kept now: how the last commit ended, and what anybody may be told about it.
//!
//! Lives here: what both stores share. Does not: how a store tries to write (`postgres/ready`, `sqlite/ready`).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::StoreError;

/// For so long a commit that was kept says as much as a trial would.
const FRESH: Duration = Duration::from_secs(1);

/// How the last commit ended.
#[derive(Default)]
pub(super) struct LastCommit(Mutex<State>);

#[derive(Default)]
struct State {
    kept: Option<Instant>,
    failed: bool,
    /// Why the store was not ready when last asked, as logged.
    logged: Option<String>,
}

impl LastCommit {
    /// Notes how a commit ended. An error of one member says nothing about the others.
    pub(super) fn note<T>(&self, ended: &Result<T, StoreError>) {
        match ended {
            Ok(_) => self.is_kept(),
            Err(StoreError::Unavailable(_) | StoreError::Broken(_)) => self.lock().failed = true,
            Err(_) => {}
        }
    }

    /// Notes that a commit, or a trial of one, would be kept.
    pub(super) fn is_kept(&self) {
        let mut state = self.lock();
        (state.kept, state.failed) = (Some(Instant::now()), false);
    }

    /// Whether the last commit was kept a moment ago.
    pub(super) fn is_fresh(&self) -> bool {
        let state = self.lock();
        !state.failed && state.kept.is_some_and(|kept| kept.elapsed() < FRESH)
    }

    /// Whether the last commit failed.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// What a check has found, in words for anybody: an error may name a host, a user, a database or a path. The log has
    /// it in full, once for each new reason.
    pub(super) fn report(
        &self,
        found: Result<(), StoreError>,
        public: impl FnOnce(&str) -> &'static str,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        let Err(error) = found else {
            if state.logged.take().is_some() {
                tracing::info!("ready: the store takes writes again");
            }
            return Ok(());
        };
        let reason = error.to_string();
        if state.logged.as_ref() != Some(&reason) {
            tracing::warn!(reason, "not ready: webhooks cannot be kept");
            state.logged = Some(reason);
        }
        Err(match error {
            StoreError::Broken(why) => StoreError::Broken(why),
            // Names nothing but our own migration.
            StoreError::Unavailable(why) if why.starts_with("migration ") => StoreError::Unavailable(why),
            StoreError::Unavailable(why) => StoreError::Unavailable(public(&why).to_owned()),
            _ => StoreError::Unavailable(TRIAL_FAILED.to_owned()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What anybody is told.
pub(super) const READ_ONLY: &str = "it is read-only";
pub(super) const DISK_FULL: &str = "its disk is full";
pub(super) const TRIAL_FAILED: &str = "it cannot be reached or written to; the log says why";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_failed_counts_until_one_is_kept() {
        let last = LastCommit::default();
        assert!(!last.is_fresh() && !last.has_failed());
        last.note::<()>(&Err(StoreError::Refused("a value".into())));
        assert!(!last.has_failed());
        last.note(&Ok(()));
        assert!(last.is_fresh());
        last.note::<()>(&Err(StoreError::Unavailable("full".into())));
        assert!(last.has_failed() && !last.is_fresh());
        last.is_kept();
        assert!(last.is_fresh() && !last.has_failed());
    }

    #[test]
    fn nobody_is_told_a_name() {
        let last = LastCommit::default();
        let found = || Err(StoreError::Unavailable("Postgres at host/db: user u".into()));
        for _ in 0..2 {
            let told = last.report(found(), |_| TRIAL_FAILED).unwrap_err().to_string();
            assert_eq!(told, format!("the store is unavailable: {TRIAL_FAILED}"));
        }
        let missing = || Err(StoreError::Unavailable("migration 0001_custody is not applied".into()));
        assert!(last.report(missing(), |_| READ_ONLY).unwrap_err().to_string().contains("0001_custody"));
        last.report(Ok(()), |_| READ_ONLY).unwrap();
    }
}
