//! Connections to Postgres that end while nobody uses them: no sender and no caller is refused because of it.

use std::time::Duration;

use http::Method;
use nexo_receiver::{
    provider,
    sandbox::{self, Outcome},
    secret::Secret,
    store::{open::Location, postgres},
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, postgres::PgConnectOptions};
use tokio::time::timeout;
use url::Url;

use super::{judge, rounds, seed};
use crate::support::{
    database::{Database, server_url},
    load::Load,
    pgbouncer::Pgbouncer,
    provider::{WEBHOOK_SECRET, event},
    receiver::{Receiver, options},
    relay::Relay,
    stream::Stream,
    until::until,
    wire::PATIENCE,
};

const KEY: &str = "sk_live_of_a_test";
const PHONE: &str = "+84981234567";

/// What ends connections.
enum Ending {
    /// An administrator, or the end of a restart.
    Terminated,
    /// `idle_session_timeout`.
    TooLongIdle,
    /// Something in between that forgets connections.
    Cut(Relay),
    /// pgbouncer's `client_idle_timeout`.
    ClientIdle(Pgbouncer),
}

/// What is asked of the service.
#[derive(Debug, Clone, Copy)]
enum Call {
    Webhook,
    SecondEvent,
    NotUnderstood,
    Announce,
    Send,
    Get,
    List,
    Events,
    Stats,
    Quarantine,
    WaitElsewhere,
    Stream,
}

const ALL: [Call; 12] = [
    Call::Webhook,
    Call::SecondEvent,
    Call::NotUnderstood,
    Call::Announce,
    Call::Send,
    Call::Get,
    Call::List,
    Call::Events,
    Call::Stats,
    Call::Quarantine,
    Call::WaitElsewhere,
    Call::Stream,
];

/// Two replicas on one database, and a provider.
struct Bench {
    database: Database,
    ending: Ending,
    replicas: [Receiver; 2],
    sandbox: sandbox::Running,
}

impl Bench {
    async fn start(database: Database, ending: Ending) -> Self {
        let mut store = database.postgres_options();
        match &ending {
            Ending::Terminated => {}
            Ending::TooLongIdle => {
                let name = database.name();
                let set = format!("ALTER DATABASE {name} SET idle_session_timeout = '300ms'");
                database.execute_on_server(&set).await;
            }
            Ending::Cut(relay) => {
                let url = format!("postgres://postgres@127.0.0.1:{}/{}", relay.port(), database.name());
                store.url = Secret::new(format!("{url}?sslmode=disable"));
            }
            Ending::ClientIdle(pgbouncer) => {
                store = postgres::Options {
                    url: Secret::new(pgbouncer.url(&database.name())),
                    pgbouncer: true,
                    ..store
                };
            }
        }
        let secret = |text: &str| Secret::new(text.to_owned());
        let sandbox =
            sandbox::start(sandbox::Options::new(secret(KEY), secret(WEBHOOK_SECRET))).await.unwrap();
        sandbox.set_outcome(PHONE, Outcome::Silent);
        let provider = provider::Options {
            base_url: Url::parse(&sandbox.base_url()).unwrap(),
            key: secret(KEY),
            connect_timeout: PATIENCE,
            timeout: PATIENCE,
            proxy: None,
        };
        let replica = async || {
            let mut options = options(Location::Postgres(store.clone()));
            options.provider = Some(provider.clone());
            Receiver::start_at(options).await
        };
        let replicas = [replica().await, replica().await];
        Self { database, ending, replicas, sandbox }
    }

    /// Ends all connections that are idle now, and waits until they have ended.
    async fn end(&self) {
        let name = self.database.name();
        let now = self.database.number("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint").await;
        let ours = format!("datname = '{name}' AND application_name = 'nexo-receiver'");
        match &self.ending {
            Ending::Terminated => {
                let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}");
                self.database.execute_on_server(&all).await;
            }
            Ending::TooLongIdle => {}
            Ending::Cut(relay) => return relay.cut_all(),
            Ending::ClientIdle(pgbouncer) => return idle_clients_end(pgbouncer, &name).await,
        }
        let left = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {ours} AND state_change < to_timestamp({now} / 1e6)"
        );
        until(async || self.database.number(&left).await == 0).await;
    }

    /// Makes a call for the nth time, around an ending where there is to be one.
    async fn call(&self, call: Call, n: usize, ends: bool) {
        let end = async || {
            if ends {
                self.end().await;
            }
        };
        let [here, there] = &self.replicas;
        let id = format!("{call:?}-{n}");
        let get = async |path: &str| {
            end().await;
            let answer = here.client().get(&format!("/api/v1{path}")).await;
            assert_eq!(answer.status, 200, "{call:?}: {}", answer.text());
        };
        let post = async |body: &[u8]| {
            let reply = here.sender().await.post(body).await;
            assert_eq!(reply.short(), (200, "ok"), "{call:?}");
        };
        let send = async |method, path: &str, body: &str, expected: u16| {
            end().await;
            let answer = here.client().send_with(method, path, body).await;
            assert_eq!(answer.status, expected, "{call:?}: {}", answer.text());
        };
        match call {
            Call::Webhook => {
                end().await;
                post(&event(&id, "delivered")).await;
            }
            Call::SecondEvent => {
                post(&event(&id, "failed")).await;
                end().await;
                post(&event(&id, "delivered")).await;
            }
            Call::NotUnderstood => {
                end().await;
                post(id.as_bytes()).await;
            }
            Call::Announce => {
                let body = format!(r#"{{"phone":"{PHONE}"}}"#);
                send(Method::PUT, &format!("/api/v1/deliveries/{id}"), &body, 200).await;
            }
            Call::Send => {
                let body = format!(r#"{{"phone":"{PHONE}","code":"482917"}}"#);
                send(Method::POST, "/api/v1/send-otp", &body, 202).await;
            }
            Call::Get => get("/deliveries/Webhook-0").await,
            Call::List => get("/deliveries?status=delivered").await,
            Call::Events => get("/deliveries/Webhook-0/events").await,
            Call::Stats => get("/stats").await,
            Call::Quarantine => get("/quarantine").await,
            Call::WaitElsewhere => {
                let client = there.client();
                // So that the ending is the only one that its first look can meet.
                assert_eq!(client.get(&format!("/api/v1/deliveries/{id}")).await.status, 404);
                let path = format!("/api/v1/deliveries/{id}?wait=30");
                let waits = tokio::spawn(async move { client.get(&path).await });
                end().await;
                post(&event(&id, "delivered")).await;
                let answer = waits.await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.json()["status"], "delivered");
            }
            Call::Stream => {
                let mut stream = Stream::open(there.address(), "", None).await.expect("a stream");
                end().await;
                post(&event(&id, "delivered")).await;
                while stream.delivery().await.expect("it goes on").1["id"] != id.as_str() {}
            }
        }
    }

    async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
        self.sandbox.stop().await;
    }
}

