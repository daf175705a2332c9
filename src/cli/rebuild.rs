//! `rebuild --check`: whether the state of every delivery is what its evidence says.
//!
//! Lives here: evidence → state once more, and what is compared. Does not: the merge rule, which is
//! [`Delivery::merge`]'s.

use std::{collections::BTreeMap, fmt};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Answer, progress};
use crate::{
    answers,
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, Source, Status},
    event::{Arrival, Meaning},
    proof::Proof,
    settings::Settings,
    store::{
        Evidence, Store, StoreError, open,
        query::{ListDeliveries, ListEvents, PageSize},
        unreadable::UnreadableRow,
    },
    watch,
};

/// Deliveries that are read at one time.
const PAGE: u16 = 500;

/// Deliveries whose evidence is read at one time.
const AT_ONCE: usize = 8;

/// A delivery that changes while it is looked at is looked at again, so often.
const LOOKS: usize = 5;

/// What to do.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only look, and say what differs. Nothing else is there as yet: no event leaves a state that differs.
    #[arg(long, required = true)]
    check: bool,
    /// Only deliveries created at or after this time, such as 2026-05-26T00:00:00Z.
    #[arg(long, value_parser = Timestamp::parse)]
    from: Option<Timestamp>,
    /// And before this time.
    #[arg(long, value_parser = Timestamp::parse)]
    to: Option<Timestamp>,
}

/// What a look at all deliveries has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Deliveries looked at.
    pub deliveries: u64,
    /// Their events.
    pub events: u64,
    /// Those whose state is not what their evidence says, and in which fields.
    pub differing: BTreeMap<DeliveryId, Vec<&'static str>>,
    /// Rows that cannot be read.
    pub unreadable: Vec<UnreadableRow>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, fields) in &self.differing {
            writeln!(f, "{}  differs in {}", id.as_str().escape_debug(), fields.join(", "))?;
        }
        let Self { deliveries, events, differing, unreadable } = self;
        for row in unreadable {
            writeln!(f, "{row}")?;
        }
        write!(f, "looked at {deliveries} deliveries and {events} events: ")?;
        match differing.len() {
            0 => f.write_str("each state is what its evidence says")?,
            some => write!(f, "{some} states are not what their evidence says")?,
        }
        match unreadable.len() {
            0 => Ok(()),
            some => write!(f, ", {some} rows cannot be read"),
        }
    }
}

/// Looks at every delivery of a range; right also while events arrive. `looked` is called after each.
///
/// # Errors
/// [`StoreError`].
pub async fn check(
    store: &dyn Store,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    looked: impl Fn(),
) -> Result<Checked, StoreError> {
    let size = PageSize::new(PAGE).expect("it is a page's size");
    let mut question = ListDeliveries { from, to, size, ..ListDeliveries::default() };
    let mut checked = Checked::default();
    loop {
        let page = store.deliveries(&question).await?;
        let next = page.after()?;
        checked.unreadable.extend(page.unreadable);
        let looks = page.entries.into_iter().map(|delivery| look(store, delivery));
        let mut found = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some(look) = found.try_next().await? {
            checked.deliveries += 1;
            checked.events += look.events;
            checked.unreadable.extend(look.unreadable);
            if !look.fields.is_empty() {
                checked.differing.insert(look.id, look.fields);
            }
            looked();
        }
        let Some(next) = next else { break };
        question.after = Some(next);
    }
    if from.is_none() || to.is_none() {
        checked.unreadable.extend(store.unlisted().await?);
    }
    Ok(checked)
}

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.differing.is_empty() && self.unreadable.is_empty()
    }
}

/// What a look at one delivery has found.
struct Look {
    id: DeliveryId,
    /// How many events it has that can be read.
    events: u64,
    unreadable: Vec<UnreadableRow>,
    /// The fields in which it is not what its events say, if all of them can be read.
    fields: Vec<&'static str>,
}

