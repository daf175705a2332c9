//! The service under test, started as `serve` starts it.

use std::{net::SocketAddr, time::Duration};

use nexo_receiver::{
    http,
    logs::Events,
    reconcile,
    secret::Secret,
    service::{self, Options, Running},
    store::open::Location,
    writer,
};

use super::{
    database::Database,
    http::{API_TOKEN, Client},
    provider::WEBHOOK_SECRET,
    sender::Sender,
    wire::PATIENCE,
};

/// A running service.
pub struct Receiver {
    running: Running,
}

impl Receiver {
    pub async fn start(database: &Database) -> Self {
        Self::start_with(database, |_| {}).await
    }

    /// Starts with other options than the usual ones.
    pub async fn start_with(database: &Database, adjust: impl FnOnce(&mut Options)) -> Self {
        let mut options = options(database.location());
        adjust(&mut options);
        Self::start_at(options).await
    }

    /// Starts with just these options.
    pub async fn start_at(options: Options) -> Self {
        Self { running: service::start(options).await.expect("the service starts") }
    }

    /// What `/readyz` answers.
    pub async fn ready(&self) -> (u16, String) {
        let answer = self.client().get("/readyz").await;
        (answer.status.as_u16(), answer.text().to_owned())
    }

    pub fn address(&self) -> SocketAddr {
        self.running.addr()
    }

    /// A connection to post webhooks over.
    pub async fn sender(&self) -> Sender {
        Sender::connect(self.address()).await
    }

    /// A client of the API with the right token.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Waits until a metric without labels has a value that will do.
    pub async fn until_metric(&self, name: &str, enough: impl Fn(f64) -> bool) {
        let client = self.client();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let metrics = client.get("/metrics").await;
            let value =
                metrics.text().lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            if enough(value.unwrap_or_else(|| panic!("no metric {name}"))) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{name} stays at {value:?}");
        }
    }

    /// Stops as on SIGTERM; all in flight must be finished.
    pub async fn stop(self) {
        assert!(self.running.stop(Duration::from_secs(10)).await, "the service drains in time");
    }

    /// Stops as on SIGTERM, and says whether all in flight was finished within `patience`.
    pub async fn stop_within(self, patience: Duration) -> bool {
        self.running.stop(patience).await
    }
}

/// The built-in defaults, with short deadlines.
pub fn options(location: Location) -> Options {
    Options {
        host: "127.0.0.1".into(),
        port: 0,
        location,
        migrate: true,
        webhook_secret: Secret::new(WEBHOOK_SECRET.into()),
        webhook_secret_previous: None,
        api_token: Secret::new(API_TOKEN.into()),
        api_token_previous: None,
        provider: None,
        reconcile: reconcile::Options { after: Duration::from_secs(90), calls_per_second: 10 },
        writer: writer::Options {
            queue: 8192,
            queue_bytes: 64 << 20,
            batch: 512,
            log_events: Events::Sampled,
            lock_wait: Duration::from_secs(5),
        },
        http: http::Options {
            body_bytes: 64 * 1024,
            in_flight_bytes: 64 << 20,
            answer_bytes: 64 << 20,
            connections: 4096,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(10),
            trusted_proxies: Vec::new(),
            refused_per_address: 0,
            refused_per_second: 0,
        },
    }
}
