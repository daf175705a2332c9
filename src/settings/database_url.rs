//! The database URL: whether it is one, what it asks for, how it looks without its password.
//!
//! Connecting belongs to `store`. No error shows any part of the URL that may be a piece of the password: special
//! characters that are not escaped put it anywhere.

mod parameters;

use std::time::Duration;

use url::{Host, Url};

use crate::secret::Secret;
use parameters::{Parameter, decide};

const RIGHT: &str = "must be postgres://user:password@host:port/database, special characters in the password \
                     percent-encoded (`#` as %23, `/` as %2F, `?` as %3F, `@` as %40)";

/// A database URL, and what it asks of this service rather than of the driver.
#[derive(Debug)]
pub(super) struct DatabaseUrl {
    /// The URL as the driver takes it.
    pub(super) url: Secret,
    /// How long opening a connection may take.
    pub(super) connect_timeout: Option<Duration>,
    /// Whether it leads to pgbouncer in transaction mode.
    pub(super) pgbouncer: bool,
}

/// Reads a URL as libpq and vendors of databases write it.
pub(super) fn read(text: &str) -> Result<DatabaseUrl, String> {
    if authority(text).is_some_and(|authority| host(authority).contains(',')) {
        return Err("names several hosts: give the one of the primary, or a name that follows it".to_owned());
    }
    let mut url = Url::parse(&with_host_apart(text)).map_err(|error| format!("{RIGHT}: {error}"))?;
    if !["postgres", "postgresql"].contains(&url.scheme()) {
        return Err(RIGHT.to_owned());
    }
    if url.fragment().is_some() {
        return Err(format!("{RIGHT}: there is a bare `#`"));
    }
    if url.path().trim_start_matches('/').contains(['/', '@']) || text.contains(char::is_whitespace) {
        return Err(RIGHT.to_owned());
    }
    let (mut connect_timeout, mut pgbouncer, mut public) = (None, false, false);
    let mut for_driver = Vec::new();
    for (n, (name, value)) in url.query_pairs().into_owned().enumerate() {
        match decide(&name, &value).map_err(|why| why.unwrap_or_else(|| unknown(&url, n, &name)))? {
            Parameter::ForDriver => for_driver.push((name, value)),
            Parameter::Granted => {}
            Parameter::ConnectTimeout(timeout) => connect_timeout = Some(timeout),
            Parameter::Pgbouncer => pgbouncer = true,
            Parameter::PublicAuthorities => public = true,
        }
    }
    if public {
        for_driver = verified_in_full(for_driver)?;
    }
    url.set_query(None);
    if !for_driver.is_empty() {
        url.query_pairs_mut().extend_pairs(for_driver);
    }
    Ok(DatabaseUrl { url: Secret::new(url.into()), connect_timeout, pgbouncer })
}

/// `sslrootcert=system` implies `sslmode=verify-full` and goes with no other, as in libpq. The driver knows the public
/// authorities anyway.
fn verified_in_full(mut parameters: Vec<(String, String)>) -> Result<Vec<(String, String)>, String> {
    match parameters.iter().rfind(|(name, _)| ["sslmode", "ssl-mode"].contains(&&**name)) {
        None => parameters.push(("sslmode".to_owned(), "verify-full".to_owned())),
        Some((_, mode)) if mode == "verify-full" => {}
        Some(_) => return Err("sslrootcert=system: must come with sslmode=verify-full".to_owned()),
    }
    Ok(parameters)
}

/// Names an unknown parameter, unless it may be a piece of the password: where that stands before an `@`, nothing of it
/// comes after the `?`.
fn unknown(url: &Url, n: usize, name: &str) -> String {
    let plain = |text: &str| text.len() <= 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_credential = |name: &str| ["user", "password"].contains(&name);
    let is_apart = !url.username().is_empty()
        && !url.query().unwrap_or_default().contains('@')
        && !url.query_pairs().any(|(name, _)| is_credential(&name));
    if is_apart && plain(name) {
        format!("{name}: no parameter of a database URL; a setting of the server is options[{name}]=…")
    } else {
        format!("{RIGHT}: parameter {} after the `?` is none of a database URL's", n + 1)
    }
}

/// What stands between `://` and the path.
fn authority(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    rest.split(['/', '?', '#']).next()
}

/// The host and port of an authority.
fn host(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A user without a host, as in `postgres://user:password@/database?host=/socket`, is a URL to libpq and none to the
/// standard. This moves user, password and port behind the `?`, before what stands there.
fn with_host_apart(text: &str) -> String {
    let parts = text.split_once("://").zip(authority(text));
    let Some(((scheme, rest), authority)) = parts else { return text.to_owned() };
    let host = host(authority);
    let Some(credentials) = authority.strip_suffix(host).and_then(|left| left.strip_suffix('@')) else {
        return text.to_owned();
    };
    if !(host.is_empty() || host.starts_with(':')) {
        return text.to_owned();
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let escaped = |text: &str| text.replace('+', "%2B").replace('&', "%26");
    let mut parameters = format!("user={}", escaped(user));
    for (name, value) in [("password", &*escaped(password)), ("port", host.trim_start_matches(':'))] {
        if !value.is_empty() {
            parameters += &format!("&{name}={value}");
        }
    }
    let path = &rest[authority.len()..];
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let and = if query.is_empty() { "" } else { "&" };
    format!("{scheme}://{path}?{parameters}{and}{query}")
}

/// The URL with stars for its password.
pub(super) fn masked(text: &str) -> String {
    let Ok(mut url) = Url::parse(&with_host_apart(text)) else { return "***".to_owned() };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if parameters.iter().any(|(name, _)| name == "password") {
        let mask = |(name, value): &(String, String)| {
            let value = if name == "password" { "***" } else { value };
            (name.clone(), value.to_owned())
        };
        url.query_pairs_mut().clear().extend_pairs(parameters.iter().map(mask));
    }
    url.into()
}

/// Whether what goes to the database may cross a network unencrypted.
pub(super) fn may_be_in_the_clear(text: &str) -> bool {
    let Ok(url) = Url::parse(&with_host_apart(text)) else { return false };
    let parameter = |names: [&str; 2]| url.query_pairs().filter(|(name, _)| names.contains(&&**name)).last();
    let host = parameter(["host", "hostaddr"]).map(|(_, value)| value.into_owned());
    let host = host.or_else(|| url.host_str().map(|host| host.replace("%2F", "/").replace("%2f", "/")));
    let is_local = match host.as_deref() {
        None | Some("" | "localhost") => true,
        Some(path) if path.starts_with('/') => true,
        Some(name) => match Host::parse(name) {
            Ok(Host::Ipv4(address)) => address.is_loopback(),
            Ok(Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        },
    };
    let public = parameter(["sslrootcert", "ssl-root-cert"]).is_some_and(|(_, value)| value == "system");
    let encrypted = public
        || parameter(["sslmode", "ssl-mode"])
            .is_some_and(|(_, mode)| ["require", "verify-ca", "verify-full"].contains(&&*mode));
    !is_local && !encrypted
}

#[cfg(test)]
mod tests;