/// Waits until pgbouncer has ended every client that has asked for nothing since.
async fn idle_clients_end(pgbouncer: &Pgbouncer, database: &str) {
    let console: PgConnectOptions = pgbouncer.url("pgbouncer").parse().unwrap();
    let mut console = console.extra_float_digits(None).connect().await.unwrap();
    let mut requests = async || {
        let clients = sqlx::raw_sql("SHOW CLIENTS").fetch_all(&mut console).await.unwrap();
        let ours = clients.into_iter().filter(|row| row.get::<&str, _>("database") == database);
        ours.map(|row| row.get::<String, _>("request_time")).collect::<Vec<_>>()
    };
    // In whole seconds, and in the order of time.
    let last = requests().await.into_iter().max().unwrap_or_default();
    until(async || requests().await.into_iter().all(|request| request > last)).await;
    console.close().await.unwrap();
}

/// Each call meets connections that were used before, and have ended since.
async fn nobody_is_refused(ending: Ending) {
    let bench = Bench::start(Database::on_postgres().await, ending).await;
    for call in ALL {
        bench.call(call, 0, false).await;
    }
    for call in ALL {
        bench.call(call, 1, true).await;
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_after_connections_were_terminated() {
    nobody_is_refused(Ending::Terminated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_after_connections_were_idle_for_too_long() {
    nobody_is_refused(Ending::TooLongIdle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_after_the_way_to_the_database_was_cut() {
    let port = server_url().rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
    nobody_is_refused(Ending::Cut(Relay::start(port.expect("a port")).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_after_pgbouncer_has_ended_idle_clients() {
    let settings = "client_idle_timeout = 1\nadmin_users = postgres\ndefault_pool_size = 8";
    nobody_is_refused(Ending::ClientIdle(Pgbouncer::start(settings).await)).await;
}

/// Two replicas under load, whose connections are ended again and again between their statements.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_refused_nothing_while_idle_connections_are_ended() {
    let bench = Bench::start(Database::on_postgres().await, Ending::Terminated).await;
    let (rounds, name) = (rounds(20), bench.database.name());
    let addresses = bench.replicas.each_ref().map(Receiver::address);
    let load = Load::start(&addresses, 16, seed());
    let idle = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = '{name}' AND application_name = 'nexo-receiver' AND state = 'idle'"
    );
    for _ in 0..rounds {
        load.ledger.until_more(100).await;
        bench.database.execute_on_server(&idle).await;
    }
    load.ledger.until_more(100).await;
    let ledger = load.stop().await;
    assert_eq!((ledger.refused(), ledger.unanswered()), (0, 0));
    judge(&format!("{rounds} times idle connections ended"), &ledger, &*bench.database.open().await).await;
    bench.stop().await;
}

/// The connection that listens comes back by itself, before anybody would look without it.
#[tokio::test(flavor = "multi_thread")]
async fn the_connection_that_listens_comes_back() {
    let bench = Bench::start(Database::on_postgres().await, Ending::Terminated).await;
    let store = bench.database.open().await;
    let mut notices = store.listen("us").await.unwrap();
    let listening = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'LISTEN%'",
        bench.database.name()
    );
    for _ in 0..rounds(3) {
        until(async || bench.database.number(&listening).await == 3).await;
        // It has been open for as long as one has to be that is opened again at once.
        until(async || {
            let young = format!("{listening} AND backend_start > clock_timestamp() - interval '1.1 seconds'");
            bench.database.number(&young).await == 0
        })
        .await;
        bench.end().await;
        timeout(Duration::from_secs(10), notices.next())
            .await
            .expect("something may have been missed")
            .unwrap();
        store.announce("us").await.unwrap();
        store.announce("others").await.unwrap();
        timeout(Duration::from_secs(10), notices.next()).await.expect("it is heard").unwrap();
    }
    drop(notices);
    bench.stop().await;
}
