//! What to do about errors of Postgres, pgbouncer and TLS that a wrong setting of this service's causes.

/// What to do about an error, where the error itself does not say.
pub(super) fn advice(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        sqlx::Error::Database(answer) => match answer.code()?.as_ref() {
            // Statements' names are a server connection's own: behind a pooler another client may have taken it, or got
            // the connection that has it.
            "42P05" | "26000" => Some(
                "is this pgbouncer or another pooler in transaction mode? Then set STORE_PGBOUNCER=true \
                 (store.pgbouncer)",
            ),
            "08P01" => startup_parameter(answer.message()),
            _ => None,
        },
        // The library gives no other sign of it.
        sqlx::Error::Io(fault) if fault.to_string().contains("UnsupportedCertVersion") => Some(
            "the server's certificate is of X.509 version 1, which can't be read here: replace it with one of version \
             3, or set sslmode=disable in the database URL where the network can be trusted",
        ),
        _ => None,
    }
}

/// pgbouncer refuses startup parameters that it does not track.
fn startup_parameter(message: &str) -> Option<&'static str> {
    let (_, parameter) = message.split_once("unsupported startup parameter")?;
    match parameter.contains("extra_float_digits") {
        true => Some("this is pgbouncer: set STORE_PGBOUNCER=true (store.pgbouncer)"),
        false => Some(
            "pgbouncer takes no `options`: leave them out of the database URL, and set the same with ALTER ROLE … SET",
        ),
    }
}
