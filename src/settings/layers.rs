//! Defaults, then a file, then the environment: which value of each setting is in force, and where it came from.
//!
//! Lives here: reading all three, unknown names, secrets from files. Does not: what a value must be (`values`).

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use toml::Value as Toml;

use super::{
    SettingsError,
    known::{self, Known},
    strays,
};
use crate::{logs::Format, secret::Secret};

/// The built-in defaults, which are also the documentation.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    Environment,
    SecretFile(PathBuf),
}

/// A value as given; a secret one can't be printed.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Plain(Toml),
    Secret(Secret),
}

/// The value of one setting.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) known: &'static Known,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Given {
    /// An error about this value, under the name by which it was given.
    pub(super) fn error(&self, problem: impl fmt::Display) -> SettingsError {
        SettingsError::new(self.name(), problem)
    }

    /// The setting as whoever gave this value calls it.
    pub(super) fn name(&self) -> String {
        name(self.known, &self.origin)
    }
}

/// A setting as whoever gave it calls it.
fn name(known: &Known, origin: &Origin) -> String {
    match origin {
        Origin::Default => known.key.to_owned(),
        Origin::File(path) => format!("{} in {}", known.key, path.display()),
        Origin::Environment => known.env.to_owned(),
        Origin::SecretFile(path) => format!("{}={}", known.env_file(), path.display()),
    }
}

/// What is in force, by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers(BTreeMap<&'static str, Given>);

impl Layers {
    /// Lays a file, if there is one, and the environment over the defaults.
    pub(super) fn collect(
        config: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let mut layers = Self::default();
        layers.add_toml(DEFAULTS, &Origin::Default)?;
        if let Some(path) = config {
            let text = fs::read_to_string(path)
                .map_err(|error| SettingsError::new(path.display(), format!("can't be read: {error}")))?;
            layers.add_toml(&text, &Origin::File(path.to_owned()))?;
        }
        layers.add_environment(environment)?;
        Ok(layers)
    }

    /// The value in force of a setting; `None` when it has no default and nobody gave one.
    pub(super) fn get(&self, key: &str) -> Option<&Given> {
        debug_assert!(known::by_key(key).is_some(), "{key}");
        self.0.get(key)
    }

    fn add_toml(&mut self, text: &str, origin: &Origin) -> Result<(), SettingsError> {
        let place = match origin {
            Origin::File(path) => path.display().to_string(),
            _ => "config/default.toml".to_owned(),
        };
        // The error's own text would quote the line, and with it a secret.
        let tables = text.parse::<toml::Table>().map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count()) + 1;
            SettingsError::new(&place, format!("no TOML: line {line}: {}", error.message()))
        })?;
        for (table, content) in tables {
            let settings = match content {
                Toml::Table(settings) if known::is_table(&table) => settings,
                Toml::Table(settings) => {
                    let name = settings.keys().next().map_or(String::new(), |name| format!(".{name}"));
                    return Err(unknown_key(&place, &format!("{table}{name}")));
                }
                _ => return Err(unknown_key(&place, &table)),
            };
            for (name, value) in settings {
                let key = format!("{table}.{name}");
                let known = known::by_key(&key).ok_or_else(|| unknown_key(&place, &key))?;
                self.add(known, value, origin.clone())?;
            }
        }
        Ok(())
    }

    fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), SettingsError> {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        let mut environment: BTreeMap<String, OsString> = environment.into_iter().filter_map(named).collect();
        for known in known::ALL {
            let file = known.secret.then(|| environment.remove(&known.env_file())).flatten();
            match (environment.remove(known.env), file) {
                (None, None) => {}
                (Some(_), Some(_)) => {
                    let problem = format!("{} is set too; set one of them", known.env_file());
                    return Err(SettingsError::new(known.env, problem));
                }
                (Some(value), None) => {
                    let value =
                        value.into_string().map_err(|_| SettingsError::new(known.env, "not UTF-8"))?;
                    self.add(known, self.typed(known, value), Origin::Environment)?;
                }
                (None, Some(path)) => {
                    let path = PathBuf::from(path);
                    let value = Toml::String(read_secret(known, &path)?);
                    self.add(known, value, Origin::SecretFile(path))?;
                }
            }
        }
        let has_database = self.get("store.database_url").is_some();
        environment.iter().try_for_each(|(name, value)| strays::check(name, value, has_database))
    }

    /// A variable's text as what the setting's default is, if it can be; a wrong one stays text and is refused later.
    fn typed(&self, known: &Known, text: String) -> Toml {
        let typed = match self.get(known.key).map(|default| &default.value) {
            Some(Value::Plain(Toml::Integer(_))) => text.parse().ok().map(Toml::Integer),
            Some(Value::Plain(Toml::Boolean(_))) => text.parse().ok().map(Toml::Boolean),
            _ => None,
        };
        typed.unwrap_or(Toml::String(text))
    }

    fn add(&mut self, known: &'static Known, value: Toml, origin: Origin) -> Result<(), SettingsError> {
        let error = |problem| Err(SettingsError::new(name(known, &origin), problem));
        let value = match value {
            Toml::String(text) if text.is_empty() => return error("empty; leave it out to have none"),
            Toml::String(text) if known.secret => Value::Secret(Secret::new(text)),
            _ if known.secret => return error("must be a text, in quotes"),
            plain => Value::Plain(plain),
        };
        self.0.insert(known.key, Given { known, value, origin });
        Ok(())
    }
}

fn unknown_key(place: &str, key: &str) -> SettingsError {
    let nearest = known::nearest_key(key);
    SettingsError::new(format!("{key} in {place}"), format!("no such setting; did you mean {nearest}?"))
}

/// A secret from a file, without the newline that editors and `echo` add.
fn read_secret(known: &Known, path: &Path) -> Result<String, SettingsError> {
    let mut text = fs::read_to_string(path).map_err(|error| {
        let variable = known.env_file();
        SettingsError::new(variable, format!("{} can't be read: {error}", path.display()))
    })?;
    if text.ends_with('\n') {
        text.pop();
        text.truncate(text.strip_suffix('\r').unwrap_or(&text).len());
    }
    Ok(text)
}

/// The log's format, as far as it can be told while another setting may be wrong: for the line that says which is.
pub fn log_format(config: Option<&Path>, environment: &[(OsString, OsString)]) -> Format {
    let of_environment = environment.iter().find(|(name, _)| name == "LOG_FORMAT");
    let of_environment = of_environment.and_then(|(_, value)| Format::parse(value.to_str()?));
    let of_file = || {
        let table: toml::Table = fs::read_to_string(config?).ok()?.parse().ok()?;
        Format::parse(table.get("log")?.get("format")?.as_str()?)
    };
    of_environment.or_else(of_file).unwrap_or(Format::Auto)
}
