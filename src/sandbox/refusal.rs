//! Why a call is refused, in the provider's words.
//!
//! Lives here: words and statuses. The provider documents one status, the 400 of a wrong phone or code; all others
//! are the sandbox's own choice: branch on the word.

use http::StatusCode;

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not the key (the word is the sandbox's own).
    Unauthorized,
    /// The body is no JSON object (the word is the sandbox's own).
    InvalidRequest,
    /// Not `+84` and a Vietnamese mobile number.
    InvalidPhone,
    /// Not 4 to 8 digits.
    InvalidCode,
    /// No carrier takes it.
    NoRoute,
    /// The wallet does not hold the price.
    InsufficientBalance,
    /// The key may not be used from there.
    IpNotAllowed,
    /// No such delivery, or no such call.
    NotFound,
}

impl Refusal {
    /// The word.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidPhone => "invalid_phone",
            Self::InvalidCode => "invalid_code",
            Self::NoRoute => "no_route",
            Self::InsufficientBalance => "insufficient_balance",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::NotFound => "not_found",
        }
    }

    /// The HTTP status beside it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest | Self::InvalidPhone | Self::InvalidCode => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InsufficientBalance => StatusCode::PAYMENT_REQUIRED,
            Self::IpNotAllowed => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}
