//! Paths and query strings become typed questions here: the only parsing of parameters.
//!
//! Lives here: decoding, and what each call's parameters may be. Does not: what the answers look like.

use std::{fmt::Display, time::Duration};

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;
use crate::{
    clock::Timestamp,
    delivery::{DeliveryId, LONGEST_TEXT, Status},
    phone::Phone,
    store::changes::Position,
    store::query::{
        Cursor, CursorKey, GroupBy, ListDeliveries, ListEvents, ListQuarantine, PageSize, StatsQuestion,
    },
};

/// Statistics go back this far unless told.
const HOURS_OF_STATS: u32 = 24;

/// How much of an unknown parameter's name an answer repeats, in characters.
const LONGEST_NAME: usize = 40;

/// An id in a path. One that no delivery can have is not found, like any that none has.
pub(crate) struct PathId(pub(crate) DeliveryId);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|Path(text)| DeliveryId::parse(text).ok());
        id.map(Self).ok_or(Refusal::NotFound("no delivery can have this id: 1 to 255 bytes of UTF-8"))
    }
}

/// No parameters.
pub fn none(query: Option<&str>) -> Result<(), Refusal> {
    Parameters::parse(query, &[]).map(|_| ())
}

/// The longest wait for a delivery, in seconds.
const LONGEST_WAIT: u64 = 60;

/// The parameter of `GET /deliveries/{id}`: how long to wait, if at all.
pub fn wait(query: Option<&str>) -> Result<Option<Duration>, Refusal> {
    Parameters::parse(query, &["wait"])?.read("wait", seconds)
}

/// The parameters of `GET /deliveries`.
pub fn list_deliveries(query: Option<&str>) -> Result<ListDeliveries, Refusal> {
    const KNOWN: &[&str] = &["phone", "status", "carrier", "error_code", "from", "to", "limit", "cursor"];
    let given = Parameters::parse(query, KNOWN)?;
    Ok(ListDeliveries { size: given.size()?, after: given.after()?, ..given.filters()? })
}

/// The parameters of `GET /deliveries/stream`: what is followed, and after which position.
pub fn stream(query: Option<&str>) -> Result<(ListDeliveries, Option<Position>), Refusal> {
    const KNOWN: &[&str] = &["phone", "status", "carrier", "error_code", "from", "to", "last_event_id"];
    let given = Parameters::parse(query, KNOWN)?;
    let followed = given.filters()?;
    Ok((followed, given.read("last_event_id", str::parse::<Position>)?))
}

/// The parameters of `GET /quarantine`.
pub fn list_quarantine(query: Option<&str>) -> Result<ListQuarantine, Refusal> {
    let given = Parameters::parse(query, &["limit", "cursor"])?;
    Ok(ListQuarantine { size: given.size()?, after: given.after()? })
}

/// The parameters of `GET /deliveries/{id}/events`: as many as a page may have, unless told.
pub fn list_events(query: Option<&str>, id: DeliveryId) -> Result<ListEvents, Refusal> {
    let given = Parameters::parse(query, &["limit", "cursor"])?;
    let size = given.read("limit", page_size)?.unwrap_or(PageSize::LARGEST);
    Ok(ListEvents { id, size, after: given.after()? })
}

/// The parameters of `GET /stats`: the 24 hours before `to`, which is now, unless told.
pub fn stats(query: Option<&str>, now: Timestamp) -> Result<StatsQuestion, Refusal> {
    let given = Parameters::parse(query, &["from", "to", "by"])?;
    let to = given.read("to", time)?.unwrap_or(now);
    let from = given.read("from", time)?.unwrap_or_else(|| to.hours_before(HOURS_OF_STATS));
    in_order(from, to)?;
    Ok(StatsQuestion { from, to, by: given.read("by", group)? })
}

