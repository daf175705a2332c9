//! What verified bytes say: the only parsing of a body.
//!
//! Lives here: [`Arrival`], [`Event`], [`NotUnderstood`]. Does not: which event wins (`delivery`); what is told without
//! a signature (`watch`, `answers`). Understanding never fails: what is no event this version knows is kept for a later one, with
//! the reason.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    delivery::{Delivery, DeliveryId, LONGEST_TEXT, Source, Standing, Status},
    money::Money,
    phone::Phone,
    proof::Proof,
    signature::{Digest, Verified},
};

/// The id of the provider's hand-made test event (its cURL guide). No OTP was sent, so it is no delivery.
const TEST_PING_ID: &str = "test";

/// Bytes, when they came, and what they say.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it came; for one out of quarantine, when it first came.
    pub received_at: Timestamp,
    /// How many times it came: once, or as often as quarantine counted.
    pub times: u64,
    /// What it says.
    pub meaning: Meaning,
}

/// What bytes say, and the bytes. Only signed ones may say nothing that is understood.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// An event.
    Event(Event, Proof),
    /// The provider said it, but this version does not know what it is.
    NotUnderstood(NotUnderstood, Verified),
}

impl Arrival {
    /// Reads what signed bytes say.
    #[must_use]
    pub fn understand(verified: Verified, received_at: Timestamp) -> Self {
        let meaning = match Event::parse(&verified, received_at) {
            Ok(event) => Meaning::Event(event, Proof::Signed(verified)),
            Err(reason) => Meaning::NotUnderstood(reason, verified),
        };
        Self { received_at, times: 1, meaning }
    }

    /// The bytes exactly as received.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        match &self.meaning {
            Meaning::Event(_, proof) => proof.body(),
            Meaning::NotUnderstood(_, verified) => verified.body(),
        }
    }

    /// The bytes' digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match &self.meaning {
            Meaning::Event(_, proof) => proof.digest(),
            Meaning::NotUnderstood(_, verified) => verified.digest(),
        }
    }

    /// The same bytes for quarantine; `None` if nobody signed them.
    #[must_use]
    pub fn for_quarantine(self, reason: NotUnderstood) -> Option<Self> {
        let verified = match self.meaning {
            Meaning::Event(_, Proof::Signed(verified)) | Meaning::NotUnderstood(_, verified) => verified,
            Meaning::Event(_, Proof::Unsigned(_)) => return None,
        };
        Some(Self { meaning: Meaning::NotUnderstood(reason, verified), ..self })
    }

    /// The event, if it is one.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match &self.meaning {
            Meaning::Event(event, _) => Some(event),
            Meaning::NotUnderstood(..) => None,
        }
    }
}

/// An event: the state that it alone tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The provider's word for what happened, `otp.delivered` or `otp.failed` so far; new ones may come. `watch` for what
    /// a caller told. Empty where a webhook has no `type`, or an empty one.
    pub kind: String,
    /// The state it tells of its OTP.
    pub told: Delivery,
}

/// Why verified bytes are no event that this version understands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotUnderstood {
    /// Not a JSON object in UTF-8, or one that names a field twice.
    #[error("not a JSON object: {0}")]
    NotJson(String),
    /// The id or the status is missing or null.
    #[error("`{0}` is missing")]
    MissingField(&'static str),
    /// A field holds what it can't.
    #[error("`{field}` is {problem}")]
    IllTypedField {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it; never its value.
        problem: String,
    },
    /// A status that this version does not know.
    #[error("`status` is none of sent, delivered, failed")]
    UnknownStatus,
    /// The provider's test ping.
    #[error("a test ping (id `{TEST_PING_ID}`): no OTP was sent")]
    TestPing,
    /// An event, but the database refused to hold it.
    #[error("the database refused to keep it as an event of delivery `{delivery}`: {why}")]
    RefusedByStore {
        /// The delivery's id.
        delivery: String,
        /// What the database said, without any value.
        why: String,
    },
    /// An event, but the stored row of its delivery cannot be read.
    #[error("the stored row of delivery `{delivery}` cannot be read: {why}")]
    UnreadableRow {
        /// The delivery's id.
        delivery: String,
        /// What is wrong with the row, without any value.
        why: String,
    },
}

impl NotUnderstood {
    /// The code of [`NotUnderstood::RefusedByStore`].
    pub const REFUSED_BY_STORE: &str = "refused_by_store";

    /// A word for the reason, for filters and metrics; one of a fixed few.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "not_json",
            Self::MissingField(_) => "missing_field",
            Self::IllTypedField { .. } => "ill_typed_field",
            Self::UnknownStatus => "unknown_status",
            Self::TestPing => "test_ping",
            Self::RefusedByStore { .. } => Self::REFUSED_BY_STORE,
            Self::UnreadableRow { .. } => "unreadable_row",
        }
    }
}

