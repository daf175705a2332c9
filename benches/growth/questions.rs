//! Each question that the API asks of a store, many times: how long it takes, and the last one's plan.

use std::time::{Duration, Instant};

use nexo_receiver::{
    clock::Timestamp,
    delivery::{DeliveryId, Status},
    phone::Phone,
    store::query::{Cursor, GroupBy, ListDeliveries, ListEvents, PageSize, Question, RawId, StatsQuestion},
};

use crate::{
    filled::{DAY, Filled, LAST_DAY},
    place::Place,
};

const TIMES: usize = 500;

/// What the slowest hundredth may take.
const GOAL: Duration = Duration::from_millis(5);
const GOAL_OF_STATS: Duration = Duration::from_millis(200);

pub(crate) async fn ask_all(place: &Place, filled: &Filled) {
    ask(place, "one delivery", GOAL, || Asked::Delivery(filled.some_id())).await;
    ask(place, "one unknown delivery", GOAL, || Asked::Delivery(unknown_id())).await;
    ask(place, "events", GOAL, || Asked::Events(ListEvents::of(filled.some_id()))).await;
    for (name, question) in lists() {
        ask(place, name, GOAL, || Asked::Deliveries(question(filled))).await;
    }
    for by in [None, Some(GroupBy::Carrier), Some(GroupBy::ErrorCode), Some(GroupBy::Hour)] {
        let (day, hours) = (stats(by), || any_24_hours(filled, by));
        ask(place, &format!("statistics of a day, by {by:?}"), GOAL_OF_STATS, || day.clone()).await;
        ask(place, &format!("statistics of any 24 hours, by {by:?}"), GOAL_OF_STATS, hours).await;
    }
}

/// A question that owns what it asks for.
#[derive(Clone)]
enum Asked {
    Delivery(DeliveryId),
    Events(ListEvents),
    Deliveries(ListDeliveries),
    Stats(StatsQuestion),
}

impl Asked {
    fn question(&self) -> Question<'_> {
        match self {
            Self::Delivery(id) => Question::Delivery(id),
            Self::Events(question) => Question::Events(question),
            Self::Deliveries(question) => Question::Deliveries(question),
            Self::Stats(question) => Question::Stats(question),
        }
    }

    /// How many it finds.
    async fn ask(&self, place: &Place) -> u64 {
        let store = place.store();
        let count = |length: usize| u64::try_from(length).unwrap();
        match self {
            Self::Delivery(id) => count(store.delivery(id).await.unwrap().into_iter().count()),
            Self::Events(question) => count(store.list_events(question).await.unwrap().entries.len()),
            Self::Deliveries(question) => count(store.deliveries(question).await.unwrap().entries.len()),
            Self::Stats(question) => {
                let stats = store.stats(question).await.unwrap();
                stats.total.sent + stats.total.delivered + stats.total.failed
            }
        }
    }
}

async fn ask(place: &Place, name: &str, goal: Duration, make: impl Fn() -> Asked) {
    let times = if goal == GOAL { TIMES } else { TIMES / 5 };
    let (mut took, mut found) = (Vec::with_capacity(times), 0);
    for _ in 0..times {
        let asked = make();
        let begun = Instant::now();
        found = asked.ask(place).await;
        took.push(begun.elapsed());
    }
    took.sort();
    let percentile = |percent: usize| took[(times * percent).div_ceil(100) - 1];
    let (p50, p99, longest) = (percentile(50), percentile(99), percentile(100));
    let verdict = if p99 <= goal { "" } else { " MISSES THE GOAL OF " };
    let goal = if p99 <= goal { String::new() } else { format!("{goal:?}") };
    println!("\n{name}: p50 {p50:.2?}, p99 {p99:.2?}, longest {longest:.2?}; {found} found{verdict}{goal}");
    for line in place.explain(make().question()).await {
        println!("    {line}");
    }
}

fn stats(by: Option<GroupBy>) -> Asked {
    let from = Timestamp::parse(LAST_DAY).unwrap();
    let to = Timestamp::from_micros(from.micros() + DAY).unwrap();
    Asked::Stats(StatsQuestion { from, to, by })
}

/// Not of whole hours, so that the rest of two has to be counted.
fn any_24_hours(filled: &Filled, by: Option<GroupBy>) -> Asked {
    let to = filled.some_time();
    let from = Timestamp::from_micros(to.micros() - DAY).unwrap();
    Asked::Stats(StatsQuestion { from, to, by })
}

fn unknown_id() -> DeliveryId {
    DeliveryId::parse(uuid::Uuid::new_v4().to_string()).unwrap()
}

type Listed = (&'static str, fn(&Filled) -> ListDeliveries);

/// First pages, each filter and such pairs of them as an index alone does not answer.
fn lists() -> Vec<Listed> {
    vec![
        ("no filter", |_| all()),
        ("500 of them", |_| ListDeliveries { size: PageSize::new(500).unwrap(), ..all() }),
        ("a deep page", |filled| {
            let after =
                Cursor { time: filled.some_time(), key: RawId::new(filled.some_id().as_str().as_bytes()) };
            ListDeliveries { after: Some(after), ..all() }
        }),
        ("from and to", |filled| {
            let from = filled.some_time();
            let to = Timestamp::from_micros(from.micros() + DAY / 10).ok();
            ListDeliveries { from: Some(from), to, ..all() }
        }),
        ("phone", |filled| ListDeliveries { phone: Some(filled.some_phone()), ..all() }),
        ("unknown phone", |_| {
            let phone = format!("+8499{:07}", fastrand::u32(..10_000_000));
            ListDeliveries { phone: Phone::parse(&phone).ok(), ..all() }
        }),
        ("status delivered", |_| ListDeliveries { status: Some(Status::Delivered), ..all() }),
        ("status sent (20)", |_| ListDeliveries { status: Some(Status::Sent), ..all() }),
        ("carrier", |_| carrier("viettel")),
        ("rare carrier (3)", |_| carrier("rare")),
        ("unknown carrier", |_| carrier("unknown")),
        ("error code", |_| error_code("busy")),
        ("rare error code (3)", |_| error_code("rare")),
        ("unknown error code", |_| error_code("unknown")),
        ("carrier, sent (5)", |_| ListDeliveries { status: Some(Status::Sent), ..carrier("viettel") }),
        ("carrier, error code", |_| ListDeliveries {
            carrier: carrier("viettel").carrier,
            ..error_code("busy")
        }),
        ("unknown carrier, error code", |_| ListDeliveries {
            carrier: carrier("unknown").carrier,
            ..error_code("busy")
        }),
        ("failed, error code", |_| ListDeliveries { status: Some(Status::Failed), ..error_code("busy") }),
        ("sent, error code (0)", |_| ListDeliveries { status: Some(Status::Sent), ..error_code("busy") }),
    ]
}

fn all() -> ListDeliveries {
    ListDeliveries::default()
}

fn carrier(name: &str) -> ListDeliveries {
    ListDeliveries { carrier: Some(name.into()), ..all() }
}

fn error_code(code: &str) -> ListDeliveries {
    ListDeliveries { error_code: Some(code.into()), ..all() }
}
