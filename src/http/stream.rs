//! `GET /deliveries/stream`: every change as a server-sent event.
//!
//! Lives here: the events' form, where a stream begins, what is sent when nothing changes. Does not: reading changes
//! (`feed`).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    response::{
        IntoResponse as _, Response,
        sse::{Event, Sse},
    },
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::{Instant, timeout_at};

use super::{deliveries::ShownDelivery, parameters, refusal::Refusal};
use crate::{
    feed::{Ended, Feed, Follower},
    metrics::{Counted, Gauge, Metrics},
    store::{changes::Position, query::ListDeliveries},
};

/// Where a reader has been cut off, as browsers send it.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// After so long without an event something is sent all the same, so that a dead connection is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// After how long a reader that was cut off comes back, unless it knows better.
const COME_BACK: Duration = Duration::from_secs(1);

/// What streams are made from.
#[derive(Clone)]
pub(super) struct Streams {
    /// `None` where commits do not note what they change.
    pub(super) feed: Option<Arc<Feed>>,
    pub(super) metrics: Arc<Metrics>,
}

/// Follows, from now on or from where the reader was cut off.
pub(super) async fn follow(
    State(Streams { feed, metrics }): State<Streams>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let feed = feed.ok_or(Refusal::NoChanges)?;
    let (followed, given) = parameters::stream(query.as_deref())?;
    let after = match headers.get(LAST_EVENT_ID) {
        Some(id) => Some(last_event_id(id)?),
        None => given,
    };
    let follower = feed.follow(after).await?.ok_or(Refusal::ChangesExpired)?;
    let first = Event::default().id(follower.position().to_string()).retry(COME_BACK);
    let told = follower.position();
    let _open = Counted::in_gauge(metrics.streams.clone());
    let reader = Reader { follower, followed, told, metrics, _open };
    let events = stream::unfold(reader, |mut reader| async { Some((reader.next().await?, reader)) });
    let events = stream::iter([first]).chain(events).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).into_response();
    // Proxies would gather events before they pass them on.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn last_event_id(id: &HeaderValue) -> Result<Position, Refusal> {
    let text = id.to_str().unwrap_or_default().trim();
    text.parse().map_err(|error| Refusal::InvalidParameter(format!("the header `Last-Event-ID` is {error}")))
}

/// Who reads a stream.
struct Reader {
    follower: Follower,
    followed: ListDeliveries,
    /// The last position that it was told.
    told: Position,
    metrics: Arc<Metrics>,
    _open: Counted<Gauge>,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            match timeout_at(heartbeat, self.follower.next()).await {
                Ok(Ok(change)) if self.followed.matches(change) => {
                    self.told = change.position;
                    let data = serde_json::to_string(&ShownDelivery::from(change.delivery.clone()))
                        .expect("a delivery is texts and numbers, which all have JSON");
                    return Some(Event::default().event("delivery").id(self.told.to_string()).data(data));
                }
                Ok(Ok(_)) => continue,
                Ok(Err(ended)) => {
                    self.ended(&ended);
                    return None;
                }
                Err(_) => {}
            }
            if self.told == self.follower.position() {
                return Some(Event::default().comment(""));
            }
            // Moves the reader on past what it does not follow.
            self.told = self.follower.position();
            return Some(Event::default().id(self.told.to_string()));
        }
    }

    fn ended(&self, ended: &Ended) {
        match ended {
            Ended::NotKept => {
                self.metrics.streams_cut_off.inc();
                tracing::debug!("a stream is cut off: what comes next is no longer kept");
            }
            Ended::Stopped => {}
            Ended::Store(error) => tracing::debug!(%error, "a stream is cut off"),
        }
    }
}
