//! The code of an OTP.

use std::fmt;

use crate::secret::Secret;

/// What a phone is told: 4 to 8 digits. It is passed on and forgotten; it can't be printed.
#[derive(Clone)]
pub struct Code(Secret);

/// The text is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code has 4 to 8 digits")]
pub struct InvalidCode;

impl Code {
    /// Parses a code.
    ///
    /// # Errors
    /// [`InvalidCode`] for anything but 4 to 8 digits of ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidCode> {
        let is_code = (4..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_code { Ok(Self(Secret::new(text.to_owned()))) } else { Err(InvalidCode) }
    }

    /// The digits, for the call to the provider and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_four_to_eight_digits_and_shows_none() {
        for right in ["0000", "482917", "12345678"] {
            assert_eq!(
                format!("{:?} {}", Code::parse(right).unwrap(), right.len()),
                format!("*** {}", right.len())
            );
        }
        for wrong in ["", "123", "123456789", "48 917", "٤٨٢٩", "12a4"] {
            assert!(Code::parse(wrong).is_err(), "{wrong}");
        }
    }
}
