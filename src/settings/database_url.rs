//! The database URL: whether it is one, how it looks without its password, whether it asks for encryption.
//!
//! Lives here: what can be said without connecting. Does not: connecting (`store`). No error names any part of the
//! URL: when a password's special characters are not escaped, any part may be the password's.

use url::{Host, Url};

/// The parameters that the driver knows, and `options[…]`. It logs any other with its value, which may be a piece
/// of a password.
const PARAMETERS: [&str; 18] = [
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
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

const RIGHT: &str = "must be postgres://user:password@host:port/database, special characters in the password \
                     percent-encoded (`#` as %23, `/` as %2F, `?` as %3F, `@` as %40)";

/// Whether the text is a Postgres's URL.
pub(super) fn check(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("{RIGHT}: {error}"))?;
    if !["postgres", "postgresql"].contains(&url.scheme()) {
        return Err(RIGHT.to_owned());
    }
    if url.fragment().is_some() {
        return Err(format!("{RIGHT}: there is a bare `#`"));
    }
    if url.path().trim_start_matches('/').contains(['/', '@']) || text.contains(char::is_whitespace) {
        return Err(RIGHT.to_owned());
    }
    for (name, value) in url.query_pairs() {
        let is_option = name.starts_with("options[") && name.ends_with(']');
        if !is_option && !PARAMETERS.contains(&&*name) {
            return Err(format!("{RIGHT}: after the `?` stands a parameter that is none of Postgres's"));
        }
        if ["sslmode", "ssl-mode"].contains(&&*name) && !SSL_MODES.contains(&&*value) {
            return Err(format!("sslmode must be one of {}", SSL_MODES.join(", ")));
        }
    }
    Ok(())
}

/// The URL with stars for its password.
pub(super) fn masked(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return "***".to_owned() };
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
    let Ok(url) = Url::parse(text) else { return false };
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
    let encrypted = parameter(["sslmode", "ssl-mode"])
        .is_some_and(|(_, mode)| ["require", "verify-ca", "verify-full"].contains(&&*mode));
    !is_local && !encrypted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_driver_takes() {
        for right in [
            "postgres://u:p@host:5432/db",
            "postgresql://host/db",
            "postgres:///db?host=/var/run/postgresql&user=u",
            "postgres://u:p%23%2F%3F@[::1]/db?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://%2Fvar%2Frun/db?options[statement_timeout]=5s&application_name=x",
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
    }

    #[test]
    fn says_what_is_right_and_nothing_of_a_password() {
        for wrong in [
            "hunter2",
            "mysql://u:hunter2@host/db",
            "postgres://u:hun/ter2@host/db",
            "postgres://u:hunter2#@host/db",
            "postgres://u:12#hunter2@host/db",
            "postgres://u:12?hunter2@host/db",
            "postgres://u:12/hunter2@host/db",
            "postgres://u:hunter2@host:99999/db",
            "postgres://u:hunter2@host/db?sslmode=hunter2",
            "postgres://u:hunter2@host/db\n",
        ] {
            let problem = check(wrong).unwrap_err();
            assert!(!problem.contains("hun") && !problem.contains("ter2"), "{wrong}: {problem}");
        }
    }

    #[test]
    fn a_password_is_masked_wherever_it_stands() {
        for (url, printed) in [
            ("postgres://u:hunter2@host/db", "postgres://u:***@host/db"),
            ("postgres://host/db", "postgres://host/db"),
            (
                "postgres://host/db?password=hunter2&sslmode=require",
                "postgres://host/db?password=***&sslmode=require",
            ),
        ] {
            assert_eq!(masked(url), printed);
        }
    }

    #[test]
    fn a_network_without_enforced_encryption_is_noticed() {
        for (url, expected) in [
            ("postgres://u@db.internal/x", true),
            ("postgres://u@10.0.0.7/x?sslmode=prefer", true),
            ("postgres://u@localhost/x?host=db.internal", true),
            ("postgres://u@db.internal/x?sslmode=verify-full", false),
            ("postgres://u@127.0.0.1/x", false),
            ("postgres://u@[::1]/x", false),
            ("postgres://u@%2Fvar%2Frun/x", false),
            ("postgres:///x", false),
        ] {
            assert_eq!(may_be_in_the_clear(url), expected, "{url}");
        }
    }
}
