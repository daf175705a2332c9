//! `PUT /deliveries/{id}`: a caller tells of an OTP that it has sent by itself.
//!
//! Lives here: the wait for the commit. Does not: what may stand in the body (`crate::watch`), what
//! it counts for (`delivery`).

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, Request, State},
    response::{IntoResponse as _, Response},
};
use tokio::time::timeout;

use super::{
    Options,
    answer::Answer,
    body::BodyLimits,
    deliveries::ShownDelivery,
    parameters::{self, PathId},
    refusal::Refusal,
};
use crate::{
    clock::Timestamp,
    event::Arrival,
    store::Store,
    watch::watched,
    writer::{NotKept, Writer},
};

/// Where what callers tell is taken in.
#[derive(Clone)]
pub(super) struct Desk {
    store: Arc<dyn Store>,
    writer: Writer,
    limits: BodyLimits,
    answer_timeout: Duration,
}

impl Desk {
    pub(super) fn new(store: Arc<dyn Store>, writer: Writer, limits: BodyLimits, options: &Options) -> Self {
        Self { store, writer, limits, answer_timeout: options.answer_timeout }
    }

    /// Returns once it is committed.
    async fn keep(&self, arrival: Arrival) -> Result<(), Refusal> {
        let answer = self.writer.submit(arrival).map_err(|_| Refusal::StoreUnavailable)?;
        match timeout(self.answer_timeout, answer).await {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(NotKept::Contended))) => Err(Refusal::DeliveryLocked),
            Ok(Ok(Err(NotKept::Refused(why)))) => Err(Refusal::RefusedByStore(why.to_string())),
            _ => Err(Refusal::StoreUnavailable),
        }
    }
}

/// Keeps what is told, and answers the delivery as it then stands.
pub(super) async fn watch(
    State(desk): State<Desk>,
    RawQuery(query): RawQuery,
    PathId(id): PathId,
    request: Request,
) -> Result<Answer<ShownDelivery>, Response> {
    parameters::none(query.as_deref()).map_err(Refusal::into_response)?;
    let body = desk.limits.read(request.into_body()).await?;
    let kept = async {
        let arrival = watched(id.clone(), body, Timestamp::now())
            .map_err(|problem| Refusal::InvalidBody(problem.to_string()))?;
        desk.keep(arrival).await?;
        desk.store.delivery(&id).await?.ok_or(Refusal::Internal)
    };
    kept.await.map(|delivery| Answer::new(delivery.into())).map_err(Refusal::into_response)
}
