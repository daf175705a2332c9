//! The service put together: the one way in for the `serve` command and for every test.
//!
//! Lives here: what is started in which order, and stopped in the opposite one. Does not: settings, signals.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    background::Background,
    feed::{self, Feed},
    http::{
        self,
        bearer::Tokens,
        operation::Readiness,
        serve::{self, Stop},
    },
    metrics::Metrics,
    news::{self, News},
    provider::{self, Provider},
    reconcile::{self, Reconciler},
    secret::Secret,
    sending::Sending,
    signature::Keyring,
    store::{
        Store, StoreError,
        open::{Location, open},
    },
    summary, upkeep,
    waiting::{self, Waiters},
    writer::{self, Writer},
};

/// What the service needs to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Where the data is.
    pub location: Location,
    /// Whether to apply missing migrations at the start.
    pub migrate: bool,
    /// The webhook secret.
    pub webhook_secret: Secret,
    /// The one being rotated out.
    pub webhook_secret_previous: Option<Secret>,
    /// The bearer token of the API.
    pub api_token: Secret,
    /// The one being rotated out.
    pub api_token_previous: Option<Secret>,
    /// How the provider is called; `None` where there is no key to do so.
    pub provider: Option<provider::Options>,
    /// When the provider is asked for what no webhook has told.
    pub reconcile: reconcile::Options,
    /// The queue and the group commit.
    pub writer: writer::Options,
    /// Limits of callers.
    pub http: http::Options,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// What was asked for.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store can't be reached or migrated.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The provider can't be called with these settings.
    #[error(transparent)]
    Provider(#[from] provider::Unusable),
}

/// Starts everything; when this returns, the service answers. It first logs where it listens.
///
/// # Errors
/// [`StartError`] when it can't listen, or its store can't be opened.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let (listener, address) = listen(&options.host, options.port).await?;
    // The first line of the log; whoever connects already waits in the backlog.
    tracing::info!("listening on http://{address}");
    starting(&options);

    let store = open(&options.location).await?;
    if options.migrate {
        let applied = store.migrate().await?;
        tracing::debug!(applied, "the schema is this version's");
    } else if let Err(error) = store.ready().await {
        tracing::error!(%error, "not ready: webhooks are answered 503 until this is mended");
    }
    let mut metrics = Metrics::new();
    metrics.watch(&store);
    let metrics = Arc::new(metrics);
    let (news, waiters) = (News::new(), Waiters::new());
    let feed = Feed::new(Arc::clone(&store), Arc::clone(&news), Arc::clone(&metrics));
    let (writer, committing) = Writer::start(
        &options.writer,
        Arc::clone(&store),
        Arc::clone(&metrics),
        Arc::clone(&waiters),
        Arc::clone(&news),
    );
    let provider = options.provider.as_ref();
    let calling = provider.map(|how| call(how, &options.reconcile, &store, &writer, &metrics));
    let (sending, reconciling) = calling.transpose()?.unzip();
    let readiness = Readiness::new(Arc::clone(&store), writer.clone());
    let parts = http::Parts {
        store: Arc::clone(&store),
        writer,
        waiters: Arc::clone(&waiters),
        feed: Arc::clone(&feed),
        sending,
        keyring: Keyring::new(&options.webhook_secret, options.webhook_secret_previous.as_ref()),
        tokens: Tokens::new(&options.api_token, options.api_token_previous.as_ref()),
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
    };
    let (stop, told) = watch::channel(Stop::Never);
    let keeping = keeping(&store);
    let following = following(&waiters, &news, &feed, &store);
    let site = http::site(parts, &options.http);
    let serving =
        tokio::spawn(async move { serve::serve(listener, site, &options.http, metrics, told).await });
    Ok(Running {
        address,
        stop,
        readiness,
        waiters,
        feed,
        serving,
        committing,
        keeping,
        reconciling,
        following,
        store,
    })
}

/// Logs what this process is, and what it works with; nothing of credentials.
fn starting(options: &Options) {
    let provider = options.provider.as_ref().map_or("none", |provider| provider.base_url.as_str());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = %options.location,
        schema = options.location.schema(),
        provider,
        "starting"
    );
}

async fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address: format!("{host}:{port}"), source };
    let listener = TcpListener::bind((host.trim_matches(['[', ']']), port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// What sums up hours that are over, and deletes what is kept for a time only.
fn keeping(store: &Arc<dyn Store>) -> [Background; 2] {
    let (summed, kept) = (Arc::clone(store), Arc::clone(store));
    [
        Background::start("summary", move |told| summary::run(Arc::clone(&summed), told)),
        Background::start("upkeep", move |told| upkeep::run(Arc::clone(&kept), told)),
    ]
}

/// What carries changes to those who wait for them, and to other replicas.
fn following(
    waiters: &Arc<Waiters>,
    news: &Arc<News>,
    feed: &Arc<Feed>,
    store: &Arc<dyn Store>,
) -> [Background; 4] {
    let parts = || (Arc::clone(news), Arc::clone(store));
    let ((waiting, announcing, listening), waiters, feed) =
        ((parts(), parts(), parts()), Arc::clone(waiters), Arc::clone(feed));
    let parts = |(news, store): &(Arc<News>, Arc<dyn Store>)| (Arc::clone(news), Arc::clone(store));
    [
        Background::start("waiting", move |told| {
            let (news, store) = parts(&waiting);
            waiting::follow(Arc::clone(&waiters), news, store, told)
        }),
        Background::start("announcing", move |told| {
            let (news, store) = parts(&announcing);
            news::announce(news, store, told)
        }),
        Background::start("listening", move |told| {
            let (news, store) = parts(&listening);
            news::listen(news, store, told)
        }),
        Background::start("feed", move |told| feed::run(Arc::clone(&feed), told)),
    ]
}

/// What calls the provider.
fn call(
    how: &provider::Options,
    when: &reconcile::Options,
    store: &Arc<dyn Store>,
    writer: &Writer,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<Sending>, Background), StartError> {
    let provider = Provider::new(how)?;
    if let Some(proxy) = &how.proxy {
        tracing::info!(%proxy, "calls to the provider go through a proxy");
    }
    let parts = || (Arc::clone(store), writer.clone(), Arc::clone(metrics));
    let (store, writer, metrics) = parts();
    let sending = Sending::new(how, provider.clone(), store, writer, metrics);
    let (store, writer, metrics) = parts();
    let reconciler = Reconciler::new(when, how.timeout, provider, store, writer, metrics);
    Ok((sending, Background::start("reconcile", move |told| Arc::clone(&reconciler).run(told))))
}

/// A started service.
pub struct Running {
    address: SocketAddr,
    stop: watch::Sender<Stop>,
    readiness: Readiness,
    waiters: Arc<Waiters>,
    feed: Arc<Feed>,
    serving: JoinHandle<bool>,
    committing: JoinHandle<()>,
    keeping: [Background; 2],
    reconciling: Option<Background>,
    following: [Background; 4],
    store: Arc<dyn Store>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a part of the service ends by itself that nothing goes on without; which one.
    pub async fn failed(&self) -> &'static str {
        tokio::select! {
            () = self.stop.closed() => "the accept loop",
            () = self.readiness.writer_ended() => "the writer",
            () = self.store.broken() => "the store",
        }
    }

    /// From now on `/readyz` says 503; all else is served as before, until [`Running::stop`].
    pub fn announce_stop(&self) {
        self.readiness.stop();
    }

    /// Stops: no new connections, what is in flight is finished and committed, then the store is closed. Answers
    /// whether all of it was done within `patience`; what was not is cut off, and was never acknowledged.
    pub async fn stop(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        self.announce_stop();
        // Only if the server is gone already does nobody hear this.
        let _ = self.stop.send(Stop::By(deadline));
        self.waiters.stop();
        self.feed.stop();
        // It holds the writer.
        if let Some(reconciling) = self.reconciling {
            reconciling.stop(deadline).await;
        }
        let drained = self.serving.await.unwrap_or(false);
        // The server's end drops the last handles but this one; then the writer commits what is queued and ends.
        drop(self.readiness);
        let committed = timeout_at(deadline, self.committing).await.is_ok();
        for task in self.keeping.into_iter().chain(self.following) {
            task.stop(deadline).await;
        }
        let closed = timeout_at(deadline, self.store.close()).await.is_ok();
        drained && committed && closed
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::settings::Settings;

    async fn started(folder: &std::path::Path) -> Running {
        let environment = [
            ("NEXO_WEBHOOK_SECRET", "s"),
            ("API_TOKEN", "a-token-of-some-length"),
            ("PORT", "0"),
            ("DATA_DIR", folder.to_str().unwrap()),
        ];
        let settings =
            Settings::load(None, environment.map(|(name, value)| (name.into(), value.into()))).unwrap();
        start(settings.service().unwrap()).await.unwrap()
    }

    /// A task that is aborted leaves behind what one does that panics.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_that_nothing_goes_on_without_is_missed_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        for part in ["the accept loop", "the writer"] {
            let running = started(folder.path()).await;
            assert!(running.failed().now_or_never().is_none());
            if part == "the writer" {
                running.committing.abort()
            } else {
                running.serving.abort()
            }
            assert_eq!(running.failed().await, part);
            running.stop(Duration::from_secs(10)).await;
        }
    }
}
