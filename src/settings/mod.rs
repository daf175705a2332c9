//! What the service is told: built-in defaults, a TOML file over them, the environment over both.
//!
//! Lives here: [`Settings`], and which range each value has. Does not: what components do with their options, which
//! they define themselves and which are only filled here. Nothing else reads the environment.

mod check;
mod database_url;
mod known;
mod layers;
mod mangled;
mod proxy;
mod strays;
mod values;

use std::{
    ffi::OsString,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use url::Url;

use crate::{
    http, logs, provider, reconcile,
    secret::Secret,
    service,
    store::{open::Location, postgres, sqlite},
    writer,
};
use layers::Layers;
pub use layers::log_format;
use proxy::Proxies;

/// A setting that is wrong, unknown or missing, in one line: its name, and what would be right. Never the value of a
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    fn new(name: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self(logs::one_line(&format!("{name}: {problem}")))
    }
}

/// Where the service listens, and how long it takes to stop.
#[derive(Debug, Clone)]
pub struct Server {
    /// An address or a name that stands for one.
    pub host: String,
    /// The port; 0 for a free one.
    pub port: u16,
    /// How long new connections are still served at the end.
    pub notice: Duration,
    /// How long what is under way may then take.
    pub drain: Duration,
}

/// A secret, and the one that is being rotated out.
#[derive(Debug, Clone)]
pub struct Rotated {
    /// The present one.
    pub current: Option<Secret>,
    /// The one before.
    pub previous: Option<Secret>,
}

/// How the provider is called.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The API key; without it the provider is not called.
    pub key: Option<Secret>,
    /// Where the provider is.
    pub base_url: Url,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a call may take.
    pub timeout: Duration,
}

/// All settings, each checked. What only `serve` requires may be missing still: [`Settings::service`] asks for it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the service listens.
    pub server: Server,
    /// The webhook secrets.
    pub webhook: Rotated,
    /// The bearer tokens.
    pub api: Rotated,
    /// Where the data is.
    pub location: Location,
    /// Whether `serve` applies missing migrations.
    pub migrate: bool,
    /// The queue.
    pub writer: writer::Options,
    /// The limits of serving.
    pub http: http::Options,
    /// The log.
    pub log: logs::Options,
    /// The provider.
    pub provider: Provider,
    /// When the provider is asked for what no webhook has told.
    pub reconcile: reconcile::Options,
    proxies: Proxies,
    layers: Layers,
}

/// The process's environment, for [`Settings::load`].
pub fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

impl Settings {
    /// Reads the defaults, the file if there is one, and the environment.
    ///
    /// # Errors
    /// The first setting that is wrong or unknown.
    pub fn load(
        config: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let proxies = Proxies::find(&environment);
        let layers = Layers::collect(config, environment)?;
        Ok(Self {
            server: server(&layers)?,
            webhook: rotated(&layers, "webhook.secret", "webhook.secret_previous", |_| Ok(()))?,
            api: rotated(&layers, "api.token", "api.token_previous", check_token)?,
            location: location(&layers)?,
            migrate: layers.flag("store.migrate")?,
            writer: writer(&layers)?,
            http: http(&layers)?,
            log: log(&layers)?,
            provider: provider(&layers)?,
            reconcile: reconcile(&layers)?,
            proxies,
            layers,
        })
    }

    /// What the service needs to start.
    ///
    /// # Errors
    /// The first required setting that is missing.
    pub fn service(&self) -> Result<service::Options, SettingsError> {
        Ok(service::Options {
            host: self.server.host.clone(),
            port: self.server.port,
            location: self.location.clone(),
            migrate: self.migrate,
            webhook_secret: self.webhook_secret()?,
            webhook_secret_previous: self.webhook.previous.clone(),
            api_token: self.api_token()?,
            api_token_previous: self.api.previous.clone(),
            provider: self.provider.key.is_some().then(|| self.provider()).transpose()?,
            reconcile: self.reconcile.clone(),
            writer: self.writer.clone(),
            http: self.http.clone(),
        })
    }

    /// The present webhook secret.
    ///
    /// # Errors
    /// When there is none.
    pub fn webhook_secret(&self) -> Result<Secret, SettingsError> {
        required(self.webhook.current.as_ref(), "webhook.secret")
    }

