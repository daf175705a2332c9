//! Points in time, and the only place that asks what time it is.
//!
//! Lives here: RFC 3339 in, RFC 3339 out, microseconds between. Does not: deadlines, which are tokio's.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A point in time, to the microsecond, in UTC, in the years 1 to 9999: what both stores keep exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

/// The text is no point in time that can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time in the years 1 to 9999, such as 2026-05-26T10:00:00Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// The first microsecond of the year 1.
    pub const EARLIEST: Self = match OffsetDateTime::from_unix_timestamp(-62_135_596_800) {
        Ok(time) => Self(time),
        Err(_) => panic!("the library has negative years too"),
    };

    /// The last microsecond of the year 9999.
    pub const LATEST: Self = match OffsetDateTime::from_unix_timestamp_nanos(253_402_300_799_999_999_000) {
        Ok(time) => Self(time),
        Err(_) => panic!("the library has this year"),
    };

    /// The time by this machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now() -> Self {
        Self::truncate(OffsetDateTime::now_utc())
    }

    /// Parses RFC 3339 with any offset; digits beyond the microsecond are dropped.
    ///
    /// # Errors
    /// [`InvalidTimestamp`] when the text is something else, or the time in UTC leaves the years 1 to 9999.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        let utc = parsed.checked_to_offset(UtcOffset::UTC).ok_or(InvalidTimestamp)?;
        if (1..=9999).contains(&utc.year()) { Ok(Self::truncate(utc)) } else { Err(InvalidTimestamp) }
    }

    /// Parses a date as HTTP has it, `Thu, 26 May 2026 10:00:00 GMT`; `None` for anything else.
    #[must_use]
    pub fn parse_http_date(text: &str) -> Option<Self> {
        Self::from_date_time(httpdate::parse_http_date(text).ok()?.into()).ok()
    }

    /// From microseconds since 1970.
    ///
    /// # Errors
    /// [`InvalidTimestamp`] outside the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, InvalidTimestamp> {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
            .map_err(|_| InvalidTimestamp)?;
        if (1..=9999).contains(&time.year()) { Ok(Self(time)) } else { Err(InvalidTimestamp) }
    }

    /// Microseconds since 1970; negative before.
    #[must_use]
    pub fn micros(self) -> i64 {
        i64::try_from(self.0.unix_timestamp_nanos() / 1_000)
            .expect("ten thousand years of microseconds fit in 64 bits")
    }

    /// As the date and time type of the libraries.
    #[must_use]
    pub fn date_time(self) -> OffsetDateTime {
        self.0
    }

    /// From the date and time type of the libraries.
    ///
    /// # Errors
    /// [`InvalidTimestamp`] outside the years 1 to 9999.
    pub fn from_date_time(time: OffsetDateTime) -> Result<Self, InvalidTimestamp> {
        let micros = time.unix_timestamp_nanos().div_euclid(1_000);
        Self::from_micros(i64::try_from(micros).map_err(|_| InvalidTimestamp)?)
    }

    /// How long after `earlier` this is; nothing if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.micros() - earlier.micros()).unwrap_or(0))
    }

    /// The time `hours` hours before; the earliest that can be kept where that is later.
    #[must_use]
    pub fn hours_before(self, hours: u32) -> Self {
        let earlier = self.micros().saturating_sub(i64::from(hours).saturating_mul(3_600_000_000));
        Self::from_micros(earlier.max(Self::EARLIEST.micros()))
            .expect("not before the year 1, and not after `self`")
    }

    /// The time so much later; the latest that can be kept where that is earlier.
    #[must_use]
    pub fn later_by(self, time: Duration) -> Self {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let later = self.micros().saturating_add(micros);
        Self::from_micros(later.min(Self::LATEST.micros()))
            .expect("not after the year 9999, and not before `self`")
    }

    fn truncate(time: OffsetDateTime) -> Self {
        let micros = time.microsecond() * 1_000;
        Self(time.replace_nanosecond(micros).expect("a microsecond's nanoseconds are below a billion"))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_any_offset_and_answers_in_utc() {
        let time = Timestamp::parse("2026-05-26T17:00:00.1234567+07:00").unwrap();
        assert_eq!(time.to_string(), "2026-05-26T10:00:00.123456Z");
        assert_eq!(Timestamp::from_micros(time.micros()).unwrap(), time);
        assert_eq!(Timestamp::from_date_time(time.date_time()).unwrap(), time);
    }

    #[test]
    fn reads_the_dates_of_http() {
        let time = Timestamp::parse_http_date("Tue, 26 May 2026 10:00:25 GMT").unwrap();
        assert_eq!(time.to_string(), "2026-05-26T10:00:25Z");
        let earlier = Timestamp::parse("2026-05-26T10:00:00Z").unwrap();
        assert_eq!(time.since(earlier), Duration::from_secs(25));
        assert_eq!(earlier.since(time), Duration::ZERO);
        assert_eq!(Timestamp::parse_http_date("2026-05-26T10:00:25Z"), None);
    }

    #[test]
    fn stays_within_what_can_be_kept() {
        let time = Timestamp::parse("2026-05-26T10:00:00Z").unwrap();
        assert_eq!(time.later_by(Duration::from_millis(1_500)).to_string(), "2026-05-26T10:00:01.5Z");
        assert_eq!(time.later_by(Duration::MAX), Timestamp::LATEST);
        assert_eq!(time.hours_before(u32::MAX), Timestamp::EARLIEST);
        assert_eq!(Timestamp::LATEST.to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn refuses_what_the_stores_cannot_keep() {
        for wrong in [
            "",
            "yesterday",
            "2026-05-26",
            "2026-05-26T10:00:00",
            "0000-12-31T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert_eq!(Timestamp::parse(wrong), Err(InvalidTimestamp), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parses_back(micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999) {
            let time = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(time.micros(), micros);
            prop_assert_eq!(Timestamp::parse(&time.to_string()).unwrap(), time);
        }
    }
}
