//! The commands as they are called: exit codes, one line for each mistake, no secret in any.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use crate::support::{database::Database, vectors::vectors};

/// A secret that no line may ever show.
const HUNTER: &str = "hunter2hunter2hunter2";

/// The binary in an empty environment.
fn receiver() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexo-receiver"));
    command.env_clear().stdin(Stdio::null());
    command
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let ran = ran(receiver().args(args).envs(env.iter().copied()).output().unwrap());
    assert!(!ran.stdout.contains(HUNTER) && !ran.stderr.contains(HUNTER), "{}{}", ran.stdout, ran.stderr);
    ran
}

/// Runs what must end with exit code 2 and one line; the line.
fn refused(args: &[&str], env: &[(&str, &str)]) -> String {
    let ran = run(args, env);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.lines().count()),
        (Some(2), "", 1),
        "{}",
        ran.stderr
    );
    ran.stderr
}

#[test]
fn a_wrong_setting_stops_every_command_with_one_line_that_names_it() {
    let both = [("API_TOKEN", HUNTER), ("API_TOKEN_FILE", "/x")];
    let weak = "hunter2hunter2hunter2 with spaces";
    let url = format!("postgres://u:{HUNTER}@h:port/d");
    for (env, name) in [
        (&[][..], "NEXO_WEBHOOK_SECRET: missing"),
        (&[("NEXO_WEBHOOK_SECRET", HUNTER)], "API_TOKEN: missing"),
        (&[("NEXO_WEBHOOK_SECRET", "")], "NEXO_WEBHOOK_SECRET: empty"),
        (&[("NEXO_WEBHOOK_SECRET_FILE", "/nowhere")], "NEXO_WEBHOOK_SECRET_FILE: /nowhere can't be read"),
        (&[("NEXO_SECRET", HUNTER)], "NEXO_SECRET: no such setting"),
        (&[("API_TOKEN", weak)], "API_TOKEN: must be"),
        (&[("API_TOKEN", "short")], "API_TOKEN: must have 16 characters"),
        (&[("DATABASE_URL", &url)], "DATABASE_URL: must be postgres://"),
        (&[("PORT", "70000")], "PORT: must be a whole number from 0 to 65535, not 70000"),
        (&[("RUST_LOG", "loud")], "RUST_LOG: must be levels"),
        (&both, "API_TOKEN: API_TOKEN_FILE is set too"),
    ] {
        for args in [&[][..], &["serve"]] {
            // As the log would be.
            let line: serde_json::Value = serde_json::from_str(&refused(args, env)).unwrap();
            assert_eq!(line["level"], "ERROR");
            assert!(
                line["message"].as_str().unwrap().starts_with(name) && line["timestamp"].is_string(),
                "{line}"
            );
            let text: Vec<_> = env.iter().copied().chain([("LOG_FORMAT", "text")]).collect();
            let line = refused(args, &text);
            assert!(line.starts_with(&format!("nexo-receiver: {name}")), "{line}");
        }
    }
}

#[test]
fn a_wrong_file_is_named_with_the_key_and_the_nearest_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nexo.toml");
    let path = path.to_str().unwrap();
    for (content, parts) in [
        (
            "[webhook]\nsecrets = \"hunter2hunter2hunter2\"",
            ["webhook.secrets in ", "did you mean webhook.secret?"],
        ),
        ("[webhook]\nsecret = hunter2hunter2hunter2", ["nexo.toml: no TOML", "line 2"]),
        ("[limits]\nbatch = 0", ["limits.batch in ", "from 1 to 65536, not 0"]),
    ] {
        fs::write(path, content).unwrap();
        let line = refused(&["--config", path], &[]);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    let line = refused(&["serve", "--config", "/nowhere.toml"], &[]);
    assert!(line.contains("/nowhere.toml: can't be read"), "{line}");
}