/// Parameters as given: each known to the call, given once, decoded, not empty and without U+0000.
struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, Refusal> {
        let mut given = Self(Vec::new());
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let asked = decode(name).unwrap_or_else(|| name.to_owned());
            let name = *known.iter().find(|known| **known == asked).ok_or_else(|| unknown(&asked, known))?;
            if given.value(name).is_some() {
                return Err(invalid(name, "given more than once"));
            }
            let value = decode(value).ok_or_else(|| invalid(name, "not percent-encoded UTF-8"))?;
            if value.is_empty() {
                return Err(invalid(name, "empty: give it a value or leave it out"));
            }
            if value.contains('\0') {
                return Err(invalid(name, "a text with U+0000"));
            }
            given.0.push((name, value));
        }
        Ok(given)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    fn read<T, E: Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        self.value(name).map(|value| parse(value).map_err(|problem| invalid(name, problem))).transpose()
    }

    /// Which deliveries; all of them, unless told.
    fn filters(&self) -> Result<ListDeliveries, Refusal> {
        let (from, to) = (self.read("from", time)?, self.read("to", time)?);
        if let (Some(from), Some(to)) = (from, to) {
            in_order(from, to)?;
        }
        Ok(ListDeliveries {
            phone: self.read("phone", phone)?,
            status: self.read("status", status)?,
            carrier: self.read("carrier", label)?,
            error_code: self.read("error_code", label)?,
            from,
            to,
            ..ListDeliveries::default()
        })
    }

    fn size(&self) -> Result<PageSize, Refusal> {
        Ok(self.read("limit", page_size)?.unwrap_or_default())
    }

    fn after<K: CursorKey>(&self) -> Result<Option<Cursor<K>>, Refusal> {
        self.read("cursor", Cursor::decode)
    }
}

/// As forms are encoded: `+` is a space. `None` when the bytes are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn invalid(name: &str, problem: impl Display) -> Refusal {
    Refusal::InvalidParameter(format!("`{name}` is {problem}"))
}

/// The name is the caller's: repeated in part, and without control characters.
fn unknown(name: &str, known: &[&str]) -> Refusal {
    let shown: String = name.chars().take(LONGEST_NAME).collect();
    let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    invalid(&shown.escape_debug().to_string(), format!("no parameter of this call, which takes {takes}"))
}

/// A number whose `+` was not escaped came as a space.
fn phone(text: &str) -> Result<Phone, impl Display + use<>> {
    match text.strip_prefix(' ') {
        Some(digits) => Phone::parse(&format!("+{digits}")),
        None => Phone::parse(text),
    }
}

/// An offset whose `+` was not escaped came as a space: `2026-05-26T17:00:00 07:00`.
fn time(text: &str) -> Result<Timestamp, impl Display + use<>> {
    match text.len().checked_sub("+07:00".len()).and_then(|at| text.split_at_checked(at)) {
        Some((local, offset)) if offset.starts_with(' ') => {
            Timestamp::parse(&format!("{local}+{}", offset.trim_start()))
        }
        _ => Timestamp::parse(text),
    }
}

fn status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| format!("none of {}", Status::ALL.map(Status::as_str).join(", ")))
}

/// A text that a delivery may hold. Counted in characters, as documents of APIs count.
fn label(text: &str) -> Result<String, String> {
    let fits = text.chars().count() <= LONGEST_TEXT;
    fits.then(|| text.to_owned()).ok_or_else(|| format!("longer than {LONGEST_TEXT} characters"))
}

fn page_size(text: &str) -> Result<PageSize, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let size = if digits { text.parse().ok().and_then(PageSize::new) } else { None };
    size.ok_or_else(|| format!("no whole number from 1 to {}", PageSize::MOST))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|seconds| digits && (1..=LONGEST_WAIT).contains(seconds));
    let problem = || format!("no whole number of seconds from 1 to {LONGEST_WAIT}");
    seconds.map(Duration::from_secs).ok_or_else(problem)
}

fn group(text: &str) -> Result<GroupBy, String> {
    let found = GroupBy::ALL.into_iter().find(|by| by.as_str() == text);
    found.ok_or_else(|| format!("none of {}", GroupBy::ALL.map(GroupBy::as_str).join(", ")))
}

fn in_order(from: Timestamp, to: Timestamp) -> Result<(), Refusal> {
    if from < to {
        Ok(())
    } else {
        Err(invalid("from", format!("not before `to`, which is {to}: the range is empty")))
    }
}
