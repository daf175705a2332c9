//! A phone number that does not show itself.
//!
//! Lives here: parsing, masking. Does not: which numbers are Vietnamese mobiles; the provider decides that.

use std::fmt;

/// An E.164 phone number: `+`, then 7 to 15 digits, the first not 0.
///
/// `Debug` and `Display` are masked (`+8498***4567`), so that a number cannot reach a log by accident.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone(String);

/// The text is no E.164 phone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an E.164 phone number: `+`, then 7 to 15 digits")]
pub struct InvalidPhone;

impl Phone {
    /// Parses an E.164 number.
    ///
    /// # Errors
    /// [`InvalidPhone`] for anything else; spaces and dashes are not forgiven.
    pub fn parse(text: &str) -> Result<Self, InvalidPhone> {
        let digits = text.strip_prefix('+').ok_or(InvalidPhone)?;
        let well_formed = (7..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidPhone) }
    }

    /// The whole number: for the store and for an authorised answer, never for a log line or a metric.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A short number shows less, so that at least three digits always stay hidden.
        let (head, tail) = if self.0.len() >= 12 { (5, 4) } else { (3, 2) };
        write!(f, "{}***{}", &self.0[..head], &self.0[self.0.len() - tail..])
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_itself_masked() {
        let phone = Phone::parse("+84981234567").unwrap();
        assert_eq!(phone.to_string(), "+8498***4567");
        assert_eq!(format!("{phone:?}"), "+8498***4567");
        assert_eq!(Phone::parse("+8498123").unwrap().to_string(), "+84***23");
    }

    #[test]
    fn takes_e164_and_nothing_else() {
        assert_eq!(Phone::parse("+84981234567").unwrap().reveal(), "+84981234567");
        for wrong in ["", "+", "84981234567", "+0498123456", "+84 98 123", "+8498123456789012", "+٣٤٥٦٧٨٩"]
        {
            assert_eq!(Phone::parse(wrong), Err(InvalidPhone), "{wrong}");
        }
    }
}