/// The fields of an event (provider's guide), each as its own text, so that a number keeps its digits and an
/// ill-typed field can be named.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    phone: Option<&'a RawValue>,
    #[serde(borrow)]
    carrier: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    completed_at: Option<&'a RawValue>,
}

impl Event {
    /// Parses a webhook's body. Only the id and the status are needed; all else may be null or missing.
    fn parse(verified: &Verified, received_at: Timestamp) -> Result<Self, NotUnderstood> {
        let fields = fields(verified.body())?;
        if text("id", fields.id)? == TEST_PING_ID {
            return Err(NotUnderstood::TestPing);
        }
        let told = delivery(&fields, Source::Webhook, verified.digest(), received_at)?;
        let kind = optional("type", fields.r#type)?.unwrap_or_default();
        Ok(Self { kind, told })
    }
}

/// The state that an event's fields tell.
fn delivery(
    fields: &Fields<'_>,
    source: Source,
    digest: Digest,
    received_at: Timestamp,
) -> Result<Delivery, NotUnderstood> {
    let id =
        DeliveryId::parse(text("id", fields.id)?.into_owned()).map_err(|error| ill_typed("id", error))?;
    let status = Status::parse(&text("status", fields.status)?).ok_or(NotUnderstood::UnknownStatus)?;
    let completed_at = time("completed_at", fields.completed_at)?;
    Ok(Delivery {
        id,
        phone: fields.phone.map(|raw| phone(Some(raw))).transpose()?,
        carrier: optional("carrier", fields.carrier)?,
        status,
        cost: fields.cost.map(|raw| cost(Some(raw))).transpose()?,
        error_code: optional("error_code", fields.error_code)?,
        created_at: time("created_at", fields.created_at)?,
        completed_at,
        received_at,
        source,
        standing: Standing::new(status, completed_at, digest),
    })
}

/// The state that the provider's answer to a question for one delivery tells; its fields are a webhook's, but for the
/// type.
pub(crate) fn answered(
    body: &[u8],
    digest: Digest,
    received_at: Timestamp,
) -> Result<Delivery, NotUnderstood> {
    delivery(&fields(body)?, Source::Poll, digest, received_at)
}

fn fields(body: &[u8]) -> Result<Fields<'_>, NotUnderstood> {
    let body = std::str::from_utf8(body).map_err(|_| NotUnderstood::NotJson("not UTF-8".into()))?;
    // serde would also take an array of nine for the nine fields.
    if !body.trim_start().starts_with('{') {
        return Err(NotUnderstood::NotJson("no `{` at its start".into()));
    }
    serde_json::from_str(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let problem = if error.is_data() { "a field is named twice" } else { "a syntax error" };
        NotUnderstood::NotJson(format!("{problem} at {place}"))
    })
}

fn ill_typed(field: &'static str, problem: impl ToString) -> NotUnderstood {
    NotUnderstood::IllTypedField { field, problem: problem.to_string() }
}

fn text<'a>(field: &'static str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, NotUnderstood> {
    let raw = raw.ok_or(NotUnderstood::MissingField(field))?.get();
    // Most texts hold no escape, and are then their own value.
    if let Some(plain) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        && !plain.contains('\\')
    {
        return Ok(Cow::Borrowed(plain));
    }
    serde_json::from_str(raw).map(Cow::Owned).map_err(|_| ill_typed(field, "not a text"))
}

/// A text that is kept as a field of its own, so that it has to fit an index and a database's text.
pub(crate) fn label(field: &'static str, raw: Option<&RawValue>) -> Result<String, NotUnderstood> {
    let text = text(field, raw)?;
    if text.len() > LONGEST_TEXT {
        return Err(ill_typed(field, format!("longer than {LONGEST_TEXT} bytes")));
    }
    if text.contains('\0') {
        return Err(ill_typed(field, "a text with U+0000"));
    }
    Ok(text.into_owned())
}

fn optional(field: &'static str, raw: Option<&RawValue>) -> Result<Option<String>, NotUnderstood> {
    raw.map(|raw| label(field, Some(raw))).transpose()
}

pub(crate) fn phone(raw: Option<&RawValue>) -> Result<Phone, NotUnderstood> {
    Phone::parse(&text("phone", raw)?).map_err(|error| ill_typed("phone", error))
}

pub(crate) fn cost(raw: Option<&RawValue>) -> Result<Money, NotUnderstood> {
    let raw = raw.ok_or(NotUnderstood::MissingField("cost"))?.get();
    Money::parse(raw).map_err(|error| ill_typed("cost", error))
}

pub(crate) fn time(field: &'static str, raw: Option<&RawValue>) -> Result<Option<Timestamp>, NotUnderstood> {
    raw.map(|raw| Timestamp::parse(&text(field, Some(raw))?).map_err(|error| ill_typed(field, error)))
        .transpose()
}

#[cfg(test)]
mod tests;