#[test]
fn config_check_prints_what_is_in_force_and_where_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, format!("{HUNTER}\n")).unwrap();
    let config = folder.path().join("nexo.toml");
    fs::write(&config, "[limits]\nbatch = 64\n").unwrap();
    let url = format!("postgres://u:{HUNTER}@db.internal/nexo");
    let env = [
        ("NEXO_WEBHOOK_SECRET", HUNTER),
        ("NEXO_WEBHOOK_SECRET_PREVIOUS", HUNTER),
        ("API_TOKEN_FILE", token.to_str().unwrap()),
        ("DATABASE_URL", &url),
    ];
    let ran = run(&["config", "check", "--config", config.to_str().unwrap()], &env);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    ran.stdout.parse::<toml::Table>().unwrap();
    let printed = ran.stdout.replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(printed);
}

#[test]
fn config_check_prints_also_when_something_is_missing() {
    let ran = run(&["config", "check"], &[("API_TOKEN", HUNTER)]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stdout.contains("api.token = \"***\"  # environment API_TOKEN\n"), "{}", ran.stdout);
    assert!(ran.stderr.starts_with("nexo-receiver: NEXO_WEBHOOK_SECRET: missing"), "{}", ran.stderr);
}

#[test]
fn help_and_version_need_no_setting() {
    insta::assert_snapshot!(run(&["--help"], &[]).stdout);
    let version = run(&["--version"], &[]);
    assert_eq!(
        (version.code, version.stdout),
        (Some(0), format!("nexo-receiver {}\n", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(run(&["frobnicate"], &[]).code, Some(2));
}

#[test]
fn health_without_anybody_listening_is_one_line_and_exit_1() {
    // No port that a test beside this one could be given.
    let port = "1";
    for args in [&["health"][..], &["health", "--ready"]] {
        let ran = run(args, &[("PORT", port), ("HOST", "0.0.0.0")]);
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("http://127.0.0.1:{port}/")), "{}", ran.stderr);
    }
    let ran = run(&["health"], &[("PORT", "0")]);
    assert!(ran.code == Some(1) && ran.stderr.contains("PORT is 0"), "{}", ran.stderr);
}

/// Asks a listener that answers a request with these bytes, and waits until the asker is gone.
fn health_of(answer: &'static [u8]) -> Ran {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        stream.write_all(answer).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let ran = run(&["health", "--ready"], &[("PORT", &port)]);
    answering.join().unwrap();
    ran
}

#[test]
fn health_tells_a_bad_answer_in_one_line() {
    let ran = health_of(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 12\r\n\r\nthe store\nis");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.ends_with("/readyz answered 503: the store\\nis\n"), "{}", ran.stdout);
    let ran = health_of(b"SSH-2.0-OpenSSH\r\n");
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{}", ran.stderr);
}

#[test]
fn health_does_not_wait_for_ever() {
    let ran = health_of(b"");
    assert!(ran.code == Some(1) && ran.stderr.contains("no answer within 3 s"), "{}", ran.stderr);
}

#[test]
fn verify_finds_every_vector_right() {
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    for vector in vectors() {
        fs::write(&body, &vector.body).unwrap();
        let args = ["verify", "--body", body.to_str().unwrap(), "--signature", &vector.signature];
        let ran = run(&args, &[("NEXO_WEBHOOK_SECRET", &vector.secret)]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "right: signed with webhook.secret\n"));
        let ran =
            run(&args, &[("NEXO_WEBHOOK_SECRET", "new"), ("NEXO_WEBHOOK_SECRET_PREVIOUS", &vector.secret)]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), "right: signed with webhook.secret_previous\n")
        );
        let ran = run(&args, &[("NEXO_WEBHOOK_SECRET", HUNTER)]);
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.stdout.starts_with("wrong: made with another secret, or over another body"),
            "{}",
            ran.stdout
        );
    }
}

