//! A replica's clock is set ten years ahead, back, and an hour behind, while events come in: no page skips a delivery, no
//! change is missing, no statistics are wrong, and no key or lease of another replica's is taken away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Method;
use nexo_receiver::{
    clock::Timestamp,
    sandbox,
    secret::Secret,
    store::{hours::Due, query::StatsQuestion},
};
use tempfile::TempDir;

use super::{judge, seed};
use crate::support::{
    database::{Database, on_each_store},
    http::Client,
    load::Load,
    process::{Process, Setup},
    provider::WEBHOOK_SECRET,
    stream::Stream,
};

on_each_store! { no_clock_skips_a_page_or_a_change }

/// The clock of a process, which a file sets.
struct Clock(PathBuf);

impl Clock {
    fn set(&self, ahead: &str) {
        fs::write(&self.0, format!("{ahead}\n")).unwrap();
    }

    /// A replica that goes by it.
    fn replica(&self, database: &Database, provider: &str) -> Process {
        let preload = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
            .map(|folder| format!("{folder}/faketime/libfaketimeMT.so.1"))
            .into_iter()
            .find(|library| Path::new(library).exists())
            .expect("tests/run makes sure of it");
        let environment = vec![
            ("LD_PRELOAD", preload),
            ("FAKETIME_TIMESTAMP_FILE", self.0.to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Deadlines go by a clock that nobody sets.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NEXO_KEY", KEY.to_owned()),
            ("NEXO_BASE_URL", provider.to_owned()),
            ("RECONCILE_AFTER_SECONDS", "3600".to_owned()),
        ];
        Process::serve_with(&database.environment(), Setup { environment, ..Setup::default() })
    }
}

const KEY: &str = "nxr_key_under_test";

/// Every id that the lists show, page after page, and how often.
async fn listed(client: &Client) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    let mut path = "/api/v1/deliveries?limit=40".to_owned();
    loop {
        let page = client.get(&path).await.json();
        for delivery in page["deliveries"].as_array().unwrap() {
            *all.entry(delivery["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let Some(next) = page["next_cursor"].as_str() else { return all };
        path = format!("/api/v1/deliveries?limit=40&cursor={next}");
    }
}

async fn no_clock_skips_a_page_or_a_change(database: Database) {
    let place = TempDir::new().unwrap();
    let (clock, right) = (Clock(place.path().join("clock")), Clock(place.path().join("right")));
    let options = sandbox::Options::new(Secret::new(KEY.into()), Secret::new(WEBHOOK_SECRET.into()));
    let sandbox = sandbox::start(options).await.unwrap();
    clock.set("+0");
    right.set("+0");
    let wrong = clock.replica(&database, &sandbox.base_url());
    // A file has one service.
    let other = database.is_postgres().then(|| right.replica(&database, &sandbox.base_url()));
    let addresses: Vec<_> =
        [Some(&wrong), other.as_ref()].into_iter().flatten().map(|it| it.address).collect();
    let mut stream = Stream::open(addresses[0], "", None).await.unwrap();
    let load = Load::start(&addresses, 8, seed());
    let send = async |client: &Client, key: &str| {
        let body = r#"{"phone":"+84981234567","code":"428913"}"#;
        let answer = client.keyed(key).send_with(Method::POST, "/api/v1/send-otp", body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].clone()
    };
    let clients: Vec<_> = addresses.iter().map(|address| Client::new(*address)).collect();
    for (n, ahead) in ["+0", "+10y", "-1h", "+0"].into_iter().enumerate() {
        clock.set(ahead);
        load.ledger.until_more(100).await;
        if let Some(other) = clients.get(1) {
            let sent = send(other, &format!("key-{n}")).await;
            assert_eq!(send(&clients[0], &format!("key-{n}")).await, sent, "{ahead}: sent once");
        }
        // As another replica does meanwhile.
        let store = database.open().await;
        let now = store.now().await.unwrap();
        store.forget(now).await.unwrap();
        store.sum_up(&Due::at(now, now)).await.unwrap();
        store.close().await;
    }
    let ledger = load.stop().await;
    let store = database.open().await;
    judge("clocks set", &ledger, &*store).await;
    let kept: BTreeSet<String> =
        ledger.events().into_iter().filter(|(_, it)| it.kept > 0).map(|((id, _), _)| id).collect();
    for client in &clients {
        let listed = listed(client).await;
        assert!(listed.values().all(|times| *times == 1));
        assert!(kept.iter().all(|id| listed.contains_key(id)), "a page skips a delivery");
    }
    let mut missing = kept.clone();
    while !missing.is_empty() {
        let event = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.ok().flatten();
        let event = event.unwrap_or_else(|| {
            panic!("{} changes are not told, such as {:?}", missing.len(), missing.first())
        });
        if let Some(delivery) = event.delivery {
            missing.remove(delivery["id"].as_str().unwrap());
        }
    }
    let asked = sandbox.calls().into_iter().filter(|call| call.method == Method::GET).count();
    assert_eq!(asked, 0, "nothing is due for an hour");
    let (from, to) = (Timestamp::EARLIEST, Timestamp::parse("9999-12-31T00:00:00Z").unwrap());
    let stats = store.stats(&StatsQuestion { from, to, by: None }).await.unwrap().total;
    let counted = i64::try_from(stats.sent + stats.delivered + stats.failed).unwrap();
    assert_eq!(counted, database.number("SELECT count(*) FROM deliveries").await);
}
