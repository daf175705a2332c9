//! URLs as people and vendors write them.

use super::*;

fn for_driver(text: &str) -> String {
    read(text).unwrap_or_else(|problem| panic!("{text}: {problem}")).url.reveal().to_owned()
}

#[test]
fn takes_what_the_driver_takes_as_it_is() {
    for right in [
        "postgres://u:p@host:5432/db",
        "postgresql://host/db",
        "postgres:///db?host=%2Fvar%2Frun%2Fpostgresql&user=u",
        "postgres://u:p%23%2F%3F@[::1]/db?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
        "postgres://%2Fvar%2Frun/db?options%5Bstatement_timeout%5D=5s&application_name=x",
    ] {
        assert_eq!(for_driver(right), right);
    }
}

/// Each as the vendor's page or console gives it out.
#[test]
fn takes_what_vendors_give_out() {
    for (given, driver) in [
        // Neon, with the one value that can't be honoured changed as the error says.
        (
            "postgresql://u:p@ep-x-pooler.eu-central-1.aws.neon.tech/db?sslmode=require&channel_binding=prefer",
            "postgresql://u:p@ep-x-pooler.eu-central-1.aws.neon.tech/db?sslmode=require",
        ),
        // Cloud SQL.
        (
            "postgres://u:p%2Bw+x&y=z@/db?host=/cloudsql/project:region:instance",
            "postgres:///db?user=u&password=p%2Bw%2Bx%26y%3Dz&host=%2Fcloudsql%2Fproject%3Aregion%3Ainstance",
        ),
        ("postgres://u@:5433/db?host=/run/pg", "postgres:///db?user=u&port=5433&host=%2Frun%2Fpg"),
        ("postgres://u:p@/db", "postgres:///db?user=u&password=p"),
        // libpq's own, as Patroni, Heroku and Django have them.
        ("postgres://u:p@host/db?target_session_attrs=read-write", "postgres://u:p@host/db"),
        (
            "postgres://u:p@host/db?keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&\
             tcp_user_timeout=10000&sslmode=require&gssencmode=disable&application_name=otp",
            "postgres://u:p@host/db?sslmode=require&application_name=otp",
        ),
        ("postgres://u:p@host/db?sslrootcert=system", "postgres://u:p@host/db?sslmode=verify-full"),
        (
            "postgres://u:p@host/db?sslmode=verify-full&sslrootcert=system",
            "postgres://u:p@host/db?sslmode=verify-full",
        ),
    ] {
        assert_eq!(for_driver(given), driver, "{given}");
    }
    let asks = read("postgres://u:p@host/db?connect_timeout=10&pgbouncer=true").unwrap();
    assert_eq!((asks.connect_timeout, asks.pgbouncer), (Some(Duration::from_secs(10)), true));
    let asks = read("postgres://u:p@host/db?pgbouncer=false").unwrap();
    assert_eq!((asks.connect_timeout, asks.pgbouncer), (None, false));
}

#[test]
fn names_what_can_not_be_honoured_and_what_to_do() {
    for (query, expected) in [
        (
            "sslmode=require&channel_binding=require",
            "channel_binding: the driver does not support SCRAM-SHA-256-PLUS",
        ),
        ("target_session_attrs=standby", "target_session_attrs: this service writes"),
        (
            "sslmode=no-verify",
            "sslmode: must be one of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("ssl=true", "ssl is not supported: set sslmode=require"),
        ("schema=public", "schema is not supported: set options=-csearch_path%3DNAME"),
        ("connection_limit=5", "connection_limit is not supported: set store.read_connections"),
        ("connect_timeout=0", "connect_timeout: must be a whole number of seconds from 1 to 3600"),
        ("connect_timeout=3601", "connect_timeout: must be a whole number of seconds from 1 to 3600"),
        ("keepalives=yes", "keepalives: must be a whole number"),
        ("gssencmode=require", "gssencmode: GSSAPI is not supported"),
        ("sslrootcert=system&sslmode=require", "sslrootcert=system: must come with sslmode=verify-full"),
        ("host=a,b", "host: names several"),
        ("prepared_statements=false", "prepared_statements is not supported: set STORE_PGBOUNCER=true"),
        (
            "work_mem=4MB",
            "work_mem: no parameter of a database URL; a setting of the server is options[work_mem]=…",
        ),
    ] {
        let problem = read(&format!("postgres://u:hunter2@db.example/db?{query}")).unwrap_err();
        assert!(problem.starts_with(expected), "{problem}\n{expected}");
        assert!(!problem.contains("hunter2") && !problem.contains("db.example"), "{problem}");
    }
    let problem = read("postgres://u:hunter2@a:5432,b:5432/db").unwrap_err();
    assert!(problem.starts_with("names several hosts"), "{problem}");
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
        "postgres://u:12?hunter2=@host/db",
        "postgres://u:a@b?hunter2@host/db",
        "postgres://u:12/hunter2@host/db",
        "postgres://u:hunter2@host:99999/db",
        "postgres://u:hunter2@host/db?sslmode=hunter2",
        "postgres://host/db?user=u&password=a&hunter2",
        "postgres://host/db?hunter2=1",
        "postgres://u:x?hunter2@/db",
        "postgres://u:hunter2@host/db\n",
        "postgres://u:a,hunter2@host/db?x,y",
    ] {
        let problem = read(wrong).unwrap_err();
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
        ("postgres://u:hunter2@/db?host=/s", "postgres:///db?user=u&password=***&host=%2Fs"),
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
        ("postgres://u@db.internal/x?sslrootcert=system", false),
        ("postgres://u@127.0.0.1/x", false),
        ("postgres://u@[::1]/x", false),
        ("postgres://u@%2Fvar%2Frun/x", false),
        ("postgres:///x", false),
        ("postgres://u:p@/x?host=/cloudsql/a", false),
        ("postgres://u:p@/x?host=db.internal", true),
    ] {
        assert_eq!(may_be_in_the_clear(url), expected, "{url}");
    }
}
