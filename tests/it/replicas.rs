//! Several replicas on one Postgres, with no coordination beyond it.

use http::StatusCode;
use nexo_receiver::delivery::DeliveryId;
use tokio::task::JoinSet;

use crate::support::{database::Database, evidence::EveryEvent as _, provider::event, receiver::Receiver};

const EVENTS: usize = 1_000;
const COPIES: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_copies_of_each_of_a_thousand_events_give_a_thousand_deliveries() {
    let database = Database::on_postgres().await;
    {
        let replicas = [Receiver::start(&database).await, Receiver::start(&database).await];
        let mut senders = JoinSet::new();
        for copy in 0..COPIES {
            let mut sender = replicas[copy % 2].sender().await;
            senders.spawn(async move {
                for n in 0..EVENTS {
                    // Each sender begins elsewhere, so that the replicas' batches overlap in any order.
                    let n = (n * 7 + copy * 131) % EVENTS;
                    let reply = sender.post(&event(&format!("e{n}"), "delivered")).await;
                    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
                }
            });
        }
        senders.join_all().await;

        let store = database.open().await;
        for n in 0..EVENTS {
            let id = DeliveryId::parse(format!("e{n}")).unwrap();
            assert!(store.delivery(&id).await.unwrap().is_some(), "e{n}");
            let evidence = store.events(&id).await.unwrap();
            let times: Vec<_> = evidence.iter().map(|kept| kept.times).collect();
            assert_eq!(times, [COPIES as u64], "e{n}");
        }
        assert_eq!(database.number("SELECT count(*) FROM deliveries").await, EVENTS as i64);
        assert_eq!(database.number("SELECT count(*) FROM older_events").await, 0);
        for replica in replicas {
            replica.stop().await;
        }
    }
}
