//! All the evidence of one delivery, page after page.

use nexo_receiver::{
    delivery::DeliveryId,
    store::{Evidence, Store, StoreError, query::ListEvents},
};

pub trait EveryEvent {
    /// Each event of one delivery, oldest first; all of them can be read.
    async fn events(&self, id: &DeliveryId) -> Result<Vec<Evidence>, StoreError>;
}

impl<S: Store + ?Sized> EveryEvent for S {
    async fn events(&self, id: &DeliveryId) -> Result<Vec<Evidence>, StoreError> {
        let mut question = ListEvents::of(id.clone());
        let mut events = Vec::new();
        loop {
            let page = self.list_events(&question).await?;
            assert!(page.unreadable.is_empty(), "{:?}", page.unreadable);
            question.after = page.after()?;
            events.extend(page.entries);
            if question.after.is_none() {
                return Ok(events);
            }
        }
    }
}
