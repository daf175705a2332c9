//! Environment variables that are no settings but were likely meant to be.

use std::ffi::OsStr;

use super::{SettingsError, known};

/// What the names of our variables begin with: another name that does is a mistake.
const OURS: [&str; 8] =
    ["API_TOKEN", "LIMITS_", "LOG_", "NEXO_", "PROVIDER_", "RECONCILE_", "SERVER_", "STORE_"];

/// Platforms set names that begin like this beside `DATABASE_URL`; without that one it is a mistake.
const DATABASE: &str = "DATABASE_";

/// From this length on a name that differs by one letter is a mistake. Shorter ones are too close to others': `HOST`
/// and `PORT` to `HOME`, `POST` or `SPORT`.
const LONG: usize = 8;

/// From this length on likewise one that differs by two.
const VERY_LONG: usize = 12;

/// Refuses a variable that is none of ours, if it is likely to be meant for us.
///
/// # Errors
/// With the name that was likely meant.
pub(super) fn check(name: &str, value: &OsStr, has_database: bool) -> Result<(), SettingsError> {
    let is_ours = OURS.iter().any(|prefix| name.starts_with(prefix));
    let is_harmless = is_service_link(name, value) || (has_database && name.starts_with(DATABASE));
    if is_harmless || !(is_ours || name.starts_with(DATABASE) || is_near_miss(name)) {
        return Ok(());
    }
    let meant = known::nearest_env(name);
    Err(SettingsError::new(name, format!("no such setting; did you mean {meant}?")))
}

/// Whether Kubernetes sets such a variable for each service of a namespace, `STORE_SERVICE_HOST` for one named `store`,
/// or Docker for a link.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_address = || {
        let scheme = value.to_str().and_then(|value| value.split_once("://")).map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| PROTOCOLS.iter().any(|it| it.eq_ignore_ascii_case(scheme)))
    };
    // `_PORT_5432_TCP`, then nothing, `_ADDR`, `_PORT` or `_PROTO`.
    let is_port = |(_, rest): (&str, &str)| {
        let mut parts = rest.split('_');
        let is_number = parts.next().is_some_and(|it| it.parse::<u16>().is_ok());
        is_number
            && parts.next().is_some_and(|it| PROTOCOLS.contains(&it))
            && parts.next().is_none_or(|it| ["ADDR", "PORT", "PROTO"].contains(&it))
            && parts.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_address())
        || name.split_once("_PORT_").is_some_and(is_port)
}

fn is_near_miss(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    known::names().any(|known| {
        let allowed = match known.len() {
            VERY_LONG.. => 2,
            LONG.. => 1,
            _ => return false,
        };
        strsim::damerau_levenshtein(&upper, &known) <= allowed
    })
}
