//! The way to Postgres is cut, or falls silent, before, within and after every message of a send: whoever was told that
//! nothing was sent finds the key free, nobody is told that it may have been sent, and the phone is called once.

use std::time::Duration;

use fastrand::Rng;
use http::{Method, StatusCode};
use nexo_receiver::{
    money::Money,
    provider,
    sandbox::{self, Wallet},
    secret::Secret,
    store::open::Location,
};
use url::Url;

use super::{rounds, seed};
use crate::support::{
    cluster::location,
    database::{Database, server_url},
    http::Answer,
    provider::WEBHOOK_SECRET,
    receiver::{Receiver, options},
    relay::{Fault, Harm, Part, Relay, Way, Whose},
    until::until,
    wire::PATIENCE,
};

const KEY: &str = "sk_live_of_a_test";
const BODY: &str = r#"{"phone":"+84981234567","code":"482917"}"#;

/// How long a commit may take.
const BOUND: Duration = Duration::from_millis(400);

struct Bench {
    _database: Database,
    relay: Relay,
    sandbox: sandbox::Running,
    receiver: Receiver,
}

impl Bench {
    async fn start() -> Self {
        let database = Database::on_postgres().await;
        let (_, rest) = server_url().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let relay = Relay::start(rest.split('/').next().unwrap().parse().unwrap()).await;
        let url =
            format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", relay.port(), database.name());
        let Location::Postgres(store) = location(&url) else { unreachable!() };
        let secret = |text: &str| Secret::new(text.to_owned());
        let wallet = Wallet {
            balance: Money::parse("1000").unwrap(),
            bonus_credit: Money::ZERO,
            free_credit: Money::ZERO,
        };
        let sandbox =
            sandbox::Options { wallet, ..sandbox::Options::new(secret(KEY), secret(WEBHOOK_SECRET)) };
        let sandbox = sandbox::start(sandbox).await.unwrap();
        let mut options = options(Location::Postgres(nexo_receiver::store::postgres::Options {
            commit_timeout: BOUND,
            ..store
        }));
        options.provider = Some(provider::Options {
            base_url: Url::parse(&sandbox.base_url()).unwrap(),
            key: secret(KEY),
            connect_timeout: PATIENCE,
            timeout: PATIENCE,
            proxy: None,
        });
        let receiver = Receiver::start_at(options).await;
        Self { _database: database, relay, sandbox, receiver }
    }

    async fn send(&self, key: &str) -> Answer {
        let client = self.receiver.client().keyed(key);
        client.send_with(Method::POST, "/api/v1/send-otp", BODY).await
    }

    /// Sends until it is accepted; before that, it was always said that nothing was sent.
    async fn accepted(&self, key: &str) -> Answer {
        let mut last = None;
        until(async || {
            let answer = self.send(key).await;
            let is_accepted = answer.status == StatusCode::ACCEPTED;
            assert!(is_accepted || answer.status == StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
            last = Some(answer);
            is_accepted
        })
        .await;
        last.unwrap()
    }

    fn calls(&self) -> usize {
        self.sandbox.calls().len()
    }

    /// Whether the fault was met.
    async fn suffer(&self, fault: Fault, n: usize) -> bool {
        self.accepted(&format!("before-{fault:?}-{n}").replace(' ', "")).await;
        let (key, before) = (format!("{:?}-{n}", fault.harm), self.calls());
        self.relay.arm(fault);
        let first = self.send(&key).await;
        let was_hit = self.relay.was_hit();
        let is_accepted = first.status == StatusCode::ACCEPTED;
        assert!(
            is_accepted || first.status == StatusCode::SERVICE_UNAVAILABLE,
            "{fault:?}: {}",
            first.text()
        );
        self.relay.heal();
        let again = self.accepted(&key).await;
        assert_eq!(self.calls(), before + 1, "{fault:?}: the phone was called once");
        assert!(!is_accepted || again.text() == first.text(), "{fault:?}");
        was_hit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_message_of_a_send() {
    let seed = seed();
    let bench = Bench::start().await;
    bench.accepted("warm").await;
    bench.relay.count_of(Whose::Sends);
    bench.accepted("counted").await;
    let messages = bench.relay.passed();
    assert!(messages[0] > 10, "begun, called and ended: {messages:?}");
    let mut rng = Rng::with_seed(seed);
    let (mut tried, mut hit) = (0, 0);
    for (harm, usual) in [(Harm::Cut, 30), (Harm::Silence, 10)] {
        let mut all = Vec::new();
        for (way, count) in [(Way::ToServer, messages[0]), (Way::ToClient, messages[1])] {
            for message in 0..count {
                let fault = |part| Fault { whose: Whose::Sends, way, message, part, harm };
                all.extend([Part::Nothing, Part::Half, Part::All].map(fault));
            }
        }
        rng.shuffle(&mut all);
        for (n, fault) in all.into_iter().enumerate().take(rounds(usual)) {
            hit += usize::from(bench.suffer(fault, n).await);
            tried += 1;
        }
    }
    println!("{hit} of {tried} met; seed {seed}");
    assert!(hit * 2 >= tried, "{hit} of {tried} were met");
}
