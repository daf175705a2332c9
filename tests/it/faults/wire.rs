//! The way to Postgres is cut, or falls silent, before, within and after every message of a commit: no 200 for what isn't
//! stored, nobody waits beyond the bound, and it goes on by itself.

use std::time::{Duration, Instant};

use fastrand::Rng;
use nexo_receiver::{delivery::DeliveryId, store::open::Location};

use super::{rounds, seed};
use crate::support::{
    cluster::location,
    database::{Database, server_url},
    evidence::EveryEvent as _,
    provider::event,
    receiver::{Receiver, options},
    relay::{Fault, Harm, Part, Relay, Way, Whose},
    sender::Sender,
    until::until,
};

/// How long a commit and a connect may take; what comes on top is this machine's.
const BOUND: Duration = Duration::from_millis(400);
const CONNECT: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(3);

/// What is posted while the fault waits.
#[derive(Clone, Copy)]
enum What {
    /// One statement.
    NewEvent,
    /// A transaction that locks, merges and keeps the older one.
    SecondEvent,
    /// One statement, into another table.
    NotUnderstood,
}

impl What {
    fn first(self, id: &str) -> Option<Vec<u8>> {
        matches!(self, Self::SecondEvent).then(|| event(id, "failed"))
    }

    fn body(self, id: &str) -> Vec<u8> {
        match self {
            Self::NewEvent | Self::SecondEvent => event(id, "delivered"),
            Self::NotUnderstood => format!("not understood: {id}").into_bytes(),
        }
    }
}

struct Bench {
    database: Database,
    relay: Relay,
    receiver: Receiver,
}

impl Bench {
    async fn start(pgbouncer: bool) -> Self {
        let database = Database::on_postgres().await;
        let (_, rest) = server_url().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let port = rest.split('/').next().unwrap().parse().unwrap();
        let relay = Relay::start(port).await;
        let url =
            format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", relay.port(), database.name());
        let Location::Postgres(store) = location(&url) else { unreachable!() };
        let (connect_timeout, commit_timeout) = (CONNECT, BOUND);
        let receiver =
            Receiver::start_at(options(Location::Postgres(nexo_receiver::store::postgres::Options {
                pgbouncer,
                connect_timeout,
                commit_timeout,
                ..store
            })))
            .await;
        Self { database, relay, receiver }
    }

    /// Posts until it is answered 200; how often that took.
    async fn post(&self, body: &[u8]) -> u64 {
        let mut times = 0;
        until(async || {
            times += 1;
            self.receiver.sender().await.post(body).await.status == 200
        })
        .await;
        times
    }

    /// How often it is in the store, by its own count.
    async fn times(&self, id: &str, body: &[u8]) -> u64 {
        let store = self.database.open().await;
        let events = store.events(&DeliveryId::parse(id.to_owned()).unwrap()).await.unwrap();
        let of_id: Vec<_> = events.iter().filter(|it| it.proof.body() == body).map(|it| it.times).collect();
        let quarantined =
            store.quarantine(&nexo_receiver::store::query::ListQuarantine::default()).await.unwrap();
        let quarantined =
            quarantined.entries.iter().filter(|it| it.verified.body() == body).map(|it| it.times);
        let all: Vec<_> = of_id.into_iter().chain(quarantined).collect();
        assert!(all.len() <= 1, "{id} is there twice");
        store.close().await;
        all.first().copied().unwrap_or_default()
    }

    /// How many messages it takes, to the server and to the client.
    async fn measure(&self, what: What, whose: Whose) -> [usize; 2] {
        for id in ["warm", "still warm"] {
            if let Some(first) = what.first(id) {
                self.post(&first).await;
            }
            if whose == Whose::New {
                self.relay.cut_all();
            }
            // A fault that nothing meets.
            let (way, part, harm) = (Way::ToServer, Part::Nothing, Harm::Cut);
            self.relay.arm(Fault { whose, way, message: usize::MAX, part, harm });
            self.post(&what.body(id)).await;
        }
        self.relay.passed()
    }

    /// Whether the fault was met.
    async fn suffer(&self, what: What, fault: Fault, id: &str) -> bool {
        if let Some(first) = what.first(id) {
            self.post(&first).await;
        }
        let body = what.body(id);
        let mut sender: Sender = self.receiver.sender().await;
        if fault.whose == Whose::New {
            self.relay.cut_all();
        }
        self.relay.arm(fault);
        let (mut posted, mut kept) = (0, false);
        // One that finds its old connection gone does not open a new one.
        until(async || {
            let started = Instant::now();
            let reply = sender.post(&body).await;
            let took = started.elapsed();
            assert!(took < CONNECT + BOUND + SLACK, "{fault:?}: {took:?}");
            assert!(reply.status == 200 || reply.header("retry-after") == "1", "{fault:?}: {reply:?}");
            posted += 1;
            kept = reply.status == 200;
            kept || self.relay.was_hit()
        })
        .await;
        let was_hit = self.relay.was_hit();
        if kept {
            assert!(self.times(id, &body).await >= 1, "{fault:?}: it was answered 200 and is not there");
        }
        self.relay.heal();
        posted += self.post(&body).await;
        let times = self.times(id, &body).await;
        // A commit that may have happened is repeated once within the same request.
        let (least, most) = (1 + u64::from(kept), 2 * posted);
        assert!((least..=most).contains(&times), "{fault:?}: {times} of {posted}");
        was_hit
    }
}

/// Every fault there is, in any order; on most days some of them.
fn grid(whose: Whose, messages: [usize; 2], harm: Harm, rng: &mut Rng) -> Vec<Fault> {
    let mut all = Vec::new();
    for (way, count) in [(Way::ToServer, messages[0]), (Way::ToClient, messages[1])] {
        for message in 0..count {
            let fault = |part| Fault { whose, way, message, part, harm };
            all.extend([Part::Nothing, Part::Half, Part::All].map(fault));
        }
    }
    rng.shuffle(&mut all);
    all
}

async fn at_every_message(what: What, whose: Whose, pgbouncer: bool) {
    let seed = seed();
    let bench = Bench::start(pgbouncer).await;
    let messages = bench.measure(what, whose).await;
    let mut rng = Rng::with_seed(seed);
    for (harm, usual) in [(Harm::Cut, 24), (Harm::Silence, 8)] {
        let all = grid(whose, messages, harm, &mut rng);
        let (of, mut tried, mut hit) = (all.len(), 0, 0);
        for (n, fault) in all.into_iter().enumerate().take(rounds(usual)) {
            hit += usize::from(bench.suffer(what, fault, &format!("{harm:?}-{n}")).await);
            tried += 1;
        }
        // The last messages of a batch may be those of another connection's.
        assert!(hit * 4 >= tried * 3, "{hit} of {tried} were met");
        println!("{harm:?}, {whose:?}: {hit} of {tried} met, of {of} there are; seed {seed}");
    }
    bench.receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_event() {
    at_every_message(What::NewEvent, Whose::Writers, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_meets_another() {
    at_every_message(What::SecondEvent, Whose::Writers, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_understood() {
    at_every_message(What::NotUnderstood, Whose::Writers, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_meets_another_as_behind_pgbouncer() {
    at_every_message(What::SecondEvent, Whose::Writers, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_event_over_a_new_connection() {
    at_every_message(What::NewEvent, Whose::New, false).await;
}
