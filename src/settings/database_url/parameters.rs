//! The parameters after a database URL's `?`: which the driver gets, which are honoured here, and why others are refused.

use std::time::Duration;

/// What becomes of a parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// The driver gets it as it is.
    ForDriver,
    /// It asks for what is done anyway, or for nothing that is missed without it.
    Granted,
    /// The time limit for opening a connection.
    ConnectTimeout(Duration),
    /// The URL leads to pgbouncer in transaction mode.
    Pgbouncer,
    /// Only certificates of public authorities count, for the host's own name.
    PublicAuthorities,
}

/// What sqlx reads. It logs any other parameter with its value, so that none may reach it.
const FOR_DRIVER: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The longest connect timeout, in seconds, as of `store.connect_seconds`.
const LONGEST_CONNECT: u64 = 3_600;

/// Parameters with a fixed set of values that change nothing; any other value is refused for the reason given.
const NO_DIFFERENCE: [(&str, &[&str], &str); 10] = [
    (
        "target_session_attrs",
        &["any", "read-write", "primary"],
        "this service writes: leave it out, or set it to read-write, and lead the URL to the primary",
    ),
    (
        "channel_binding",
        &["disable", "prefer"],
        "the driver does not support SCRAM-SHA-256-PLUS, so channel_binding=require can't be honoured: set \
         channel_binding=prefer, and sslmode=verify-full so that no other server can pose as this one",
    ),
    (
        "gssencmode",
        &["disable", "prefer"],
        "GSSAPI is not supported: set gssencmode=disable, and sslmode for TLS",
    ),
    ("sslnegotiation", &["postgres"], "TLS without asking first is not supported: leave it out"),
    ("sslcompression", &["0"], "compression in TLS is not supported: leave it out"),
    ("sslsni", &["1"], "TLS always sends the server's name: leave it out"),
    (
        "ssl_min_protocol_version",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "TLS 1.2 and 1.3 are both accepted: leave it out",
    ),
    ("ssl_max_protocol_version", &["TLSv1.3"], "TLS 1.2 and 1.3 are both accepted: leave it out"),
    ("load_balance_hosts", &["disable"], "one server is written to: leave it out"),
    ("client_encoding", &["auto", "utf8", "UTF8", "utf-8", "UTF-8"], "the encoding is UTF8: leave it out"),
];

/// Numbers that ask for TCP keepalive. The driver sets none; a connection that has been idle is checked before it is used,
/// and every wait for the server has a deadline.
const KEEPALIVES: [&str; 5] =
    ["keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"];

/// Known parameters that can't be honoured, and what to do instead.
const REFUSED: [(&str, &str); 30] = [
    ("connection_limit", "set store.read_connections instead"),
    ("gssdelegation", "GSSAPI is not supported"),
    ("gsslib", "GSSAPI is not supported"),
    ("krbsrvname", "GSSAPI is not supported"),
    ("max_connections", "set store.read_connections instead"),
    ("passfile", "set PGPASSFILE, or DATABASE_URL_FILE with the whole URL"),
    ("pool_max_conns", "set store.read_connections instead"),
    ("pool_mode", "set STORE_PGBOUNCER=true if this is pgbouncer in transaction mode"),
    ("pool_timeout", "set store.read_seconds instead"),
    ("prepareThreshold", "set STORE_PGBOUNCER=true if this is pgbouncer in transaction mode"),
    ("prepared_statements", "set STORE_PGBOUNCER=true if this is pgbouncer in transaction mode"),
    ("replication", "this service writes rows and replicates nothing"),
    (
        "require_auth",
        "the driver takes whichever method the server asks for: set sslmode=verify-full instead",
    ),
    ("requirepeer", "the owner of a socket is not checked"),
    ("requiressl", "set sslmode=require instead"),
    ("schema", "set options=-csearch_path%3DNAME instead"),
    ("search_path", "set options=-csearch_path%3DNAME instead"),
    ("service", "service files are not read: write the URL in full"),
    ("servicefile", "service files are not read: write the URL in full"),
    ("socket_timeout", "set store.commit_seconds and store.read_seconds instead"),
    ("ssl", "set sslmode=require or sslmode=verify-full instead"),
    ("sslaccept", "set sslmode=require or sslmode=verify-full instead"),
    ("sslcertmode", "give sslcert and sslkey, or neither"),
    ("sslcrl", "lists of revoked certificates are not read"),
    ("sslcrldir", "lists of revoked certificates are not read"),
    ("sslkeylogfile", "keys are not logged"),
    ("sslpassword", "give an sslkey without a passphrase"),
    ("statement_cache_size", "set STORE_PGBOUNCER=true if this is pgbouncer in transaction mode"),
    ("statement_timeout", "set store.commit_seconds and store.read_seconds instead"),
    ("uselibpqcompat", "sslmode means what it means to libpq: leave it out"),
];

/// Decides about one parameter. No error holds the value, nor a name that is in none of the tables.
///
/// # Errors
/// Why it is refused, and what to do; `None` for a parameter that nobody knows.
pub(super) fn decide(name: &str, value: &str) -> Result<Parameter, Option<String>> {
    let refused = |name: &str, why: &str| Err(Some(format!("{name}: {why}")));
    match name {
        "sslmode" | "ssl-mode" if !SSL_MODES.contains(&value) => {
            refused("sslmode", &format!("must be one of {}", SSL_MODES.join(", ")))
        }
        "sslrootcert" | "ssl-root-cert" if value == "system" => Ok(Parameter::PublicAuthorities),
        "host" | "hostaddr" | "port" if value.contains(',') => {
            refused(name, "names several; give the one of the primary, or a name that follows it")
        }
        "host" => Ok(Parameter::ForDriver),
        "connect_timeout" => match value.parse() {
            Ok(seconds @ 1..=LONGEST_CONNECT) => Ok(Parameter::ConnectTimeout(Duration::from_secs(seconds))),
            _ => refused(name, &format!("must be a whole number of seconds from 1 to {LONGEST_CONNECT}")),
        },
        "pgbouncer" => match value {
            "true" => Ok(Parameter::Pgbouncer),
            "false" => Ok(Parameter::Granted),
            _ => refused(name, "must be true or false"),
        },
        "fallback_application_name" => Ok(Parameter::Granted),
        _ if FOR_DRIVER.contains(&name) || (name.starts_with("options[") && name.ends_with(']')) => {
            Ok(Parameter::ForDriver)
        }
        _ => decide_by_table(name, value),
    }
}

fn decide_by_table(name: &str, value: &str) -> Result<Parameter, Option<String>> {
    if let Some(name) = KEEPALIVES.iter().find(|known| **known == name) {
        return match value.parse::<u32>() {
            Ok(_) => Ok(Parameter::Granted),
            Err(_) => Err(Some(format!("{name}: must be a whole number"))),
        };
    }
    if let Some((name, values, why)) = NO_DIFFERENCE.iter().find(|(known, ..)| *known == name) {
        return if values.contains(&value) {
            Ok(Parameter::Granted)
        } else {
            Err(Some(format!("{name}: {why}")))
        };
    }
    match REFUSED.iter().find(|(known, _)| *known == name) {
        Some((name, why)) => Err(Some(format!("{name} is not supported: {why}"))),
        None => Err(None),
    }
}
