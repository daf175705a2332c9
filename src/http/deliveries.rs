//! `GET /deliveries`, `/deliveries/{id}` and `/deliveries/{id}/events`.

use std::{sync::Arc, time::Duration};

use axum::extract::{RawQuery, State};
use serde::{Serialize, Serializer};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::{Answer, ShownBytes, shown},
    parameters::{self, PathId},
    refusal::Refusal,
};
use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, Source, Status},
    metrics::{Counted, Metrics},
    money::Money,
    phone::Phone,
    store::{Evidence, Store},
    waiting::Waiters,
};

/// A delivery, in the provider's fields and order, and what we know beside.
#[derive(Serialize)]
pub(crate) struct ShownDelivery {
    id: DeliveryId,
    #[serde(serialize_with = "reveal")]
    phone: Option<Phone>,
    carrier: Option<String>,
    status: Status,
    cost: Option<Money>,
    error_code: Option<String>,
    created_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    received_at: Timestamp,
    source: Source,
    /// Shown where it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

/// Whoever asks has a token.
fn reveal<S: Serializer>(phone: &Option<Phone>, serializer: S) -> Result<S::Ok, S::Error> {
    phone.as_ref().map(Phone::reveal).serialize(serializer)
}

impl From<Delivery> for ShownDelivery {
    fn from(it: Delivery) -> Self {
        Self {
            stale: it.is_stale(Timestamp::now()),
            id: it.id,
            phone: it.phone,
            carrier: it.carrier,
            status: it.status,
            cost: it.cost,
            error_code: it.error_code,
            created_at: it.created_at,
            completed_at: it.completed_at,
            received_at: it.received_at,
            source: it.source,
        }
    }
}

/// A page of deliveries.
#[derive(Serialize)]
pub(crate) struct ShownDeliveries {
    deliveries: Vec<ShownDelivery>,
    next_cursor: Option<String>,
}

/// An event.
#[derive(Serialize)]
struct ShownEvent {
    received_at: Timestamp,
    r#type: Option<String>,
    status: Status,
    source: Source,
    #[serde(flatten)]
    bytes: ShownBytes,
    times: u64,
}

impl From<Evidence> for ShownEvent {
    fn from(it: Evidence) -> Self {
        Self {
            received_at: it.received_at,
            r#type: Some(it.kind).filter(|kind| !kind.is_empty()),
            status: it.status,
            source: it.source,
            bytes: ShownBytes(it.proof),
            times: it.times,
        }
    }
}

/// A page of a delivery's events.
#[derive(Serialize)]
pub(crate) struct ShownEvents {
    events: Vec<ShownEvent>,
    next_cursor: Option<String>,
}

/// What one delivery is answered from.
#[derive(Clone)]
pub(crate) struct Lookup {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) metrics: Arc<Metrics>,
}

/// `GET /deliveries/{id}`: the present state of one, once it is settled or the time to wait is up.
pub(crate) async fn one(
    State(lookup): State<Lookup>,
    RawQuery(query): RawQuery,
    PathId(id): PathId,
) -> Result<Answer<ShownDelivery>, Refusal> {
    let found = match parameters::wait(query.as_deref())? {
        None => lookup.store.delivery(&id).await?,
        Some(time) => lookup.wait(&id, time).await?,
    };
    let found = found.ok_or(Refusal::NotFound("no delivery with this id is known, or not yet"))?;
    Ok(Answer::new(found.into()))
}

impl Lookup {
    async fn wait(&self, id: &DeliveryId, time: Duration) -> Result<Option<Delivery>, Refusal> {
        let deadline = Instant::now() + time;
        let _counted = Counted::in_gauge(&self.metrics.waiters);
        // First: what is settled after the store was read wakes it.
        let mut waiter = self.waiters.begin(id.clone());
        loop {
            let found = self.store.delivery(id).await?;
            if found.as_ref().is_some_and(|found| found.status.is_terminal()) {
                return Ok(found);
            }
            if !timeout_at(deadline, waiter.woken()).await.unwrap_or(false) {
                // Not settled, but it may have been sent meanwhile.
                return Ok(self.store.delivery(id).await?);
            }
        }
    }
}

/// `GET /deliveries`: a page of them, newest first.
pub(crate) async fn list(
    State(store): State<Arc<dyn Store>>,
    RawQuery(query): RawQuery,
) -> Result<Answer<ShownDeliveries>, Refusal> {
    let question = parameters::list_deliveries(query.as_deref())?;
    let (deliveries, next_cursor) = shown(store.deliveries(&question).await?);
    Ok(Answer::new(ShownDeliveries { deliveries, next_cursor }))
}

/// `GET /deliveries/{id}/events`: the evidence, oldest first.
pub(crate) async fn events(
    State(store): State<Arc<dyn Store>>,
    RawQuery(query): RawQuery,
    PathId(id): PathId,
) -> Result<Answer<ShownEvents>, Refusal> {
    let question = parameters::list_events(query.as_deref(), id)?;
    let page = store.list_events(&question).await?;
    // A page may be empty where others follow, or went before.
    if page.entries.is_empty() && page.next.is_none() && question.after.is_none() {
        return Err(match page.unreadable.first() {
            Some(row) => Refusal::Unreadable(row.to_string()),
            None => Refusal::NotFound("no event with this id has come, or not yet"),
        });
    }
    let (events, next_cursor) = shown(page);
    Ok(Answer::new(ShownEvents { events, next_cursor }))
}
