//! `PUT /deliveries/{id}`: a caller tells of an OTP that it has sent by itself.
//!
//! Lives here: the body's limits, the wait for the commit. Does not: what may stand in the body (`crate::watch`), what
//! it counts for (`delivery`).

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::{RawQuery, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::{
    Options,
    answer::{Answer, closing, text},
    deliveries::ShownDelivery,
    parameters::{self, PathId},
    refusal::Refusal,
};
use crate::{clock::Timestamp, event::Arrival, store::Store, watch::watched, writer::Writer};

/// Where what callers tell is taken in.
#[derive(Clone)]
pub(super) struct Desk {
    store: Arc<dyn Store>,
    writer: Writer,
    body_bytes: usize,
    body_timeout: Duration,
    answer_timeout: Duration,
}

impl Desk {
    pub(super) fn new(store: Arc<dyn Store>, writer: Writer, options: &Options) -> Self {
        let Options { body_bytes, body_timeout, answer_timeout, .. } = *options;
        Self { store, writer, body_bytes, body_timeout, answer_timeout }
    }

    async fn read(&self, body: Body) -> Result<Bytes, Response> {
        let too_large = || closing(Refusal::BodyTooLarge(self.body_bytes).into_response());
        // What the head announces, if it does.
        if body.size_hint().lower() > self.body_bytes as u64 {
            return Err(too_large());
        }
        match timeout(self.body_timeout, Limited::new(body, self.body_bytes).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => {
                Err(closing(Refusal::InvalidBody("the body was broken off".into()).into_response()))
            }
            Err(_) => Err(closing(text(StatusCode::REQUEST_TIMEOUT, "request body came too late"))),
        }
    }

    /// Returns once it is committed.
    async fn keep(&self, arrival: Arrival) -> Result<(), Refusal> {
        let answer = self.writer.submit(arrival).map_err(|_| Refusal::StoreUnavailable)?;
        match timeout(self.answer_timeout, answer).await {
            Ok(Ok(Ok(_))) => Ok(()),
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
    let body = desk.read(request.into_body()).await?;
    let kept = async {
        let arrival = watched(id.clone(), body, Timestamp::now())
            .map_err(|problem| Refusal::InvalidBody(problem.to_string()))?;
        desk.keep(arrival).await?;
        desk.store.delivery(&id).await?.ok_or(Refusal::Internal)
    };
    kept.await.map(|delivery| Answer::new(delivery.into())).map_err(Refusal::into_response)
}
