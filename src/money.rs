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
#[error(
    "not an exact decimal: at most 28 digits after the point, and at most {} without the point",
    Decimal::MAX
)]
pub struct InvalidMoney;

/// No amount that [`Decimal`] can hold has a longer text; a longer one is refused before any work is done on it.
const LONGEST_TEXT: usize = 64;

impl Money {
    /// No money.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// Parses the text of a JSON number: `0.022`, `2.2e-2`, `-1`.
    ///
    /// # Errors
    /// [`InvalidMoney`] when the amount cannot be held to its last digit, or the text is no number.
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
        number(self.to_string(), serializer)
    }
}

/// A JSON number of this text.
fn number<S: Serializer>(text: String, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
}

/// A sum of amounts, to the last digit, however many they are.
///
/// Two billion of the greatest amounts fit. [`Decimal`] would round: it has 96 bits for all digits together.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    whole: i128,
    /// In units of the last digit that an amount can have; not negative, and less than one whole.
    fraction: i128,
}

impl Sum {
    /// Digits after the point.
    const SCALE: u32 = Decimal::MAX_SCALE;
    const ONE: i128 = 10_i128.pow(Self::SCALE);

    /// This and an amount `count` times; `None` when that is more than a sum can hold.
    #[must_use]
    pub fn plus_times(self, amount: Money, count: u64) -> Option<Self> {
        let (mantissa, scale) = (amount.0.mantissa(), amount.0.scale());
        let (unit, count) = (10_i128.pow(scale), i128::from(count));
        let whole = (mantissa / unit).checked_mul(count)?;
        let fraction = (mantissa % unit * 10_i128.pow(Self::SCALE - scale)).checked_mul(count)?;
        let fraction = self.fraction.checked_add(fraction)?;
        let carried = fraction.div_euclid(Self::ONE);
        let whole = self.whole.checked_add(whole)?.checked_add(carried)?;
        Some(Self { whole, fraction: fraction.rem_euclid(Self::ONE) })
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below_zero = self.whole < 0;
        // -1 and 0.75 of one is -0.25.
        let (whole, fraction) = match below_zero && self.fraction > 0 {
            true => (self.whole + 1, Self::ONE - self.fraction),
            false => (self.whole, self.fraction),
        };
        let sign = if below_zero { "-" } else { "" };
        write!(f, "{sign}{}", whole.unsigned_abs())?;
        if fraction > 0 {
            let digits = format!("{fraction:028}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sum({self})")
    }
}

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        number(self.to_string(), serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

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

    #[test]
    fn a_sum_has_every_digit() {
        let sum = |amounts: &[(&str, u64)]| {
            let add = |sum: Sum, (text, count): &(&str, u64)| {
                sum.plus_times(Money::parse(text).unwrap(), *count).unwrap()
            };
            amounts.iter().fold(Sum::default(), add).to_string()
        };
        let greatest = Decimal::MAX.to_string();
        let least = format!("-{greatest}");
        assert_eq!(sum(&[]), "0");
        assert_eq!(sum(&[("0.022", 3), ("1e-28", 1)]), "0.0660000000000000000000000001");
        assert_eq!(sum(&[(&greatest, 1_000_000_000)]), format!("{greatest}000000000"));
        assert_eq!(sum(&[(&greatest, 2), ("1e-28", 1), (&least, 2)]), "0.0000000000000000000000000001");
        assert_eq!(
            sum(&[(&least, 2), ("1e-28", 1)]),
            "-158456325028528675187087900669.9999999999999999999999999999"
        );
        assert_eq!(sum(&[("-0.75", 1), ("0.5", 1)]), "-0.25");
        assert_eq!(sum(&[("-1.5", 2)]), "-3");
        let most = Sum::default().plus_times(Money::new(Decimal::MAX), u64::MAX);
        assert_eq!(most, None, "not rounded, and no panic");
    }

    proptest! {
        #[test]
        fn a_sum_is_that_of_whole_numbers(amounts in vec((any::<i64>(), 0u32..=6, 0u64..1000), 0..20)) {
            let mut sum = Sum::default();
            let mut millionths = 0;
            for (mantissa, scale, count) in amounts {
                let amount = Money::new(Decimal::from_i128_with_scale(i128::from(mantissa), scale));
                sum = sum.plus_times(amount, count).unwrap();
                millionths += i128::from(mantissa) * i128::from(count) * 10_i128.pow(6 - scale);
            }
            let expected = Money::new(Decimal::from_i128_with_scale(millionths, 6));
            prop_assert_eq!(sum.to_string(), expected.to_string());
        }

        #[test]
        fn prints_what_it_parses_back(mantissa in any::<i64>(), scale in 0u32..=28) {
            let money = Money::new(Decimal::from_i128_with_scale(i128::from(mantissa), scale));
            prop_assert_eq!(Money::parse(&money.to_string()).unwrap(), money);
        }
    }
}
