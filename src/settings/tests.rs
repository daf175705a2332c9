//! Layers, ranges, and the line that each mistake gives.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{known, layers::DEFAULTS, *};

/// A secret that no line may ever show.
const HUNTER: &str = "hunter2hunter2hunter2";

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn load(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::load(None, env(pairs))
}

fn error(pairs: &[(&str, &str)]) -> String {
    let error = load(pairs).unwrap_err().to_string();
    assert!(!error.contains(HUNTER) && !error.contains('\n'), "{error}");
    error
}

struct File {
    _folder: TempDir,
    path: PathBuf,
}

fn file(content: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nexo.toml");
    fs::write(&path, content).unwrap();
    File { _folder: folder, path }
}

fn file_error(content: &str) -> String {
    let file = file(content);
    let error = Settings::load(Some(&file.path), []).unwrap_err().to_string();
    assert!(!error.contains(HUNTER) && !error.contains('\n'), "{error}");
    assert!(error.contains("nexo.toml"), "{error}");
    error
}

/// `config/default.toml` with what is commented out put in force.
fn documented() -> Vec<(String, String)> {
    let mut table = String::new();
    let mut documented = Vec::new();
    let mut comment = String::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ") {
            documented.push((format!("{table}.{name}"), std::mem::take(&mut comment)));
        } else if let Some(text) = line.strip_prefix("# ") {
            comment = text.to_owned();
        }
    }
    documented
}

#[test]
fn the_defaults_file_documents_every_setting_and_no_other() {
    let documented = documented();
    let keys: Vec<_> = documented.iter().map(|(key, _)| key.as_str()).collect();
    let known: Vec<_> = known::ALL.iter().map(|known| known.key).collect();
    assert_eq!(keys, known);
    for ((key, comment), known) in documented.iter().zip(known::ALL) {
        let names =
            if known.secret { format!("[{}, secret]", known.env) } else { format!("[{}]", known.env) };
        assert!(comment.ends_with(&names), "{key}: {comment}");
    }
}

#[test]
fn the_defaults_are_the_contracts() {
    let settings = load(&[]).unwrap();
    assert_eq!((settings.server.host.as_str(), settings.server.port), ("127.0.0.1", 3000));
    assert_eq!(settings.http.body_bytes, 64 << 10);
    let Location::Sqlite(sqlite) = &settings.location else { panic!("{:?}", settings.location) };
    assert_eq!(sqlite.folder, PathBuf::from("data"));
    assert_eq!(settings.log.format, logs::Format::Auto);
    assert_eq!(settings.provider.base_url.as_str(), "https://nexoroute.dev/api/v1");
    assert_eq!(settings.warnings(), [""; 0]);
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let file = file("[server]\nport = 1\nhost = \"::1\"\n[store]\nmigrate = false\n[limits]\n");
    let settings =
        Settings::load(Some(&file.path), env(&[("PORT", "2"), ("STORE_PGBOUNCER", "true")])).unwrap();
    assert_eq!((settings.server.host.as_str(), settings.server.port), ("::1", 2));
    assert!(!settings.migrate);
    let printed = settings.print();
    assert!(printed.contains("server.port = 2  # environment PORT\n"), "{printed}");
    assert!(printed.contains(&format!("server.host = \"::1\"  # file {}\n", file.path.display())));
    assert!(printed.contains("store.pgbouncer = true  # environment STORE_PGBOUNCER\n"));
    assert!(printed.contains("limits.batch = 512  # default\n"));
}

#[test]
fn what_is_printed_is_toml_without_secrets() {
    let url = format!("postgres://u:{HUNTER}@127.0.0.1/db");
    let settings = load(&[
        ("NEXO_WEBHOOK_SECRET", HUNTER),
        ("API_TOKEN", HUNTER),
        ("NEXO_KEY", HUNTER),
        ("DATABASE_URL", &url),
        ("DATA_DIR", "a \"b\"\\c"),
    ])
    .unwrap();
    let printed = settings.print();
    assert!(!printed.contains(HUNTER) && !format!("{settings:?}").contains(HUNTER), "{printed}");
    let table: toml::Table = printed.parse().unwrap();
    assert_eq!(table["store"]["database_url"].as_str(), Some("postgres://u:***@127.0.0.1/db"));
    assert_eq!(table["store"]["data_dir"].as_str(), Some("a \"b\"\\c"));
    assert_eq!(table["api"]["token"].as_str(), Some("***"));
    assert!(printed.contains("# api.token_previous is not set\n"));
}

