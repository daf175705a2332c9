//! The README's calls work as they are printed.

use std::process::Command;

use nexo_receiver::{
    provider,
    sandbox::{self, NUMBERS},
    secret::Secret,
};

use url::Url;

use crate::support::{
    database::Database, http::API_TOKEN, provider::event, receiver::Receiver, wire::PATIENCE,
};

const README: &str = include_str!("../../README.md");
const ID: &str = "8f2e1c4d-6a1b-4a0e-9c55-0d6f4b1a2c3e";

#[tokio::test(flavor = "multi_thread")]
async fn every_curl_of_the_readme_is_answered_as_it_should() {
    let database = Database::on_sqlite().await;
    {
        let key = || Secret::new(API_TOKEN.into());
        let sandbox = sandbox::start(sandbox::Options::new(key(), key())).await.unwrap();
        let base_url = Url::parse(&sandbox.base_url()).unwrap();
        let provider = provider::Options {
            base_url,
            key: key(),
            connect_timeout: PATIENCE,
            timeout: PATIENCE,
            proxy: None,
        };
        let receiver = Receiver::start_with(&database, |options| options.provider = Some(provider)).await;
        receiver.sender().await.post(&event(ID, "delivered")).await;
        let calls: Vec<_> = README.lines().filter(|line| line.starts_with("curl ")).collect();
        assert!(calls.len() >= 9, "{calls:?}");
        for call in calls {
            let here = call.replace("127.0.0.1:3000", &receiver.address().to_string());
            let here = here.replace("127.0.0.1:4000", &sandbox.addr().to_string());
            assert_ne!(here, call, "it asks the service, or the sandbox");
            // A stream has no end of its own.
            let is_stream = call.contains("/stream");
            let time = if is_stream { "--max-time 1" } else { "" };
            let asked = format!("{here} --fail-with-body --silent --show-error {time}");
            let answer = tokio::task::spawn_blocking(move || {
                Command::new("sh")
                    .args(["-c", &asked])
                    .envs([("API_TOKEN", API_TOKEN), ("NEXO_KEY", API_TOKEN)])
                    .output()
                    .unwrap()
            });
            let answer = answer.await.unwrap();
            let text = String::from_utf8_lossy(&answer.stdout);
            const OUT_OF_TIME: i32 = 28;
            let is_good = answer.status.success() || is_stream && answer.status.code() == Some(OUT_OF_TIME);
            assert!(is_good && !text.is_empty(), "{call}: {answer:?}");
            assert!(!call.contains(ID) || text.contains(ID), "{call}: {text}");
        }
    }
}

#[test]
fn the_readme_lists_the_sandboxs_numbers() {
    let rows: Vec<_> = README.lines().filter(|line| line.starts_with("| +84")).collect();
    let numbers: Vec<_> = NUMBERS.iter().map(|number| format!("| {} | {number} |", number.phone)).collect();
    assert_eq!(rows, numbers);
}

#[test]
fn every_setting_of_the_contract_stands_in_the_readme_and_in_the_defaults() {
    let defaults = include_str!("../../config/default.toml");
    for line in README.lines().filter(|line| line.starts_with("| `")) {
        let names = line.split('|').nth(1).unwrap();
        for name in names.split('`').skip(1).step_by(2) {
            assert!(defaults.contains(&format!("[{name}")), "{name} is no setting");
        }
    }
}
