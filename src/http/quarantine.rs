//! `GET /quarantine`: what was verified and not understood.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use serde::Serialize;

use super::{
    answer::{Answer, ShownBytes, shown},
    parameters,
    refusal::Refusal,
};
use crate::{
    clock::Timestamp,
    proof::Proof,
    store::{Quarantined, Store},
};

/// A verified body that was not understood.
#[derive(Serialize)]
struct ShownQuarantined {
    received_at: Timestamp,
    reason: String,
    detail: String,
    #[serde(flatten)]
    bytes: ShownBytes,
    times: u64,
}

impl From<Quarantined> for ShownQuarantined {
    fn from(it: Quarantined) -> Self {
        Self {
            received_at: it.received_at,
            reason: it.reason,
            detail: it.detail,
            bytes: ShownBytes(Proof::Signed(it.verified)),
            times: it.times,
        }
    }
}

/// A page of them.
#[derive(Serialize)]
pub(crate) struct ShownQuarantine {
    quarantine: Vec<ShownQuarantined>,
    next_cursor: Option<String>,
}

/// `GET /quarantine`: a page, newest first.
pub(crate) async fn list(
    State(store): State<Arc<dyn Store>>,
    RawQuery(query): RawQuery,
) -> Result<Answer<ShownQuarantine>, Refusal> {
    let question = parameters::list_quarantine(query.as_deref())?;
    let (quarantine, next_cursor) = shown(store.quarantine(&question).await?);
    Ok(Answer::new(ShownQuarantine { quarantine, next_cursor }))
}
