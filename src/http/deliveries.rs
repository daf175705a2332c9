//! `GET /deliveries`, `/deliveries/{id}` and `/deliveries/{id}/events`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use serde::{Serialize, Serializer};

use super::{
    answer::{Answer, ShownBytes, shown},
    parameters::{self, PathId},
    refusal::Refusal,
};
use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, Source, Status},
    money::Money,
    phone::Phone,
    store::{Evidence, Store},
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
}

/// Whoever asks has a token.
fn reveal<S: Serializer>(phone: &Option<Phone>, serializer: S) -> Result<S::Ok, S::Error> {
    phone.as_ref().map(Phone::reveal).serialize(serializer)
}

impl From<Delivery> for ShownDelivery {
    fn from(it: Delivery) -> Self {
        Self {
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
    r#type: String,
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
            r#type: it.kind,
            status: it.status,
            source: it.source,
            bytes: ShownBytes(it.proof),
            times: it.times,
        }
    }
}

/// All events of a delivery.
#[derive(Serialize)]
pub(crate) struct ShownEvents {
    events: Vec<ShownEvent>,
}

/// `GET /deliveries/{id}`: the present state of one.
pub(crate) async fn one(
    State(store): State<Arc<dyn Store>>,
    RawQuery(query): RawQuery,
    PathId(id): PathId,
) -> Result<Answer<ShownDelivery>, Refusal> {
    parameters::none(query.as_deref())?;
    let found = store.delivery(&id).await?;
    let found = found.ok_or(Refusal::NotFound("no delivery with this id is known, or not yet"))?;
    Ok(Answer::new(found.into()))
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
    parameters::none(query.as_deref())?;
    let events: Vec<_> = store.events(&id).await?.into_iter().map(ShownEvent::from).collect();
    if events.is_empty() {
        return Err(Refusal::NotFound("no event with this id has come, or not yet"));
    }
    Ok(Answer::new(ShownEvents { events }))
}