/// Holds a delivery against its events.
async fn look(store: &dyn Store, mut delivery: Delivery) -> Result<Look, StoreError> {
    let mut look = Look { id: delivery.id.clone(), events: 0, unreadable: Vec::new(), fields: Vec::new() };
    for _ in 0..LOOKS {
        let told = merge_all(store, &look.id).await?;
        look.events = told.events;
        if !told.unreadable.is_empty() {
            look.unreadable = told.unreadable;
            look.fields = Vec::new();
            break;
        }
        look.fields = match told.merged {
            None => vec!["evidence"],
            Some(merged) => differing(&delivery, &merged),
        };
        if look.fields.is_empty() {
            break;
        }
        // It may have changed since it was read.
        delivery = match store.delivery(&look.id).await {
            Ok(found) => found.unwrap_or(delivery),
            Err(StoreError::Unreadable(row)) => {
                look.unreadable.push(row);
                look.fields = Vec::new();
                break;
            }
            Err(error) => return Err(error),
        };
    }
    Ok(look)
}

/// What the events of a delivery say together.
#[derive(Default)]
struct Told {
    events: u64,
    unreadable: Vec<UnreadableRow>,
    merged: Option<Delivery>,
}

/// Merges the events of a delivery, page by page.
async fn merge_all(store: &dyn Store, id: &DeliveryId) -> Result<Told, StoreError> {
    let mut question = ListEvents::of(id.clone());
    let mut told = Told::default();
    loop {
        let page = store.list_events(&question).await?;
        question.after = page.after()?;
        told.events += page.entries.len() as u64;
        told.unreadable.extend(page.unreadable);
        let states = page.entries.into_iter().filter_map(|evidence| read_again(id, evidence));
        told.merged = told.merged.take().into_iter().chain(states).reduce(Delivery::merge);
        if question.after.is_none() {
            return Ok(told);
        }
    }
}

/// The state that an event tells; `None` for bytes that this version does not understand.
fn read_again(id: &DeliveryId, evidence: Evidence) -> Option<Delivery> {
    let Evidence { proof, kind, received_at, .. } = evidence;
    let arrival = match proof {
        Proof::Signed(verified) => Arrival::understand(verified, received_at),
        Proof::Unsigned(_) => {
            let body = proof.body().clone();
            match kind.as_str() {
                "watch" => watch::watched(id.clone(), body, received_at).ok()?,
                "poll" => answers::polled(id, body, received_at).ok()?,
                "send" => answers::sent_again(body, received_at)?,
                _ => return None,
            }
        }
    };
    match arrival.meaning {
        Meaning::Event(event, _) => Some(event.told),
        Meaning::NotUnderstood(..) => None,
    }
}

fn differing(known: &Delivery, merged: &Delivery) -> Vec<&'static str> {
    // The answer to a send does not say whom it was sent to: the request did.
    let sent_by_us = known.source == Source::Send && known.status == Status::Sent && merged.phone.is_none();
    let fields = [
        ("phone", known.phone == merged.phone || sent_by_us),
        ("carrier", known.carrier == merged.carrier),
        ("status", known.status == merged.status),
        ("cost", known.cost == merged.cost),
        ("error_code", known.error_code == merged.error_code),
        ("created_at", known.created_at == merged.created_at),
        ("completed_at", known.completed_at == merged.completed_at),
        ("received_at", known.received_at == merged.received_at),
        ("source", known.source == merged.source),
        ("standing", known.standing == merged.standing),
    ];
    fields.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// Checks the configured store; the exit code is 0 when nothing differs.
pub(super) async fn run(args: &Args, settings: &Settings) -> anyhow::Result<Answer> {
    let store = open::open_existing(&settings.location).await?;
    let checked = async {
        let (from, to) = (args.from.unwrap_or(Timestamp::EARLIEST), args.to.unwrap_or_else(Timestamp::now));
        let bar = progress::over(&*store, from, to, "looked at").await?;
        let checked = check(&*store, args.from, args.to, || bar.inc(1)).await;
        bar.finish_and_clear();
        anyhow::Ok(checked?)
    };
    let checked = checked.await;
    store.close().await;
    let checked = checked?;
    let text = format!("{checked}\n");
    Ok(if checked.is_good() { Answer::good(text) } else { Answer::bad(text) })
}
