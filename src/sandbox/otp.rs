//! One OTP from its send to its final state, and the events that tell of it.
//!
//! Lives here: the states and the events' bodies. Does not: its code, which nothing here keeps.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use crate::{clock::Timestamp, money::Money, phone::Phone};

/// A sent OTP.
#[derive(Clone, Debug)]
pub(super) struct Otp {
    pub(super) id: String,
    pub(super) phone: Phone,
    pub(super) carrier: &'static str,
    pub(super) cost: Money,
    pub(super) created_at: Timestamp,
    pub(super) end: Option<End>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) error_code: Option<Cow<'static, str>>,
    pub(super) completed_at: Timestamp,
}

/// An event, its fields in the order of the provider's guide.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    phone: &'a str,
    carrier: &'a str,
    status: &'a str,
    cost: Money,
    error_code: Option<&'a str>,
    created_at: Timestamp,
    completed_at: Option<Timestamp>,
}

impl End {
    fn status(&self) -> &'static str {
        if self.error_code.is_some() { "failed" } else { "delivered" }
    }
}

impl Otp {
    /// Its present state.
    pub(super) fn status(&self) -> &'static str {
        self.end.as_ref().map_or("sent", End::status)
    }

    /// Ends it now, and later than it began.
    pub(super) fn finish(&mut self, error_code: Option<Cow<'static, str>>) {
        let next = Timestamp::from_micros(self.created_at.micros() + 1).unwrap_or(self.created_at);
        self.end = Some(End { error_code, completed_at: Timestamp::now().max(next) });
    }

    /// The same OTP before it ended.
    pub(super) fn unfinished(&self) -> Self {
        Self { end: None, ..self.clone() }
    }

    /// The same OTP ended the opposite way, earlier than it did.
    pub(super) fn opposite(&self) -> Self {
        let opposite = End {
            error_code: (self.status() == "delivered").then_some(Cow::Borrowed("no_answer")),
            completed_at: self.created_at,
        };
        Self { end: Some(opposite), ..self.clone() }
    }

    /// The event that tells its present state.
    pub(super) fn event(&self) -> Bytes {
        let status = self.status();
        let event = Event {
            r#type: &format!("otp.{status}"),
            id: &self.id,
            phone: self.phone.reveal(),
            carrier: self.carrier,
            status,
            cost: self.cost,
            error_code: self.end.as_ref().and_then(|end| end.error_code.as_deref()),
            created_at: self.created_at,
            completed_at: self.end.as_ref().map(|end| end.completed_at),
        };
        serde_json::to_vec(&event).expect("an event is texts and numbers, which all have JSON").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_the_guide_shows_it() {
        let time = |text| Timestamp::parse(text).unwrap();
        let mut otp = Otp {
            id: "8f2e1c4d".into(),
            phone: Phone::parse("+84981234567").unwrap(),
            carrier: "viettel",
            cost: Money::parse("0.022").unwrap(),
            created_at: time("2026-05-26T10:00:00Z"),
            end: None,
        };
        otp.end = Some(End { error_code: None, completed_at: time("2026-05-26T10:00:25Z") });
        let expected = "{\"type\":\"otp.delivered\",\"id\":\"8f2e1c4d\",\"phone\":\"+84981234567\",\
            \"carrier\":\"viettel\",\"status\":\"delivered\",\"cost\":0.022,\"error_code\":null,\
            \"created_at\":\"2026-05-26T10:00:00Z\",\"completed_at\":\"2026-05-26T10:00:25Z\"}";
        assert_eq!(otp.event(), expected);
        assert_eq!((otp.unfinished().status(), otp.opposite().status()), ("sent", "failed"));
        assert_eq!(otp.opposite().opposite().status(), "delivered");
    }
}
