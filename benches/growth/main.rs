//! What commits and questions cost when there are ten million deliveries, and how the database goes about them.
//!
//!     cargo bench --bench growth -- postgres://…/an_empty_database [ROWS] [fine]
//!     cargo bench --bench growth -- an/empty/folder [ROWS] [fine]
//!
//! Fills a store, a million deliveries for each day, and sums up their hours; commits new events to it and, in turn,
//! to an empty one beside it; then asks each question five hundred times, each time of other ids, phones and times
//! where it has any. With `fine` the durations are to the microsecond, else to the second. On a store that is filled
//! already it goes on with the commits.
//!
//! Beside it: on Postgres a database of the same name and `_empty`, on SQLite a folder likewise, both made here and
//! removed.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a command that prints, and stops at what goes wrong"
)]

mod filled;
mod ingest;
mod place;
mod questions;

use std::time::Instant;

use nexo_receiver::{
    clock::Timestamp,
    store::{Store, hours::Due},
};

use filled::Filled;
use place::Place;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let at = arguments.next().expect("a Postgres' URL or a folder");
    let rows = arguments.next().map_or(10_000_000, |rows| rows.parse().unwrap());
    let filled = Filled { rows, fine: arguments.next().is_some_and(|fine| fine == "fine") };
    let place = Place::open(&at).await;
    if place.store().migrate().await.unwrap() > 0 {
        let begun = Instant::now();
        place.fill(&filled).await;
        println!("{rows} deliveries filled in {:?}", begun.elapsed());
        sum_up(place.store()).await;
    }
    ingest::compare(&place, &filled).await;
    questions::ask_all(&place, &filled).await;
}

/// Sums up every hour that is over, as the service does in the background.
async fn sum_up(store: &dyn Store) {
    let (begun, mut hours) = (Instant::now(), 0);
    let mut due = Due::at(Timestamp::now(), Timestamp::EARLIEST);
    while let Some(hour) = store.sum_up(&due).await.unwrap() {
        due = due.after(hour);
        hours += 1;
    }
    println!("{hours} hours summed up in {:?}", begun.elapsed());
}
