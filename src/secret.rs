//! Secrets that cannot be printed.
//!
//! Lives here: the type. Does not: where secrets come from (settings) and what they are good for (signature,
//! bearer tokens).

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A secret text: a webhook secret, a token, a key, a database URL with its password.
///
/// Prints as `***` and is wiped from memory when it goes.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a secret into custody.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The secret itself, for the one use it is for; never for a log, an answer or an error.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_stars() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "***");
    }
}
