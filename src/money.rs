//! Money: exact decimals, read from and written as a JSON number's own text.
//!
//! Lives here: parsing, printing. Does not: a currency; the provider names none beside USD.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

/// An exact amount of US dollars. Never passes through binary floating point.
///
/// Trailing zeros carry no meaning: `0.0220` and `0.022` are one amount and print alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(Decimal);

/// The number cannot be kept exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an exact decimal of at most 28 digits")]
pub struct InvalidMoney;

/// No amount that [`Decimal`] can hold has a longer text; a longer one is refused before any work is done on it.
const LONGEST_TEXT: usize = 64;

impl Money {
    /// No money.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// Parses the text of a JSON number: `0.022`, `2.2e-2`, `-1`.
    ///
    /// # Errors
    /// [`InvalidMoney`] when the amount needs more than 28 decimal digits, or the text is no number.
    pub fn parse(text: &str) -> Result<Self, InvalidMoney> {
        if text.len() > LONGEST_TEXT {
            return Err(InvalidMoney);
        }
        let amount = match text.split_once(['e', 'E']) {
            None => Decimal::from_str_exact(text).map_err(|_| InvalidMoney)?,
            Some((mantissa, exponent)) => {
                let mantissa = Decimal::from_str_exact(mantissa).map_err(|_| InvalidMoney)?.normalize();
                let exponent: i32 = exponent.parse().map_err(|_| InvalidMoney)?;
                let exponent = i64::from(exponent) - i64::from(mantissa.scale());
                return Self::from_parts(mantissa.mantissa(), exponent).ok_or(InvalidMoney);
            }
        };
        Ok(Self::new(amount))
    }

    /// `mantissa` × 10^`exponent`; `None` when that cannot be kept exactly.
    #[must_use]
    pub fn from_parts(mantissa: i128, exponent: i64) -> Option<Self> {
        if mantissa == 0 {
            return Some(Self::ZERO);
        }
        let (whole, scale) = match u32::try_from(exponent) {
            Ok(zeros) => (mantissa.checked_mul(10_i128.checked_pow(zeros)?)?, 0),
            Err(_) => (mantissa, u32::try_from(exponent.checked_neg()?).ok()?),
        };
        Decimal::try_from_i128_with_scale(whole, scale).ok().map(Self::new)
    }

    /// Takes an exact decimal.
    #[must_use]
    pub fn new(amount: Decimal) -> Self {
        Self(amount.normalize())
    }

    /// The amount as a decimal.
    #[must_use]
    pub fn amount(self) -> Decimal {
        self.0
    }

    /// The amount `count` times, and another one on top; `None` when it can no longer be kept exactly.
    #[must_use]
    pub fn plus_times(self, price: Self, count: u64) -> Option<Self> {
        price.0.checked_mul(Decimal::from(count)).and_then(|sum| sum.checked_add(self.0)).map(Self::new)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Money({self})")
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_the_number_that_was_written() {
        for (text, printed) in [
            ("0.022", "0.022"),
            ("0.0220", "0.022"),
            ("2.2e-2", "0.022"),
            ("2.2E+1", "22"),
            ("0", "0"),
            ("-0", "0"),
            ("0e999999", "0"),
            ("-1.5", "-1.5"),
            ("0.1e1", "1"),
            ("9007199254740993", "9007199254740993"),
            ("1e28", "10000000000000000000000000000"),
            ("1e-28", "0.0000000000000000000000000001"),
        ] {
            assert_eq!(Money::parse(text).unwrap().to_string(), printed, "{text}");
            assert_eq!(serde_json::to_string(&Money::parse(text).unwrap()).unwrap(), printed);
        }
    }

    #[test]
    fn refuses_what_it_cannot_keep_exactly() {
        for text in
            ["", "x", "1e400000", "1e-29", "1e29", "0.00000000000000000000000000001", "1e99999999999", "1e"]
        {
            assert_eq!(Money::parse(text), Err(InvalidMoney), "{text}");
        }
        assert_eq!(Money::parse(&"9".repeat(60_000)), Err(InvalidMoney));
    }

    proptest! {
        #[test]
        fn prints_what_it_parses_back(mantissa in any::<i64>(), scale in 0u32..=28) {
            let money = Money::new(Decimal::from_i128_with_scale(i128::from(mantissa), scale));
            prop_assert_eq!(Money::parse(&money.to_string()).unwrap(), money);
        }
    }
}
