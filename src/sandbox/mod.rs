//! The provider simulated, for development, tests and load without credit: its three calls, and its signed webhooks.
//!
//! Lives here: starting it, and scripting it from Rust. Stands beside the way of an event and knows nothing of it but
//! how bodies are signed. It speaks plain HTTP only, forgets all when it stops, and is never to be exposed.
//!
//! Where the provider's documentation is silent the sandbox has a choice of its own, and says so: statuses of
//! refusals, error codes of failed OTPs, that a failed one stays charged, and whether a refused webhook is sent again.

mod api;
mod attempt;
mod calls;
mod carrier;
mod courier;
mod fault;
mod otp;
mod outcome;
mod provider;
mod refusal;
mod script;
mod wallet;

use std::{
    collections::HashMap,
    io, mem,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use fastrand::Rng;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{error::Elapsed, timeout},
};
use url::Url;

pub use attempt::Attempt;
pub use calls::{Call, Outage};
pub use fault::Fault;
pub use outcome::{ERROR_CODES, NUMBERS, Number, Outcome};
pub use refusal::Refusal;
pub use wallet::Wallet;

use crate::{money::Money, secret::Secret, signature::SigningKey};
use attempt::AttemptLog;
use calls::CallLog;
use courier::Target;
use provider::{Provider, State};
use script::Script;

/// After a failed accept (out of descriptors, mostly) the next try waits for a connection to end, or this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the sandbox is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// The API key that callers have to send.
    pub key: Secret,
    /// Where webhooks go; `http` only. Without it none are sent.
    pub webhook_url: Option<Url>,
    /// What webhooks are signed with.
    pub webhook_secret: Secret,
    /// How long a receiver may take to answer a webhook.
    pub webhook_timeout: Duration,
    /// When a webhook is sent again.
    pub retry: Retry,
    /// The money to begin with.
    pub wallet: Wallet,
    /// The price of an OTP.
    pub price: Money,
    /// The share of OTPs that are delivered.
    pub delivered_rate: f64,
    /// How long an OTP takes to its final state.
    pub delay: RangeInclusive<Duration>,
    /// How long a slow one takes, and how late a late webhook is.
    pub slow: Duration,
    /// Which share of webhooks has which fault.
    pub faults: Vec<(Fault, f64)>,
    /// Makes a run repeatable: the n-th send has the same outcome, delay and fault each time. Ids are always new.
    pub seed: Option<u64>,
}

/// When a webhook is sent again that was not answered 2xx. What the provider does is not documented.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// How often one is sent at most; 1 is never again.
    pub attempts: u32,
    /// The pause before the second attempt; each later one is twice as long.
    pub pause: Duration,
}

impl Options {
    /// On a free port, with the provider's price and free credit and 100 USD paid in; everything is delivered, within
    /// a few milliseconds, and a webhook is sent once.
    #[must_use]
    pub fn new(key: Secret, webhook_secret: Secret) -> Self {
        let usd = |text| Money::parse(text).expect("it is a number");
        Self {
            host: "127.0.0.1".into(),
            port: 0,
            key,
            webhook_url: None,
            webhook_secret,
            webhook_timeout: Duration::from_secs(10),
            retry: Retry { attempts: 1, pause: Duration::from_secs(1) },
            wallet: Wallet { balance: usd("100"), bonus_credit: Money::ZERO, free_credit: usd("0.11") },
            price: usd("0.022"),
            delivered_rate: 1.0,
            delay: Duration::from_millis(1)..=Duration::from_millis(10),
            slow: Duration::from_secs(1),
            faults: Vec::new(),
            seed: None,
        }
    }
}

/// Starts a sandbox; when this returns, it answers.
///
/// # Errors
/// When it can't listen, the webhook's URL is not `http`, or an amount is not [countable](is_countable).
pub async fn start(options: Options) -> io::Result<Running> {
    if options.webhook_url.as_ref().is_some_and(|url| url.scheme() != "http") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the sandbox posts webhooks to http URLs only",
        ));
    }
    let Wallet { balance, bonus_credit, free_credit } = options.wallet;
    if ![balance, bonus_credit, free_credit, options.price].into_iter().all(is_countable) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the sandbox counts amounts from 0 to 1000000000 USD with 6 decimals at most",
        ));
    }
    let listener = TcpListener::bind((options.host.as_str(), options.port)).await?;
    let address = listener.local_addr()?;
    let provider = Arc::new(provider(options, address));
    let serving = tokio::spawn(serve(listener, api::router(Arc::clone(&provider))));
    Ok(Running { address, provider, serving })
}

