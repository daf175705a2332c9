//! Signed events over many connections, some of them twice, and a record of what was answered.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fastrand::Rng;
use nexo_receiver::{
    flood::{self, Amount, Plan, Report, target::Target},
    secret::Secret,
    signature::SigningKey,
};
use tokio::task::JoinSet;

use super::{
    ledger::{Ledger, body},
    provider::WEBHOOK_SECRET,
    sender::Sender,
    until::look_again,
};

/// Senders that go on until they are told to stop; one whose connection breaks opens another one.
pub struct Load {
    pub ledger: Arc<Ledger>,
    senders: JoinSet<()>,
}

impl Load {
    /// Starts `connections` senders to all of these in turn.
    pub fn start(addresses: &[SocketAddr], connections: usize, seed: u64) -> Self {
        let ledger = Arc::<Ledger>::default();
        let mut senders = JoinSet::new();
        let mut rng = Rng::with_seed(seed);
        for address in addresses.iter().cycle().take(connections) {
            senders.spawn(send(*address, rng.fork(), Arc::clone(&ledger)));
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

async fn send(address: SocketAddr, mut rng: Rng, ledger: Arc<Ledger>) {
    while !ledger.ended.load(Ordering::Relaxed) {
        let Ok(mut sender) = Sender::try_connect(address).await else {
            look_again().await;
            continue;
        };
        while !ledger.ended.load(Ordering::Relaxed) {
            let next = ledger.next(&mut rng);
            match sender.try_post(&body(&next.0, next.1)).await {
                Ok(reply) if reply.status == 200 => ledger.keep(&next),
                Ok(reply) => {
                    assert_eq!(reply.status, 503, "{}", reply.text);
                    assert_eq!(reply.header("retry-after"), "1");
                    ledger.refuse();
                    look_again().await;
                }
                Err(_) => {
                    ledger.miss();
                    break;
                }
            }
        }
    }
}

/// Signed events at an even rate, `per_second`, whether or not answers keep up; `duplicates` is a percentage. A ledger has
/// no part in it.
pub async fn evenly(
    address: SocketAddr,
    per_second: u32,
    time: Duration,
    connections: usize,
    duplicates: u8,
) -> Report {
    let plan = Plan {
        target: Target::parse(&format!("http://{address}/webhooks/nexo")).unwrap(),
        connections,
        amount: Amount::Duration(time),
        rate: Some(per_second.try_into().unwrap()),
        duplicates,
        fixed: false,
    };
    let key = SigningKey::from_secret(&Secret::new(WEBHOOK_SECRET.into()));
    flood::run(plan, key, std::future::pending(), |_| {}).await.unwrap()
}
