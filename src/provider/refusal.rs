//! Why the provider refuses.
//!
//! Told by the word in the answer, not by its status: those of most refusals are not documented.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

/// The most that is kept of a word or a URL that the provider gives, in characters.
const LONGEST_TEXT: usize = 255;

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The wallet does not hold the price.
    #[error("insufficient_balance: the wallet does not hold the price; pay in at {}", .deposit_url.as_deref().unwrap_or("the dashboard"))]
    InsufficientBalance {
        /// Where to pay in, for whoever runs the operation.
        deposit_url: Option<String>,
    },
    /// Not `+84` and a valid Vietnamese mobile number.
    #[error("invalid_phone: not +84 and a Vietnamese mobile number")]
    InvalidPhone,
    /// Not 4 to 8 digits.
    #[error("invalid_code: a code has 4 to 8 digits")]
    InvalidCode,
    /// No carrier takes it.
    #[error("no_route: no carrier takes it")]
    NoRoute,
    /// The key may not be used from this address.
    #[error("ip_not_allowed: the key may not be used from this machine's address; allow it in the dashboard")]
    IpNotAllowed,
    /// No OTP of this account.
    #[error("not_found: the account has no such OTP")]
    NotFound,
    /// Not a key, or one that is no more: HTTP 401.
    #[error("the key is not accepted: look at NEXO_KEY")]
    Unauthorized,
    /// Too many calls: HTTP 429.
    #[error("too many calls")]
    TooManyCalls {
        /// How long to leave it alone, if it says so.
        retry_after: Option<Duration>,
    },
    /// A word that is not documented.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    /// Reads a refusal. `None` when it is none, or none that says for certain that nothing was done: a server error
    /// with a word that is not documented is no such thing.
    pub(super) fn read(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            ok: bool,
            error: String,
            deposit_url: Option<String>,
        }
        let fields = serde_json::from_slice::<Fields>(body).ok().filter(|fields| !fields.ok);
        let word = fields.as_ref().map(|fields| fields.error.as_str());
        Some(match (word, status) {
            (Some("insufficient_balance"), _) => {
                let url = fields.and_then(|fields| fields.deposit_url);
                Self::InsufficientBalance { deposit_url: url.map(|url| shown(&url)) }
            }
            (Some("invalid_phone"), _) => Self::InvalidPhone,
            (Some("invalid_code"), _) => Self::InvalidCode,
            (Some("no_route"), _) => Self::NoRoute,
            (Some("ip_not_allowed"), _) => Self::IpNotAllowed,
            (Some("not_found"), _) => Self::NotFound,
            (_, StatusCode::UNAUTHORIZED) => Self::Unauthorized,
            (_, StatusCode::TOO_MANY_REQUESTS) => Self::TooManyCalls { retry_after },
            (Some(word), status) if !status.is_server_error() => Self::Other(shown(word)),
            _ => return None,
        })
    }

    /// A word for it, for answers, filters and metrics; one of a fixed few.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InsufficientBalance { .. } => "insufficient_balance",
            Self::InvalidPhone => "invalid_phone",
            Self::InvalidCode => "invalid_code",
            Self::NoRoute => "no_route",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::TooManyCalls { .. } => "too_many_calls",
            Self::Other(_) => "other",
        }
    }
}

/// Somebody else's text: short, and on one line.
fn shown(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Option<Refusal> {
        Refusal::read(StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
    }

    #[test]
    fn the_word_counts_and_not_the_status() {
        for status in [200, 400, 402, 403, 503] {
            let refusal = read(status, r#"{"ok":false,"error":"no_route"}"#);
            assert_eq!(refusal, Some(Refusal::NoRoute), "{status}");
        }
        let body = r#"{"ok":false,"error":"insufficient_balance","deposit_url":"https://pay\n.example"}"#;
        let deposit_url = Some("https://pay\\n.example".to_owned());
        assert_eq!(read(402, body), Some(Refusal::InsufficientBalance { deposit_url }));
    }

    #[test]
    fn a_key_or_a_pace_that_is_refused_needs_no_word() {
        assert_eq!(read(401, "<html>"), Some(Refusal::Unauthorized));
        assert_eq!(read(429, ""), Some(Refusal::TooManyCalls { retry_after: None }));
    }

    #[test]
    fn an_unknown_word_is_kept_short_and_on_one_line() {
        assert_eq!(read(400, r#"{"ok":false,"error":"x\ny"}"#), Some(Refusal::Other("x\\ny".into())));
        let long = format!(r#"{{"ok":false,"error":"{}"}}"#, "x".repeat(5_000));
        assert_eq!(read(400, &long), Some(Refusal::Other("x".repeat(255))));
    }

    #[test]
    fn what_may_have_been_done_is_no_refusal() {
        for (status, body) in [
            (500, r#"{"ok":false,"error":"internal"}"#),
            (502, "<html>bad gateway</html>"),
            (404, "not here"),
            (302, ""),
            (202, r#"{"ok":true,"error":"no_route"}"#),
        ] {
            assert_eq!(read(status, body), None, "{status} {body}");
        }
    }
}
