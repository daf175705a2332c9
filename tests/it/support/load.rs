//! Distinct signed events over many connections, and a record of which were answered 200.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use nexo_receiver::{delivery::DeliveryId, store::Store};
use tokio::{task::JoinSet, time::timeout};

use super::{provider::event, sender::Sender, wire::PATIENCE};

/// What was answered, by all senders together.
#[derive(Default)]
pub struct Ledger {
    acknowledged: Mutex<Vec<String>>,
    answers: [AtomicUsize; 2],
    ended: AtomicBool,
}

impl Ledger {
    /// The ids whose event was answered 200.
    pub fn acknowledged(&self) -> Vec<String> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// How many were answered 503.
    pub fn refused(&self) -> usize {
        self.answers[1].load(Ordering::Relaxed)
    }

    /// How many were answered 200.
    pub fn kept(&self) -> usize {
        self.answers[0].load(Ordering::Relaxed)
    }

    /// Waits until something has been counted.
    pub async fn until(&self, enough: impl Fn(&Self) -> bool) {
        let wait = async {
            while !enough(self) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("200: {}, 503: {}", self.kept(), self.refused()));
    }

    /// Every event that was answered 200 is in the store; the first that is not is named.
    pub async fn holds_in(&self, store: &dyn Store) {
        for id in self.acknowledged() {
            let known = store.delivery(&DeliveryId::parse(id.clone()).unwrap()).await.unwrap();
            assert!(known.is_some(), "{id} was answered 200 and is lost");
        }
    }
}

/// Senders that go on until they are told to stop or nobody listens any more.
pub struct Load {
    pub ledger: Arc<Ledger>,
    senders: JoinSet<()>,
}

impl Load {
    /// Starts `connections` senders; ids begin with `prefix`.
    pub fn start(address: SocketAddr, connections: usize, prefix: &str) -> Self {
        let ledger = Arc::<Ledger>::default();
        let mut senders = JoinSet::new();
        for connection in 0..connections {
            senders.spawn(send(address, format!("{prefix}-{connection}"), Arc::clone(&ledger)));
        }
        Self { ledger, senders }
    }

    /// Stops all senders once the answers they wait for have come.
    pub async fn stop(self) -> Arc<Ledger> {
        self.ledger.ended.store(true, Ordering::Relaxed);
        self.senders.join_all().await;
        self.ledger
    }
}

async fn send(address: SocketAddr, prefix: String, ledger: Arc<Ledger>) {
    let Ok(mut sender) = Sender::try_connect(address).await else { return };
    for n in 0.. {
        if ledger.ended.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("{prefix}-{n}");
        match sender.try_post(&event(&id, "delivered")).await {
            Ok(reply) if reply.status == 200 => {
                ledger.acknowledged.lock().unwrap().push(id);
                ledger.answers[0].fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply) => {
                assert_eq!(reply.status, 503, "{}", reply.text);
                assert_eq!(reply.header("retry-after"), "1");
                ledger.answers[1].fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => return,
        }
    }
}
