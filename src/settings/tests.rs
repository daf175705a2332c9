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
        ("API_TOKEN_OF_SOMEBODY", ""),
        ("NEXO_RECEIVER_SERVICE_HOST", "10.0.0.1"),
        ("NEXO_RECEIVER_PORT_3000_TCP_ADDR", "10.0.0.1"),
        ("NEXO_OTP_SERVICE_PORT_HTTP", "80"),
        ("NEXO_OTP_PORT", "tcp://10.0.0.1:80"),
    ])
    .unwrap();
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
    assert_eq!(warnings.lines().count(), 4);
}
