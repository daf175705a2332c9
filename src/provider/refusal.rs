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
    /// No such call where it is looked for: HTTP 404 or 405.
    #[error("the provider has no such call there: look at NEXO_BASE_URL")]
    NoSuchCall,
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
    /// Every [`Refusal::code`].
    pub const CODES: [&'static str; 10] = [
        "insufficient_balance",
        "invalid_phone",
        "invalid_code",
        "no_route",
        "ip_not_allowed",
        "not_found",
        "unauthorized",
        "no_such_call",
        "too_many_calls",
        "other",
    ];

    /// Reads a refusal. `None` when it is none, or none that says for certain that nothing was done: a server error
    /// with a word that is not documented is no such thing. A path or a method that the server does not have needs no
    /// word: nobody has handled the call.
    pub(super) fn read(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            ok: bool,
            error: String,
            deposit_url: Option<String>,
        }
        let fields = serde_json::from_slice::<Fields>(body).ok().filter(|fields| !fields.ok);
        let word = fields.as_ref().map(|fields| fields.error.as_str());
        let url = fields.as_ref().and_then(|fields| fields.deposit_url.as_deref()).map(shown);
        let documented = word.map(|word| Self::of(&shown(word), url));
        match (documented, status) {
            (Some(Self::Other(_)) | None, StatusCode::UNAUTHORIZED) => Some(Self::Unauthorized),
            (Some(Self::Other(_)) | None, StatusCode::TOO_MANY_REQUESTS) => {
                Some(Self::TooManyCalls { retry_after })
            }
            (None, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => Some(Self::NoSuchCall),
            (Some(Self::Other(_)), status) if status.is_server_error() => None,
            (refusal, _) => refusal,
        }
    }

    /// The refusal that has this word.
    fn of(word: &str, deposit_url: Option<String>) -> Self {
        match word {
            "insufficient_balance" => Self::InsufficientBalance { deposit_url },
            "invalid_phone" => Self::InvalidPhone,
            "invalid_code" => Self::InvalidCode,
            "no_route" => Self::NoRoute,
            "ip_not_allowed" => Self::IpNotAllowed,
            "not_found" => Self::NotFound,
            word => Self::Other(word.to_owned()),
        }
    }

    /// The provider's word for it, also one that is not documented.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Other(word) => word,
            documented => documented.code(),
        }
    }

    /// Where to pay in, if that would help.
    #[must_use]
    pub fn deposit_url(&self) -> Option<&str> {
        match self {
            Self::InsufficientBalance { deposit_url } => deposit_url.as_deref(),
            _ => None,
        }
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
            Self::NoSuchCall => "no_such_call",
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
    fn a_call_that_the_server_does_not_have_was_not_made() {
        for status in [404, 405] {
            assert_eq!(read(status, "<html>not here</html>"), Some(Refusal::NoSuchCall));
        }
        assert_eq!(read(404, r#"{"ok":false,"error":"not_found"}"#), Some(Refusal::NotFound));
    }

    #[test]
    fn every_code_is_among_the_codes() {
        let refusals = [
            Refusal::InsufficientBalance { deposit_url: None },
            Refusal::InvalidPhone,
            Refusal::InvalidCode,
            Refusal::NoRoute,
            Refusal::IpNotAllowed,
            Refusal::NotFound,
            Refusal::Unauthorized,
            Refusal::NoSuchCall,
            Refusal::TooManyCalls { retry_after: None },
            Refusal::Other("x".into()),
        ];
        assert_eq!(refusals.map(|refusal| refusal.code()), Refusal::CODES);
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
            (400, "bad request"),
            (403, "<html>forbidden</html>"),
            (302, ""),
            (202, r#"{"ok":true,"error":"no_route"}"#),
        ] {
            assert_eq!(read(status, body), None, "{status} {body}");
        }
    }
}
