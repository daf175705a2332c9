//! Every setting there is: its key, its environment variable, and whether it is a secret.
//!
//! Lives here: the names. Does not: defaults and what each is for (`config/default.toml`), ranges (the parent).

/// A setting's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Its key in a file, with the table: `limits.queue`.
    pub(super) key: &'static str,
    /// Its environment variable.
    pub(super) env: &'static str,
    /// Whether it is never printed, and may come from a file named by its variable with `_FILE`.
    pub(super) secret: bool,
}

impl Known {
    /// The variable that names a file with the secret.
    pub(super) fn env_file(&self) -> String {
        format!("{}_FILE", self.env)
    }

    /// The table and the name within it.
    pub(super) fn table_and_name(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').expect("every key stands in a table")
    }
}

const fn secret(key: &'static str, env: &'static str) -> Known {
    Known { key, env, secret: true }
}

const fn plain(key: &'static str, env: &'static str) -> Known {
    Known { key, env, secret: false }
}

/// All of them, in the order of `config/default.toml`.
pub(super) const ALL: &[Known] = &[
    secret("webhook.secret", "NEXO_WEBHOOK_SECRET"),
    secret("webhook.secret_previous", "NEXO_WEBHOOK_SECRET_PREVIOUS"),
    secret("api.token", "API_TOKEN"),
    secret("api.token_previous", "API_TOKEN_PREVIOUS"),
    plain("server.host", "HOST"),
    plain("server.port", "PORT"),
    plain("server.notice_seconds", "SERVER_NOTICE_SECONDS"),
    plain("server.drain_seconds", "SERVER_DRAIN_SECONDS"),
    plain("server.trusted_proxies", "SERVER_TRUSTED_PROXIES"),
    secret("store.database_url", "DATABASE_URL"),
    plain("store.data_dir", "DATA_DIR"),
    plain("store.migrate", "STORE_MIGRATE"),
    plain("store.migration_lock", "STORE_MIGRATION_LOCK"),
    plain("store.changes", "STORE_CHANGES"),
    plain("store.pgbouncer", "STORE_PGBOUNCER"),
    plain("store.read_connections", "STORE_READ_CONNECTIONS"),
    plain("store.connect_seconds", "STORE_CONNECT_SECONDS"),
    plain("store.commit_seconds", "STORE_COMMIT_SECONDS"),
    plain("store.read_seconds", "STORE_READ_SECONDS"),
    plain("limits.body_bytes", "LIMITS_BODY_BYTES"),
    plain("limits.in_flight_bytes", "LIMITS_IN_FLIGHT_BYTES"),
    plain("limits.answer_bytes", "LIMITS_ANSWER_BYTES"),
    plain("limits.connections", "LIMITS_CONNECTIONS"),
    plain("limits.head_seconds", "LIMITS_HEAD_SECONDS"),
    plain("limits.body_seconds", "LIMITS_BODY_SECONDS"),
    plain("limits.idle_seconds", "LIMITS_IDLE_SECONDS"),
    plain("limits.write_seconds", "LIMITS_WRITE_SECONDS"),
    plain("limits.answer_seconds", "LIMITS_ANSWER_SECONDS"),
    plain("limits.queue", "LIMITS_QUEUE"),
    plain("limits.queue_bytes", "LIMITS_QUEUE_BYTES"),
    plain("limits.batch", "LIMITS_BATCH"),
    plain("limits.refused_per_address", "LIMITS_REFUSED_PER_ADDRESS"),
    plain("limits.refused_per_second", "LIMITS_REFUSED_PER_SECOND"),
    plain("log.format", "LOG_FORMAT"),
    plain("log.filter", "RUST_LOG"),
    plain("log.events", "LOG_EVENTS"),
    secret("provider.key", "NEXO_KEY"),
    plain("provider.base_url", "NEXO_BASE_URL"),
    plain("provider.connect_seconds", "PROVIDER_CONNECT_SECONDS"),
    plain("provider.call_seconds", "PROVIDER_CALL_SECONDS"),
    plain("reconcile.after_seconds", "RECONCILE_AFTER_SECONDS"),
    plain("reconcile.calls_per_second", "RECONCILE_CALLS_PER_SECOND"),
];

