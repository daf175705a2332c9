//! What is in force, printed, and which combinations are risky.

use std::path::Path;

use super::{
    Settings, database_url, known,
    layers::{Given, Origin, Value},
    mangled, values,
};
use crate::{secret::Secret, store::open::Location};

impl Settings {
    /// Every setting in a line of TOML: its value, and where that came from. Secrets are stars.
    #[must_use]
    pub fn print(&self) -> String {
        let line = |known: &known::Known| match self.layers.get(known.key) {
            None => format!("# {} is not set\n", known.key),
            Some(given) => {
                let value = printed(given);
                format!("{} = {value}  # {}\n", known.key, crate::logs::one_line(&origin(given)))
            }
        };
        known::ALL.iter().map(line).collect()
    }

    /// What is allowed and yet likely not meant, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |is_risky: bool, warning: String| warnings.extend(is_risky.then_some(warning));
        for (rotated, key) in [(&self.webhook, "webhook.secret"), (&self.api, "api.token")] {
            let same =
                rotated.current.as_ref().map(Secret::reveal) == rotated.previous.as_ref().map(Secret::reveal);
            let is_set = rotated.previous.is_some();
            warn(
                same && is_set,
                format!("{key} and {key}_previous are the same, so that nothing is rotated"),
            );
        }
        if let Location::Postgres(postgres) = &self.location {
            warn(
                database_url::may_be_in_the_clear(postgres.url.reveal()),
                "the way to Postgres may be unencrypted; sslmode=verify-full in store.database_url makes sure"
                    .to_owned(),
            );
        }
        warn(
            self.server.drain < self.http.answer_timeout,
            "server.drain_seconds is less than limits.answer_seconds, so that a stop may cut off an answer"
                .to_owned(),
        );
        warnings.extend(known::ALL.iter().filter_map(|known| mangled::warning(self.layers.get(known.key)?)));
        warnings
    }
}

fn printed(given: &Given) -> String {
    match &given.value {
        Value::Plain(value) => values::print(value),
        Value::Secret(url) if given.known.key == "store.database_url" => {
            values::print(&database_url::masked(url.reveal()).into())
        }
        Value::Secret(_) => "\"***\"".to_owned(),
    }
}

fn origin(given: &Given) -> String {
    let file = |path: &Path| path.display().to_string();
    match &given.origin {
        Origin::Default => "default".to_owned(),
        Origin::File(path) => format!("file {}", file(path)),
        Origin::Environment => format!("environment {}", given.known.env),
        Origin::SecretFile(path) => format!("file {} named by {}", file(path), given.known.env_file()),
    }
}
