//! The database goes away under load and comes back.

use nexo_receiver::store::open::open;

use crate::support::{
    cluster::Cluster,
    load::Load,
    receiver::{Receiver, options},
};

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_webhooks_get_503_and_afterwards_200_again() {
    let cluster = Cluster::start();
    let location = cluster.location();
    let receiver = Receiver::start_at(options(location.clone())).await;
    let load = Load::start(receiver.address(), 16, "o");
    let ledger = load.ledger.clone();

    for _ in 0..2 {
        let before = ledger.kept();
        ledger.until(|ledger| ledger.kept() >= before + 100).await;
        cluster.crash();
        let refused = ledger.refused();
        ledger.until(|ledger| ledger.refused() >= refused + 100).await;
        let (status, why) = receiver.ready().await;
        assert_eq!(status, 503, "{why}");
        assert!(why.contains("unavailable"), "{why}");
        cluster.restart();
    }
    let before = ledger.kept();
    ledger.until(|ledger| ledger.kept() >= before + 100).await;
    assert_eq!(receiver.ready().await.0, 200);

    let ledger = load.stop().await;
    ledger.holds_in(&*open(&location).await.unwrap()).await;
    receiver.stop().await;
}
