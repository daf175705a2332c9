//! `migrate`: applies the store's missing migrations.

use super::Answer;
use crate::{settings::Settings, store::open};

/// Applies what is missing.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<Answer> {
    let store = open::open(&settings.location).await?;
    let applied = store.migrate().await;
    store.close().await;
    Ok(Answer::good(match applied? {
        0 => "nothing to apply: every migration of this version is there\n".to_owned(),
        1 => "applied 1 migration\n".to_owned(),
        several => format!("applied {several} migrations\n"),
    }))
}
