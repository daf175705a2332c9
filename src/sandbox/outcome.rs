//! What becomes of an OTP, and the phone numbers of which it is known beforehand.
//!
//! Lives here: outcomes, the table of test numbers. Does not: rates (`script`).

use std::{borrow::Cow, fmt};

use super::{fault::Fault, refusal::Refusal};

/// What becomes of an OTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It reaches the phone.
    Delivered,
    /// It reaches the phone after a long time.
    Slow,
    /// It does not, for this reason, an `error_code`.
    Failed(Cow<'static, str>),
    /// It stays `sent` for ever, and no webhook comes.
    Silent,
    /// It is not even accepted.
    Refused(Refusal),
}

/// The reasons for which OTPs fail. The provider publishes no list: these names are the sandbox's own.
pub const ERROR_CODES: [&str; 5] = ["no_answer", "busy", "rejected", "unreachable", "invalid_number"];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered => f.write_str("delivered"),
            Self::Slow => f.write_str("delivered, slowly"),
            Self::Failed(code) => write!(f, "failed: {code}"),
            Self::Silent => f.write_str("stays sent for ever"),
            Self::Refused(refusal) => write!(f, "refused: {}", refusal.code()),
        }
    }
}

/// A phone number whose OTPs have a known outcome.
#[derive(Debug)]
pub struct Number {
    /// The whole number.
    pub phone: &'static str,
    /// What becomes of its OTPs.
    pub outcome: Outcome,
    /// What goes wrong with their webhooks.
    pub fault: Option<Fault>,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outcome.fmt(f)?;
        self.fault.map_or(Ok(()), |fault| write!(f, "; {fault}"))
    }
}

const fn number(phone: &'static str, outcome: Outcome) -> Number {
    Number { phone, outcome, fault: None }
}

const fn failing(phone: &'static str, code: usize) -> Number {
    number(phone, Outcome::Failed(Cow::Borrowed(ERROR_CODES[code])))
}

const fn faulty(phone: &'static str, fault: Fault) -> Number {
    Number { phone, outcome: Outcome::Delivered, fault: Some(fault) }
}

/// All of them.
pub static NUMBERS: [Number; 19] = [
    number("+84900000000", Outcome::Delivered),
    failing("+84900000001", 0),
    failing("+84900000002", 1),
    failing("+84900000003", 2),
    failing("+84900000004", 3),
    failing("+84900000005", 4),
    number("+84900000010", Outcome::Refused(Refusal::NoRoute)),
    number("+84900000011", Outcome::Refused(Refusal::InsufficientBalance)),
    number("+84900000012", Outcome::Refused(Refusal::IpNotAllowed)),
    number("+84900000020", Outcome::Silent),
    number("+84900000021", Outcome::Slow),
    faulty("+84900000030", Fault::Twice),
    faulty("+84900000031", Fault::Late),
    faulty("+84900000032", Fault::SentAfter),
    faulty("+84900000033", Fault::OppositeAfter),
    faulty("+84900000034", Fault::OppositeBefore),
    faulty("+84900000035", Fault::WrongSignature),
    faulty("+84900000036", Fault::StaleBody),
    faulty("+84900000037", Fault::Dropped),
];