/// The setting with this key.
pub(super) fn by_key(key: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.key == key)
}

/// Whether a table of this name holds settings.
pub(super) fn is_table(name: &str) -> bool {
    ALL.iter().any(|known| known.table_and_name().0 == name)
}

/// The key most like `wrong`, also when only its name within the table is.
pub(super) fn nearest_key(wrong: &str) -> &'static str {
    let name = wrong.rsplit('.').next().unwrap_or(wrong);
    nearest(|known| {
        let whole = strsim::normalized_damerau_levenshtein(wrong, known.key);
        whole.max(0.99 * strsim::normalized_damerau_levenshtein(name, known.table_and_name().1))
    })
    .key
}

/// Names that others use for one of our variables.
const ELSEWHERE: [(&str, &str); 1] = [("LOG_LEVEL", "RUST_LOG")];

/// The variable most like `wrong`, also when that is like the name that would follow from its key.
pub(super) fn nearest_env(wrong: &str) -> &'static str {
    let wrong = &*wrong.to_ascii_uppercase();
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == wrong) {
        return ours;
    }
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(wrong, name);
    nearest(|known| likeness(known.env).max(0.99 * likeness(&known.key.replace('.', "_").to_uppercase()))).env
}

/// Every variable, those that name a file with a secret too.
pub(super) fn names() -> impl Iterator<Item = String> {
    let files = ALL.iter().filter(|known| known.secret).map(Known::env_file);
    ALL.iter().map(|known| known.env.to_owned()).chain(files)
}

fn nearest(likeness: impl Fn(&Known) -> f64) -> &'static Known {
    ALL.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).expect("there are settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables that the contract names; all others follow from their key.
    const BY_CONTRACT: [&str; 12] = [
        "NEXO_WEBHOOK_SECRET",
        "NEXO_WEBHOOK_SECRET_PREVIOUS",
        "API_TOKEN",
        "API_TOKEN_PREVIOUS",
        "DATABASE_URL",
        "DATA_DIR",
        "HOST",
        "PORT",
        "NEXO_KEY",
        "NEXO_BASE_URL",
        "LOG_FORMAT",
        "RUST_LOG",
    ];

    #[test]
    fn a_variable_is_named_by_the_contract_or_by_its_key() {
        for known in ALL.iter().filter(|known| !BY_CONTRACT.contains(&known.env)) {
            assert_eq!(known.env, known.key.replace('.', "_").to_uppercase());
        }
        for name in BY_CONTRACT {
            assert_eq!(ALL.iter().filter(|known| known.env == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn a_slip_of_the_keyboard_finds_the_setting_meant() {
        for (wrong, meant) in [
            ("server.prt", "server.port"),
            ("limit.batch", "limits.batch"),
            ("secret", "webhook.secret"),
            ("webhooks.secret-previous", "webhook.secret_previous"),
            ("store.body_bytes", "limits.body_bytes"),
            ("api.tokne", "api.token"),
        ] {
            assert_eq!(nearest_key(wrong), meant, "{wrong}");
        }
        assert_eq!(nearest_env("NEXO_WEBHOOK_SECRETS"), "NEXO_WEBHOOK_SECRET");
        for (wrong, meant) in [
            ("DATABASE_ULR", "DATABASE_URL"),
            ("DATABASE_HOST", "DATABASE_URL"),
            ("STORE_MIGRATES", "STORE_MIGRATE"),
            ("STORE_DATA_DIR", "DATA_DIR"),
            ("SERVER_PORT", "PORT"),
            ("LOG_LEVEL", "RUST_LOG"),
            ("PROVIDER_KEY", "NEXO_KEY"),
            ("PROVIDER_BASE_URL", "NEXO_BASE_URL"),
        ] {
            assert_eq!(nearest_env(wrong), meant, "{wrong}");
        }
    }
}