#[test]
fn verify_reads_standard_input_and_says_what_is_wrong() {
    let vector = &vectors()[0];
    let mut child = receiver()
        .args(["verify", "--body", "-", "--signature", &vector.signature])
        .env("NEXO_WEBHOOK_SECRET", &vector.secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let body = [&vector.body[..], b"\n"].concat();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (
            Some(1),
            "wrong: the file has a newline at its end that the signed body has not (but for that, signed with \
             webhook.secret)\n"
        )
    );
}

#[test]
fn verify_needs_a_secret_and_a_body() {
    let line = refused(&["verify", "--body", "/nowhere", "--signature", "x"], &[]);
    assert!(line.contains("NEXO_WEBHOOK_SECRET: missing"), "{line}");
    let ran = run(&["verify", "--body", "/nowhere", "--signature", "x"], &[("NEXO_WEBHOOK_SECRET", "s")]);
    assert!(ran.code == Some(1) && ran.stderr.contains("/nowhere can't be read"), "{}", ran.stderr);
}

#[test]
fn backup_of_a_postgres_points_to_its_own_tool() {
    let ran =
        run(&["backup", "/tmp/x"], &[("DATABASE_URL", "postgres://u:hunter2hunter2hunter2@127.0.0.1/d")]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("use pg_dump"), "{}", ran.stderr);
}

/// Every command that needs a store, as it is called.
const NEED_A_STORE: [&[&str]; 4] = [
    &["backup", "copy.db"],
    &["rebuild", "--check"],
    &["reprocess"],
    &["reconcile", "--from", "2026-05-26T00:00:00Z"],
];

/// All that is in a folder, and in those within it.
fn found_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(found_in(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn a_command_that_needs_a_store_makes_none_and_says_where_it_looked() {
    let place = tempfile::tempdir().unwrap();
    let empty_folder = place.path().join("empty-folder");
    let empty_file = place.path().join("empty-file");
    let other_file = place.path().join("other-file");
    for folder in [&empty_folder, &empty_file, &other_file] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(empty_file.join("nexo-receiver.db"), b"").unwrap();
    fs::write(other_file.join("nexo-receiver.db"), b"no database").unwrap();
    let before = found_in(place.path());
    let here = place.path().to_str().unwrap();
    for args in NEED_A_STORE {
        // The first is the default, `data` in the folder where the command is called.
        for (given, folder) in [(None, "data"), (Some("nowhere"), "nowhere")]
            .into_iter()
            .chain(["empty-folder", "empty-file", "other-file"].map(|folder| (Some(folder), folder)))
        {
            let mut command = receiver();
            command.args(args).current_dir(place.path()).env("NEXO_KEY", HUNTER);
            if let Some(folder) = given {
                command.env("DATA_DIR", folder);
            }
            let ran = ran(command.output().unwrap());
            let what = format!("{args:?} in {folder}: {}{}", ran.stdout, ran.stderr);
            assert_eq!(
                (ran.code, ran.stdout.as_str(), ran.stderr.lines().count()),
                (Some(1), "", 1),
                "{what}"
            );
            assert!(ran.stderr.contains(&format!("{here}/{folder}")) || folder == "other-file", "{what}");
            assert!(folder == "other-file" || ran.stderr.contains("DATA_DIR"), "{what}");
            assert!(folder == "other-file" || ran.stderr.contains("`nexo-receiver migrate`"), "{what}");
            assert_eq!(found_in(place.path()), before, "{what}");
        }
    }
    let made = receiver().arg("migrate").current_dir(place.path()).output().unwrap();
    assert!(made.status.success());
    for args in &NEED_A_STORE[..3] {
        let ran = ran(receiver().args(*args).current_dir(place.path()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{args:?}: {}{}", ran.stdout, ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_needs_a_store_makes_no_schema() {
    let database = Database::empty_on_postgres().await;
    for args in &NEED_A_STORE[1..] {
        let ran = ran(receiver()
            .args(*args)
            .envs(database.environment())
            .env("NEXO_KEY", HUNTER)
            .output()
            .unwrap());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("`nexo-receiver migrate`"), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(&database.name()), "{args:?}: {}", ran.stderr);
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.number(tables).await, 0);
}