    /// The present bearer token.
    ///
    /// # Errors
    /// When there is none.
    pub fn api_token(&self) -> Result<Secret, SettingsError> {
        required(self.api.current.as_ref(), "api.token")
    }

    /// What calls to the provider need.
    ///
    /// # Errors
    /// When there is no key, or no sense in the variable that names the proxy.
    pub fn provider(&self) -> Result<provider::Options, SettingsError> {
        let Provider { key, base_url, connect_timeout, timeout } = &self.provider;
        Ok(provider::Options {
            base_url: base_url.clone(),
            key: required(key.as_ref(), "provider.key")?,
            connect_timeout: *connect_timeout,
            timeout: *timeout,
            proxy: self.proxies.on_the_way_to(base_url)?,
        })
    }
}

fn required(secret: Option<&Secret>, key: &str) -> Result<Secret, SettingsError> {
    secret.cloned().ok_or_else(|| {
        let known = known::by_key(key).expect("a required setting is known");
        let (table, name) = known.table_and_name();
        let env = known.env;
        SettingsError::new(
            env,
            format!("missing; set it, or {env}_FILE, or `{name}` under [{table}] in a --config file"),
        )
    })
}

/// The longest time that any setting in seconds may be.
const HOUR: u64 = 3_600;

fn server(layers: &Layers) -> Result<Server, SettingsError> {
    let host = |text: &str| {
        let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        (text.parse::<IpAddr>().is_ok() || is_name(text)).then(|| text.to_owned())
    };
    Ok(Server {
        host: layers.text("server.host", "an IP address or a host name, without a port", host)?,
        port: layers.number("server.port", 0..=u16::MAX)?,
        notice: layers.number("server.notice_seconds", 0..=HOUR).map(Duration::from_secs)?,
        drain: layers.seconds("server.drain_seconds", HOUR)?,
    })
}

fn rotated(
    layers: &Layers,
    current: &str,
    previous: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Rotated, SettingsError> {
    let rotated =
        Rotated { current: layers.secret(current, &check)?, previous: layers.secret(previous, &check)? };
    match layers.get(previous) {
        Some(given) if rotated.current.is_none() => {
            Err(given.error(format!("set without {current}, which it would be the one before of")))
        }
        _ => Ok(rotated),
    }
}

/// The fewest characters of a bearer token.
const SHORTEST_TOKEN: usize = 16;

fn check_token(token: &str) -> Result<(), String> {
    check_header_text(token)?;
    match token.len() {
        SHORTEST_TOKEN.. => Ok(()),
        length => Err(format!("must have {SHORTEST_TOKEN} characters at least, not {length}")),
    }
}

/// What travels in a header has to fit there.
fn check_header_text(text: &str) -> Result<(), String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("must be ASCII letters, digits and signs, without white space".to_owned())
    }
}

fn location(layers: &Layers) -> Result<Location, SettingsError> {
    let folder = |text: &str| (!text.contains(char::is_control)).then(|| PathBuf::from(text));
    let folder = layers.text("store.data_dir", "a folder's path", folder)?;
    let pgbouncer = layers.flag("store.pgbouncer")?;
    let migration_lock = layers.flag("store.migration_lock")?;
    let changes = layers.flag("store.changes")?;
    let read_connections = layers.number("store.read_connections", 1..=1_000)?;
    let connect_timeout = layers.seconds("store.connect_seconds", HOUR)?;
    let commit_timeout = layers.seconds("store.commit_seconds", HOUR)?;
    let read_timeout = layers.seconds("store.read_seconds", HOUR)?;
    let Some(asked) = layers.secret_as("store.database_url", database_url::read)? else {
        return Ok(Location::Sqlite(sqlite::Options {
            folder,
            read_connections,
            commit_timeout,
            read_timeout,
        }));
    };
    // Our own setting is the one that was meant for this service.
    let connect_timeout = asked
        .connect_timeout
        .filter(|_| layers.is_default("store.connect_seconds"))
        .unwrap_or(connect_timeout);
    Ok(Location::Postgres(postgres::Options {
        url: asked.url,
        pgbouncer: pgbouncer || asked.pgbouncer,
        migration_lock,
        changes,
        read_connections,
        connect_timeout,
        commit_timeout,
        read_timeout,
    }))
}