/// Whether an amount is from 0 to a billion dollars with 6 decimals at most: such amounts add up exactly.
#[must_use]
pub fn is_countable(amount: Money) -> bool {
    let most = Money::parse("1000000000").expect("it is a number");
    (Money::ZERO..=most).contains(&amount) && amount.amount().scale() <= 6
}

fn provider(options: Options, address: SocketAddr) -> Provider {
    let script = Script {
        rng: options.seed.map_or_else(Rng::new, Rng::with_seed),
        delivered_rate: options.delivered_rate,
        delay: options.delay,
        slow: options.slow,
        faults: options.faults,
        outcomes: HashMap::new(),
        faults_of: HashMap::new(),
    };
    let (retry, timeout) = (options.retry, options.webhook_timeout);
    let key = SigningKey::from_secret(&options.webhook_secret);
    Provider {
        key: options.key,
        base_url: format!("http://{address}/api/v1"),
        deposit_url: format!("http://{address}/sandbox/deposit"),
        price: options.price,
        target: options.webhook_url.map(|url| Target { url, key, retry, timeout }),
        attempts: AttemptLog::new(),
        calls: CallLog::default(),
        under_way: watch::Sender::new(0),
        state: Mutex::new(State {
            wallet: options.wallet,
            script,
            otps: HashMap::new(),
            couriers: JoinSet::new(),
        }),
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let service = TowerToHyperService::new(router.clone());
                    connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    let _ = timeout(ACCEPT_PAUSE, connections.join_next()).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A started sandbox; it stops when this is dropped.
pub struct Running {
    address: SocketAddr,
    provider: Arc<Provider>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of its API, which stands for the provider's.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.provider.base_url.clone()
    }

    /// From now on, this becomes of OTPs to this phone.
    pub fn set_outcome(&self, phone: &str, outcome: Outcome) {
        self.provider.state().script.outcomes.insert(phone.to_owned(), outcome);
    }

    /// From now on, this goes wrong with webhooks of OTPs to this phone, or nothing.
    pub fn set_fault_for(&self, phone: &str, fault: Option<Fault>) {
        self.provider.state().script.faults_of.insert(phone.to_owned(), fault);
    }

    /// From now on, this goes wrong with every webhook of which nothing else was told, or nothing.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.provider.state().script.faults = fault.map(|fault| (fault, 1.0)).into_iter().collect();
    }

    /// From now on, no call of its API is answered as it should be, or all are again.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.provider.calls.set_outage(outage);
    }

    /// Every call of its API so far, in the order in which they came; the last 100,000 when there are many more.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.provider.calls.all()
    }

    /// What is left in the wallet.
    #[must_use]
    pub fn wallet(&self) -> Wallet {
        self.provider.state().wallet
    }

    /// Every webhook it has sent so far, in the order in which they were answered, and what the receiver did; the last
    /// 10,000 when there are many more.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.provider.attempts.with(<[Attempt]>::to_vec)
    }

    /// Waits until `enough` is content with the attempts so far.
    ///
    /// # Errors
    /// When it is not within `patience`.
    pub async fn attempts_when(
        &self,
        patience: Duration,
        enough: impl Fn(&[Attempt]) -> bool,
    ) -> Result<Vec<Attempt>, Elapsed> {
        timeout(patience, self.provider.attempts.until(enough)).await
    }

    /// Waits until nothing is under way: each OTP is final (but for those that stay `sent` for ever), each webhook
    /// sent as often as it is going to be.
    ///
    /// # Errors
    /// When something is still under way after `patience`.
    pub async fn settled(&self, patience: Duration) -> Result<(), Elapsed> {
        let mut changes = self.provider.under_way.subscribe();
        let settled = timeout(patience, changes.wait_for(|under_way| *under_way == 0)).await?;
        settled.map(|_| ()).expect("the sender is borrowed here");
        Ok(())
    }

    /// Stops: whatever is under way ends here, and all is forgotten.
    pub async fn stop(mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        let mut couriers = mem::take(&mut self.provider.state().couriers);
        couriers.shutdown().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
        self.provider.state().couriers.abort_all();
    }
}
