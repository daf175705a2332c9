//! From a value as given to one that is right: types and ranges, with errors that say what would be right.

use std::{fmt, ops::RangeInclusive, time::Duration};

use toml::Value as Toml;

use super::{
    SettingsError,
    layers::{Given, Layers, Origin, Value},
    mangled,
};
use crate::secret::Secret;

impl Layers {
    /// A whole number in a range.
    pub(super) fn number<N>(&self, key: &str, range: RangeInclusive<N>) -> Result<N, SettingsError>
    where
        N: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let given = self.defaulted(key);
        let number = match plain(given) {
            Toml::Integer(number) => N::try_from(*number).ok().filter(|number| range.contains(number)),
            _ => None,
        };
        number
            .ok_or_else(|| wrong(given, format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// A time in whole seconds, up to `most`.
    pub(super) fn seconds(&self, key: &str, most: u64) -> Result<Duration, SettingsError> {
        self.number(key, 1..=most).map(Duration::from_secs)
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<bool, SettingsError> {
        let given = self.defaulted(key);
        plain(given).as_bool().ok_or_else(|| wrong(given, "true or false"))
    }

    /// A text that `parse` takes; `right` says what it takes.
    pub(super) fn text<T>(
        &self,
        key: &str,
        right: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let given = self.defaulted(key);
        plain(given).as_str().and_then(parse).ok_or_else(|| wrong(given, right))
    }

    /// A secret, if there is one; `check` says what is wrong with it, without saying what it is.
    pub(super) fn secret(
        &self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<Secret>, SettingsError> {
        self.secret_as(key, |text| check(text).map(|()| Secret::new(text.to_owned())))
    }

    /// What `read` makes of a secret, if there is one; it says what is wrong with it, without saying what it is.
    pub(super) fn secret_as<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(given) = self.get(key) else { return Ok(None) };
        let Value::Secret(secret) = &given.value else { unreachable!("{key} is known for a secret") };
        read(secret.reveal()).map(Some).map_err(|problem| {
            match mangled::sign(given.known.env, secret.reveal()) {
                Some(sign) => given.error(format!("{problem}; it {sign}")),
                None => given.error(problem),
            }
        })
    }

    /// Whether nobody gave this setting.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.defaulted(key).origin == Origin::Default
    }

    fn defaulted(&self, key: &str) -> &Given {
        self.get(key).expect("every setting but secrets has a default")
    }
}

fn plain(given: &Given) -> &Toml {
    match &given.value {
        Value::Plain(value) => value,
        Value::Secret(_) => unreachable!("{} is a secret", given.known.key),
    }
}

/// The longest part of a wrong value that an error quotes, in characters.
const QUOTED: usize = 60;

fn wrong(given: &Given, right: impl fmt::Display) -> SettingsError {
    let value: String = print(plain(given)).chars().take(QUOTED).collect();
    // A URL with credentials, perhaps.
    let not = if value.contains('@') { String::new() } else { format!(", not {value}") };
    given.error(format!("must be {right}{not}"))
}

/// A value as TOML has it. (A JSON string is a TOML string.)
pub(super) fn print(value: &Toml) -> String {
    match value {
        Toml::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Toml::Integer(number) => number.to_string(),
        Toml::Boolean(flag) => flag.to_string(),
        Toml::Float(number) => number.to_string(),
        Toml::Datetime(time) => time.to_string(),
        Toml::Array(_) => "an array".to_owned(),
        Toml::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_toml() {
        for value in [
            Toml::from("a \"quoted\" \\ text\n\twith\u{1}controls and 🔐"),
            Toml::from(i64::MIN),
            Toml::from(true),
        ] {
            let table: toml::Table = format!("value = {}", print(&value)).parse().unwrap();
            assert_eq!(table["value"], value);
        }
    }
}
