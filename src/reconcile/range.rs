//! A range of deliveries held against the provider's account of them, at once.
//!
//! Lives here: what of each is compared, and kept. Does not: printing it (`cli::reconcile`).

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    answers::{self, InvalidAnswer},
    batch::Batch,
    clock::Timestamp,
    delivery::{Delivery, DeliveryId},
    money::{Money, Sum},
    provider::{CallError, Provider, Refusal},
    store::{
        Store, StoreError,
        query::{ListDeliveries, PageSize},
        unreadable::UnreadableRow,
    },
};

/// Deliveries that are read at one time.
const PAGE: u16 = 500;

/// Which deliveries, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Listed at or after this time.
    pub from: Timestamp,
    /// And before this time.
    pub to: Timestamp,
    /// From one call to the next.
    pub pace: Duration,
}

/// How one delivery differs from what the provider says of it.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What was known.
    pub known: Delivery,
    /// What the provider says.
    pub told: Delivery,
}

/// What became of a range.
#[derive(Debug, Clone, Default)]
pub struct Reconciled {
    /// Deliveries asked for.
    pub asked: u64,
    /// Those that differed, and were told so by the provider; it is kept.
    pub differences: Vec<Difference>,
    /// Those that the provider does not know.
    pub unknown: Vec<DeliveryId>,
    /// Those whose answer could not be read, and why.
    pub unread: Vec<(DeliveryId, InvalidAnswer)>,
    /// Those that were not asked for, since their rows cannot be read.
    pub unreadable: Vec<UnreadableRow>,
    /// What all together cost by what was known.
    pub told_cost: Sum,
    /// What they cost by what the provider says now.
    pub charged_cost: Sum,
}

/// Why a range was not reconciled to its end.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The provider.
    #[error(transparent)]
    Provider(#[from] CallError),
    /// Costs beyond all reason.
    #[error("costs that are more than a sum can hold")]
    Sum,
}

/// Asks the provider for each delivery of a range, newest first, and keeps what differs as any other event; harmless
/// beside running services, and when it is done twice. `asked` is called after each.
///
/// # Errors
/// [`RangeError`]; what was kept before stays.
pub async fn reconcile(
    store: &dyn Store,
    provider: &Provider,
    range: Range,
    mut asked: impl FnMut(),
) -> Result<Reconciled, RangeError> {
    let mut reconciled = Reconciled::default();
    let mut pace = interval(range.pace.max(Duration::from_millis(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let size = PageSize::new(PAGE).expect("it is a page's size");
    let mut question =
        ListDeliveries { from: Some(range.from), to: Some(range.to), size, ..ListDeliveries::default() };
    loop {
        let page = store.deliveries(&question).await?;
        let next = page.after()?;
        reconciled.unreadable.extend(page.unreadable);
        for known in page.entries {
            pace.tick().await;
            reconciled.ask(store, provider, known).await?;
            asked();
        }
        let Some(next) = next else { return Ok(reconciled) };
        question.after = Some(next);
    }
}

impl Reconciled {
    async fn ask(
        &mut self,
        store: &dyn Store,
        provider: &Provider,
        known: Delivery,
    ) -> Result<(), RangeError> {
        self.asked += 1;
        let body = match provider.delivery(&known.id).await {
            Ok(body) => body,
            Err(CallError::Refused(Refusal::NotFound)) => {
                self.unknown.push(known.id);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let arrival = match answers::polled(&known.id, body, Timestamp::now()) {
            Ok(arrival) => arrival,
            Err(problem) => {
                self.unread.push((known.id, problem));
                return Ok(());
            }
        };
        let told = arrival.event().expect("an answer that is understood is an event").told.clone();
        let sum = |sum: Sum, cost: Option<Money>| sum.plus_times(cost.unwrap_or(Money::ZERO), 1);
        self.told_cost = sum(self.told_cost, known.cost).ok_or(RangeError::Sum)?;
        self.charged_cost = sum(self.charged_cost, told.cost).ok_or(RangeError::Sum)?;
        if differ(&known, &told) {
            let kept = store.commit(&Batch::fold(vec![arrival]).0).await?;
            kept.into_iter().try_for_each(|kept| kept.map(drop)).map_err(StoreError::from)?;
            self.differences.push(Difference { known, told });
        }
        Ok(())
    }
}

/// Whether the provider says something else, apart from when. What it says nothing of is no difference.
fn differ(known: &Delivery, told: &Delivery) -> bool {
    known.status != told.status
        || (told.cost.is_some() && known.cost != told.cost)
        || known.error_code != told.error_code
        || (told.carrier.is_some() && known.carrier != told.carrier)
        || (told.phone.is_some() && known.phone != told.phone)
}