#[test]
fn a_secret_comes_from_a_file_without_its_last_newline() {
    for (content, secret) in [("s3", "s3"), ("s3\n", "s3"), ("s3\r\n", "s3"), (" s3\n\n", " s3\n")] {
        let file = file(content);
        let settings = load(&[("NEXO_WEBHOOK_SECRET_FILE", file.path.to_str().unwrap())]).unwrap();
        assert_eq!(settings.webhook_secret().unwrap().reveal(), secret);
        assert!(settings.print().contains("nexo.toml named by NEXO_WEBHOOK_SECRET_FILE\n"));
    }
    let weak = file("short\n");
    let error = error(&[("API_TOKEN_FILE", weak.path.to_str().unwrap())]);
    assert!(error.starts_with("API_TOKEN_FILE=/") && error.contains("16 characters"), "{error}");
}

#[test]
fn a_secret_file_that_gives_nothing_is_named() {
    let missing = error(&[("API_TOKEN_FILE", "/nowhere/token")]);
    assert!(missing.starts_with("API_TOKEN_FILE: /nowhere/token can't be read: No such file"), "{missing}");
    let empty = file("\n");
    let empty = error(&[("DATABASE_URL_FILE", empty.path.to_str().unwrap())]);
    assert!(empty.starts_with("DATABASE_URL_FILE=/") && empty.contains("empty"), "{empty}");
    let both = error(&[("NEXO_KEY", HUNTER), ("NEXO_KEY_FILE", "/k")]);
    assert_eq!(both, "NEXO_KEY: NEXO_KEY_FILE is set too; set one of them");
    assert!(error(&[("API_TOKEN_FILE", "")]).starts_with("API_TOKEN_FILE"));
}

