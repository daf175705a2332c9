//! Values as Postgres sends them, read without rounding and without a panic.
//!
//! sqlx's own types panic at times that `time` cannot hold, `infinity` among them, and round numbers that `Decimal` cannot.

use std::error::Error;

use rust_decimal::Decimal;
use sqlx::{
    Decode, Postgres as Db, Type,
    postgres::{PgTypeInfo, PgValueFormat, PgValueRef},
};
use time::OffsetDateTime;

use crate::money::Money;

/// Microseconds from 1970 to 2000, from which Postgres counts.
const FROM_1970: i64 = 946_684_800_000_000;

/// Microseconds since 1970 of any `timestamptz`; those that are infinite or too far away are some time that
/// [`crate::clock::Timestamp`] refuses.
pub(super) struct Micros(pub(super) i64);

impl Type<Db> for Micros {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Db>>::type_info()
    }
}

impl<'r> Decode<'r, Db> for Micros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let since_2000 = <i64 as Decode<Db>>::decode(value)?;
        Ok(Self(since_2000.saturating_add(FROM_1970)))
    }
}

/// A `numeric` that [`Money`] holds to the last digit.
pub(super) struct Exact(pub(super) Money);

impl Type<Db> for Exact {
    fn type_info() -> PgTypeInfo {
        <Decimal as Type<Db>>::type_info()
    }
}

impl<'r> Decode<'r, Db> for Exact {
    fn decode(value: PgValueRef<'r>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        match value.format() {
            PgValueFormat::Binary => numeric(value.as_bytes()?),
            PgValueFormat::Text => Money::parse(value.as_str()?).ok(),
        }
        .map(Self)
        .ok_or_else(|| "not an exact amount".into())
    }
}

/// Reads the binary form: a head of four 16-bit numbers, then digits to the base of 10,000, the greatest first.
fn numeric(bytes: &[u8]) -> Option<Money> {
    const NEGATIVE: i16 = 0x4000;
    /// More have more than 28 decimal digits.
    const MOST_DIGITS: usize = 9;
    let words: Vec<_> = bytes.chunks_exact(2).map(|word| i16::from_be_bytes([word[0], word[1]])).collect();
    let [_, weight, sign, _, digits @ ..] = words.as_slice() else { return None };
    // Of the other signs one stands for what is no number, and two for what is infinite.
    let sign = match *sign {
        0 => 1,
        NEGATIVE => -1,
        _ => return None,
    };
    if digits.len() > MOST_DIGITS {
        return None;
    }
    let mut mantissa = digits.iter().fold(0, |sum, digit| sum * 10_000 + i128::from(*digit));
    let mut exponent = 4 * (i64::from(*weight) + 1 - i64::try_from(digits.len()).ok()?);
    while mantissa != 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        exponent += 1;
    }
    Money::from_parts(sign * mantissa, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(weight: i16, sign: u16, digits: &[i16]) -> Option<String> {
        let head = [i16::try_from(digits.len()).unwrap(), weight, sign.cast_signed(), 0];
        let words = head.iter().chain(digits);
        numeric(&words.flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>()).map(|money| money.to_string())
    }

    #[test]
    fn what_money_cannot_hold_is_refused_and_not_rounded() {
        for (weight, sign, digits, read_as) in [
            (0, 0, &[][..], Some("0")),
            (-1, 0, &[220], Some("0.022")),
            (0, 0x4000, &[1, 5000], Some("-1.5")),
            (1, 0, &[1], Some("10000")),
            (-7, 0, &[1], Some("0.0000000000000000000000000001")),
            (-8, 0, &[1000], None),
            (7, 0, &[7, 9228, 1625, 1426, 4337, 5935, 4395, 335], Some("79228162514264337593543950335")),
            (7, 0, &[7, 9228, 1625, 1426, 4337, 5935, 4395, 336], None),
            (7, 0, &[7, 9228, 1625, 1426, 4337, 5935, 4395, 335, 1], None),
            (7, 0, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1], None),
            (0, 0xC000, &[], None),
            (0, 0xD000, &[], None),
            (0, 0xF000, &[], None),
            (10, 0, &[1], None),
            (i16::MAX, 0, &[1], None),
            (i16::MIN, 0, &[1], None),
        ] {
            assert_eq!(read(weight, sign, digits).as_deref(), read_as, "{weight} {sign} {digits:?}");
        }
        assert_eq!(numeric(&[]), None);
        assert_eq!(numeric(&[0, 1, 0, 0]), None);
    }
}
