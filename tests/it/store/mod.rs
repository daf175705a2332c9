//! The suite that every store passes, straight at the trait.

mod changes;
mod custody;
mod hours;
mod lists;
mod merging;
mod polls;
mod postgres;
mod quarantine;
mod releases;
mod schema;
mod sends;
mod sqlite;
mod statistics;
mod trouble;

use nexo_receiver::{
    batch::{Batch, Outcome},
    clock::Timestamp,
    delivery::{Delivery, DeliveryId},
    event::{Arrival, Meaning, NotUnderstood},
    proof::Proof,
    secret::Secret,
    store::Store,
};
use serde_json::{Value, json};

use crate::support::provider::verified;

/// What an event says; empty texts are null.
#[derive(Clone, Copy)]
struct Told<'a> {
    id: &'a str,
    phone: &'a str,
    carrier: &'a str,
    status: &'a str,
    cost: &'a str,
    error_code: &'a str,
    created_at: &'a str,
    completed_at: &'a str,
}

const DELIVERED: Told<'static> = Told {
    id: "a",
    phone: "+84981234567",
    carrier: "viettel",
    status: "delivered",
    cost: "0.022",
    error_code: "",
    created_at: "2026-05-26T10:00:00Z",
    completed_at: "2026-05-26T10:00:25Z",
};

const FAILED: Told<'static> = Told {
    status: "failed",
    cost: "0",
    error_code: "no_answer",
    completed_at: "2026-05-26T10:00:40Z",
    ..DELIVERED
};

const SENT: Told<'static> = Told { status: "sent", completed_at: "", ..DELIVERED };

impl Told<'_> {
    fn body(&self) -> String {
        let maybe = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let body = json!({
            "type": format!("otp.{}", self.status), "id": self.id, "phone": self.phone, "carrier": self.carrier,
            "status": self.status, "cost": "COST", "error_code": maybe(self.error_code),
            "created_at": maybe(self.created_at), "completed_at": maybe(self.completed_at),
        });
        // A number keeps its digits only as text.
        body.to_string().replace("\"COST\"", self.cost)
    }

    /// Received so many seconds after the delivery of [`DELIVERED`] was completed.
    fn received(&self, seconds: i64) -> Arrival {
        arrival(self.body().as_bytes(), seconds)
    }
}

const SECRET: &str = "whsec-test";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn id(text: &str) -> DeliveryId {
    DeliveryId::parse(text.to_owned()).unwrap()
}

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_micros(at(DELIVERED.completed_at).micros() + seconds * 1_000_000).unwrap()
}

fn arrival(body: &[u8], seconds: i64) -> Arrival {
    arrival_under(SECRET, body, seconds)
}

fn arrival_under(key: &str, body: &[u8], seconds: i64) -> Arrival {
    Arrival::understand(verified(key, body), after(seconds))
}

/// The same bytes as quarantine has them after the database refused the event that they are.
fn refused_by_store(arrival: Arrival) -> Arrival {
    let Meaning::Event(_, Proof::Signed(verified)) = arrival.meaning else { panic!("no signed event") };
    let reason = NotUnderstood::RefusedByStore { delivery: "a".into(), why: "SQLSTATE 23514".into() };
    Arrival { meaning: Meaning::NotUnderstood(reason, verified), ..arrival }
}

fn folded(arrivals: Vec<Arrival>) -> Batch {
    Batch::fold(arrivals).0
}

/// Commits a batch; what became of each arrival.
async fn keep(store: &dyn Store, arrivals: Vec<Arrival>) -> Vec<Outcome> {
    let (batch, places) = Batch::fold(arrivals);
    let kept = store.commit(&batch).await.unwrap();
    let (events, quarantine) = kept.split_at(batch.events.len());
    places.answers(events, quarantine).into_iter().map(Result::unwrap).collect()
}

async fn delivery(store: &dyn Store, of: &str) -> Delivery {
    store.delivery(&id(of)).await.unwrap().expect("the delivery is known")
}