#[test]
fn each_mistake_in_the_environment_is_named() {
    for (pairs, expected) in [
        (&[("PORT", "http")][..], "PORT: must be a whole number from 0 to 65535, not \"http\""),
        (&[("PORT", "65536")], "PORT: must be a whole number from 0 to 65535, not 65536"),
        (&[("PORT", "")], "PORT: empty; leave it out to have none"),
        (
            &[("HOST", "127.0.0.1:80")],
            "HOST: must be an IP address or a host name, without a port, not \"127",
        ),
        (&[("STORE_MIGRATE", "yes")], "STORE_MIGRATE: must be true or false, not \"yes\""),
        (&[("LIMITS_QUEUE", "0")], "LIMITS_QUEUE: must be a whole number from 1 to 1000000, not 0"),
        (&[("LIMITS_IN_FLIGHT_BYTES", "9")], "LIMITS_IN_FLIGHT_BYTES: must be a whole number from 65536 to "),
        (
            &[("LIMITS_HEAD_SECONDS", "-1")],
            "LIMITS_HEAD_SECONDS: must be a whole number from 1 to 3600, not -1",
        ),
        (&[("LOG_FORMAT", "xml")], "LOG_FORMAT: must be auto, text or json, not \"xml\""),
        (&[("RUST_LOG", "a\nb")], "RUST_LOG: must be levels (off, error, warn, info, debug, trace), also "),
        (&[("NEXO_BASE_URL", "nexoroute.dev")], "NEXO_BASE_URL: must be an http or https URL without "),
        (&[("NEXO_BASE_URL", "http://u:hunter2hunter2hunter2@x/")], "NEXO_BASE_URL: must be an http or "),
        (&[("NEXO_WEBHOOK_SECRET", "")], "NEXO_WEBHOOK_SECRET: empty; leave it out to have none"),
        (
            &[("NEXO_WEBHOOK_SECRET_PREVIOUS", HUNTER)],
            "NEXO_WEBHOOK_SECRET_PREVIOUS: set without webhook.secret",
        ),
        (&[("API_TOKEN", "fifteen-letters")], "API_TOKEN: must have 16 characters at least, not 15"),
        (&[("API_TOKEN", "hunter2hunter2hunter2 ")], "API_TOKEN: must be ASCII letters, digits and signs"),
        (
            &[("DATABASE_URL", "mysql://u:hunter2hunter2hunter2@h/d")],
            "DATABASE_URL: must be postgres://user:",
        ),
        (
            &[("NEXO_WEBHOOK_SECRETS", HUNTER)],
            "NEXO_WEBHOOK_SECRETS: no such setting; did you mean NEXO_WEBHOOK_SECRET?",
        ),
        (&[("NEXO_BASE_URL_FILE", "/x")], "NEXO_BASE_URL_FILE: no such setting; did you mean NEXO_BASE_URL?"),
    ] {
        let error = error(pairs);
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}

#[test]
fn each_mistake_in_a_file_is_named() {
    for (content, expected) in [
        ("[server]\nprot = 1", "no such setting; did you mean server.port?"),
        ("[sever]\nport = 1", "no such setting; did you mean server.port?"),
        ("port = 1", "no such setting; did you mean server.port?"),
        ("webhook = \"hunter2hunter2hunter2\"", "no such setting; did you mean webhook.secret"),
        ("[server]\nport = \"1\"", "must be a whole number from 0 to 65535, not \"1\""),
        ("[server]\nhost = 1", "must be an IP address or a host name, without a port, not 1"),
        ("[server]\nhost = [\"::\"]", "not an array"),
        ("[webhook]\nsecret = 1234567890", "webhook.secret in "),
        ("[webhook]\nsecret = \"\"", "empty"),
        ("[webhook]\n\nsecret = hunter2hunter2hunter2", "no TOML: line 3: "),
        ("[webhook]\nsecret = \"hunter2hunter2hunter2", "no TOML: line 2: "),
        ("[webhook]\nsecret = \"hunter2hunter2hunter2\\q\"", "no TOML: line 2: "),
        ("[api]\ntoken = \"hunter2hunter2hunter2\"\ntoken = \"hunter2hunter2hunter2\"", "no TOML: line 3: "),
        ("\"a\\nb\" = 1", "a\\nb in "),
    ] {
        let error = file_error(content);
        assert!(error.contains(expected), "{error}\n{expected}");
    }
    let missing = Settings::load(Some(Path::new("/nowhere.toml")), []).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere.toml: can't be read: No such file"), "{missing}");
}

#[test]
fn what_is_required_is_asked_for_with_both_ways_to_give_it() {
    let error = load(&[]).unwrap().service().unwrap_err().to_string();
    assert_eq!(
        error,
        "NEXO_WEBHOOK_SECRET: missing; set it, or NEXO_WEBHOOK_SECRET_FILE, or `secret` under [webhook] in a \
         --config file"
    );
    let error = load(&[("NEXO_WEBHOOK_SECRET", "s")]).unwrap().service().unwrap_err().to_string();
    assert!(error.starts_with("API_TOKEN: missing"), "{error}");
    let service = load(&[("NEXO_WEBHOOK_SECRET", "s"), ("API_TOKEN", HUNTER)]).unwrap().service().unwrap();
    assert_eq!(service.webhook_secret.reveal(), "s");
}

#[test]
fn the_environment_of_others_is_left_alone() {
    load(&[
        ("PATH", ""),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("no_proxy", "localhost"),
        ("HOME", "/"),
        ("HOSTNAME", "x"),
        ("POST", "x"),
        ("API_TOKE_RING", ""),
        ("TEST_DATABASE_URL", "x"),
        ("SQLITE_TMPDIR", "/tmp"),
        ("WEBHOOK_SECRET", "x"),
        ("POSTGRES_PASSWORD", "x"),
        // What Kubernetes sets for services that are called nexo-receiver, store, server, log and database.
        ("NEXO_RECEIVER_SERVICE_HOST", "10.0.0.1"),
        ("NEXO_RECEIVER_SERVICE_PORT", "3000"),
        ("NEXO_RECEIVER_SERVICE_PORT_HTTP", "3000"),
        ("NEXO_RECEIVER_PORT", "tcp://10.0.0.1:3000"),
        ("NEXO_RECEIVER_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
        ("NEXO_RECEIVER_PORT_3000_TCP_PROTO", "tcp"),
        ("NEXO_RECEIVER_PORT_3000_TCP_PORT", "3000"),
        ("NEXO_RECEIVER_PORT_3000_TCP_ADDR", "10.0.0.1"),
        ("STORE_SERVICE_HOST", "10.0.0.1"),
        ("STORE_PORT", "udp://10.0.0.1:80"),
        ("SERVER_PORT", "tcp://10.0.0.1:80"),
        ("SERVER_PORT_3000_TCP_ADDR", "10.0.0.1"),
        ("LOG_PORT_5140_UDP_ADDR", "10.0.0.1"),
        ("DATABASE_PORT", "tcp://10.0.0.1:5432"),
        ("DATABASE_SERVICE_PORT_POSTGRES", "5432"),
    ])
    .unwrap();
    // Beside the database's URL a platform sets its parts.
    load(&[
        ("DATABASE_URL", "postgres://u:p@127.0.0.1/db"),
        ("DATABASE_HOST", "127.0.0.1"),
        ("DATABASE_PASSWORD", "p"),
        ("DATABASE_URL_UNPOOLED", "postgres://u:p@127.0.0.1/db"),
    ])
    .unwrap();
}

#[test]
fn a_mistyped_variable_is_refused_with_the_name_that_was_meant() {
    for (name, meant) in [
        ("DATABASE_ULR", "DATABASE_URL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASEURL", "DATABASE_URL"),
        ("database_url", "DATABASE_URL"),
        ("DATABASE_HOST", "DATABASE_URL"),
        ("DATABASE_URL_FIL", "DATABASE_URL"),
        ("DATA_DIRR", "DATA_DIR"),
        ("RUST_LOGS", "RUST_LOG"),
        ("STORE_MIGRATES", "STORE_MIGRATE"),
        ("STORE_PGBOUNCER_FILE", "STORE_PGBOUNCER"),
        ("LIMITS_CONNECTION", "LIMITS_CONNECTIONS"),
        ("limits_queue", "LIMITS_QUEUE"),
        ("SERVER_TRUSTED_PROXY", "SERVER_TRUSTED_PROXIES"),
        ("SERVER_PORT", "PORT"),
        ("API_TOKEN_FIL", "API_TOKEN"),
        ("API_TOKENS", "API_TOKEN"),
        ("LOG_LEVEL", "RUST_LOG"),
        ("RECONCILE_AFTER", "RECONCILE_AFTER_SECONDS"),
        ("PROVIDER_KEY", "NEXO_KEY"),
        ("NEXO_RECEIVER_PORT", "NEXO_BASE_URL"),
        ("NEXO_RECEIVER_PORT_X_TCP_ADDR", "NEXO_WEBHOOK_SECRET_PREVIOUS"),
    ] {
        let error = error(&[(name, "3000")]);
        assert!(error.starts_with(&format!("{name}: no such setting; did you mean ")), "{error}");
        // Of what only looks like a service's link no name is near.
        assert!(name.starts_with("NEXO_RECEIVER") || error.contains(meant), "{error}");
    }
    let file = file("[store]\ndatabase_url = \"postgres://u@127.0.0.1/db\"");
    assert!(Settings::load(Some(&file.path), env(&[("DATABASE_HOST", "127.0.0.1")])).is_ok());
}

#[test]
fn every_secret_that_looks_mangled_is_warned_of_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, format!("\"{HUNTER}\"\n")).unwrap();
    let quoted = format!("\"{HUNTER}\"");
    let url = format!("postgres://u:%22{HUNTER}%22@127.0.0.1/db");
    let settings = load(&[
        ("NEXO_WEBHOOK_SECRET", &format!("{HUNTER}\n")),
        ("NEXO_WEBHOOK_SECRET_PREVIOUS", &quoted),
        ("API_TOKEN_FILE", path.to_str().unwrap()),
        ("API_TOKEN_PREVIOUS", "sha256=0000000000000000"),
        ("NEXO_KEY", "${NEXO_KEY}"),
        ("DATABASE_URL", &url),
    ])
    .unwrap();
    let warnings = settings.warnings();
    assert!(warnings.iter().all(|line| !line.contains(HUNTER)), "{warnings:?}");
    for (start, part) in [
        ("NEXO_WEBHOOK_SECRET ", "white space"),
        ("NEXO_WEBHOOK_SECRET_PREVIOUS ", "in quotes"),
        (&format!("API_TOKEN_FILE={} ", path.display()), "in quotes"),
        ("API_TOKEN_PREVIOUS ", "`sha256=`"),
        ("NEXO_KEY ", "not put in"),
        ("the password in DATABASE_URL ", "in quotes"),
    ] {
        let is_it = |line: &&String| line.starts_with(start) && line.contains(part);
        assert_eq!(warnings.iter().filter(is_it).count(), 1, "{start}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 6, "{warnings:?}");
}

#[test]
fn a_refused_secret_that_looks_mangled_is_said_to() {
    let quoted_url = format!("\"postgres://u:{HUNTER}@h/d\"");
    for (name, value, part) in [
        ("API_TOKEN", "Bearer hunter2hunter2hunter2", "it begins with `Bearer`"),
        ("NEXO_KEY", "hunter2hunter2hunter2\n", "it begins or ends with white space"),
        ("DATABASE_URL", &quoted_url, "it stands in quotes"),
    ] {
        let error = error(&[(name, value)]);
        assert!(error.starts_with(&format!("{name}: must be ")) && error.contains(part), "{error}");
    }
}

#[test]
fn the_logs_format_is_known_while_other_settings_are_wrong() {
    let file = file("wrong = 1\n[log]\nformat = \"text\"\n");
    let format = |pairs: &[(&str, &str)], path| log_format(path, &env(pairs));
    assert_eq!(format(&[], None), logs::Format::Auto);
    assert_eq!(format(&[("LOG_FORMAT", "json")], None), logs::Format::Json);
    assert_eq!(format(&[("LOG_FORMAT", "xml")], Some(&*file.path)), logs::Format::Text);
    assert_eq!(format(&[("LOG_FORMAT", "json")], Some(&*file.path)), logs::Format::Json);
}

#[test]
fn a_database_url_sets_what_no_setting_says() {
    let postgres = |pairs: &[(&str, &str)]| match load(pairs).unwrap().location {
        Location::Postgres(options) => options,
        sqlite => panic!("{sqlite:?}"),
    };
    let url = ("DATABASE_URL", "postgres://u:p@h/db?connect_timeout=10&pgbouncer=true&keepalives=1");
    let options = postgres(&[url]);
    assert_eq!((options.connect_timeout, options.pgbouncer), (Duration::from_secs(10), true));
    assert_eq!(options.url.reveal(), "postgres://u:p@h/db");
    let options = postgres(&[url, ("STORE_CONNECT_SECONDS", "3")]);
    assert_eq!(options.connect_timeout, Duration::from_secs(3));
    let refused =
        error(&[("DATABASE_URL", "postgres://u:hunter2hunter2hunter2@h/db?channel_binding=require")]);
    assert!(refused.starts_with("DATABASE_URL: channel_binding: the driver does not"), "{refused}");
}

#[test]
fn risky_combinations_are_warned_of() {
    let settings = load(&[
        ("NEXO_WEBHOOK_SECRET", "same "),
        ("NEXO_WEBHOOK_SECRET_PREVIOUS", "same "),
        ("DATABASE_URL", "postgres://u:p@db.internal/db"),
        // As the image sets it; with a database it is no more than unused.
        ("DATA_DIR", "/data"),
        ("SERVER_DRAIN_SECONDS", "1"),
    ])
    .unwrap();
    let warnings = settings.warnings().join("\n");
    for part in ["nothing is rotated", "white space", "unencrypted", "drain_seconds"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    // One for each of the two secrets with a space.
    assert_eq!(warnings.lines().count(), 5);
}