/// The most bytes that a limit on all bodies together may be.
const MOST_BYTES: usize = 1 << 40;

/// Room for one page at least, as text.
const LEAST_ANSWER_BYTES: usize = 1 << 20;

fn writer(layers: &Layers) -> Result<writer::Options, SettingsError> {
    Ok(writer::Options {
        queue: layers.number("limits.queue", 1..=1_000_000)?,
        queue_bytes: layers.number("limits.queue_bytes", body_bytes(layers)?..=MOST_BYTES)?,
        batch: layers.number("limits.batch", 1..=65_536)?,
        log_events: layers.text("log.events", "off, sampled or all", logs::Events::parse)?,
        // So that the answer comes within the time of a commit.
        lock_wait: layers.seconds("store.commit_seconds", HOUR)?.mul_f64(0.9),
    })
}

fn http(layers: &Layers) -> Result<http::Options, SettingsError> {
    let body_bytes = body_bytes(layers)?;
    Ok(http::Options {
        body_bytes,
        in_flight_bytes: layers.number("limits.in_flight_bytes", body_bytes..=MOST_BYTES)?,
        answer_bytes: layers.number("limits.answer_bytes", LEAST_ANSWER_BYTES..=MOST_BYTES)?,
        connections: layers.number("limits.connections", 1..=1_000_000)?,
        head_timeout: layers.seconds("limits.head_seconds", HOUR)?,
        body_timeout: layers.seconds("limits.body_seconds", HOUR)?,
        idle_timeout: layers.seconds("limits.idle_seconds", HOUR)?,
        write_timeout: layers.seconds("limits.write_seconds", HOUR)?,
        answer_timeout: layers.seconds("limits.answer_seconds", HOUR)?,
        trusted_proxies: layers.text(
            "server.trusted_proxies",
            "none, or addresses or networks, separated by commas: 10.0.0.0/8, 192.0.2.7",
            networks,
        )?,
        refused_per_address: layers.number("limits.refused_per_address", 0..=MOST_REFUSED)?,
        refused_per_second: layers.number("limits.refused_per_second", 0..=MOST_REFUSED)?,
    })
}

/// The most refusals in a second that a limit may be.
const MOST_REFUSED: u32 = 1_000_000;

fn networks(text: &str) -> Option<Vec<IpNet>> {
    let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    if text == "none" { Some(Vec::new()) } else { text.split(',').map(str::trim).map(network).collect() }
}

fn body_bytes(layers: &Layers) -> Result<usize, SettingsError> {
    layers.number("limits.body_bytes", 1..=16 << 20)
}

fn log(layers: &Layers) -> Result<logs::Options, SettingsError> {
    Ok(logs::Options {
        format: layers.text("log.format", "auto, text or json", logs::Format::parse)?,
        filter: layers.text(
            "log.filter",
            "levels (off, error, warn, info, debug, trace), also per module: info,sqlx=warn",
            logs::Filter::parse,
        )?,
    })
}

fn provider(layers: &Layers) -> Result<Provider, SettingsError> {
    let base_url = |text: &str| {
        let url = Url::parse(text).ok()?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let is_http = ["http", "https"].contains(&url.scheme()) && url.fragment().is_none();
        (is_plain && is_http).then_some(url)
    };
    Ok(Provider {
        key: layers.secret("provider.key", check_header_text)?,
        base_url: layers.text(
            "provider.base_url",
            "an http or https URL without user, query or fragment",
            base_url,
        )?,
        connect_timeout: layers.seconds("provider.connect_seconds", HOUR)?,
        timeout: layers.seconds("provider.call_seconds", HOUR)?,
    })
}

/// The most calls to the provider in a second.
const MOST_CALLS: u32 = 1_000;

fn reconcile(layers: &Layers) -> Result<reconcile::Options, SettingsError> {
    Ok(reconcile::Options {
        after: layers.seconds("reconcile.after_seconds", HOUR)?,
        calls_per_second: layers.number("reconcile.calls_per_second", 1..=MOST_CALLS)?,
    })
}

#[cfg(test)]
mod tests;
