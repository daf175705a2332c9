//! Who may ask: the bearer token of the API and of `/metrics`.
//!
//! Lives here: [`Tokens`] and the layer that asks for one. Does not: where tokens come from (settings).

use std::fmt;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::refusal::Refusal;
use crate::secret::Secret;

/// The active tokens: one, or two while a token is being rotated. Only their digests are kept.
#[derive(Clone)]
pub struct Tokens {
    current: [u8; 32],
    previous: Option<[u8; 32]>,
}

impl Tokens {
    /// The present token and, while it is being rotated out, the one before.
    #[must_use]
    pub fn new(current: &Secret, previous: Option<&Secret>) -> Self {
        Self {
            current: digest(current.reveal().as_bytes()),
            previous: previous.map(|it| digest(it.reveal().as_bytes())),
        }
    }

    /// Whether this is an active token; takes as long whichever byte differs, whichever token it is.
    fn accept(&self, token: &[u8]) -> bool {
        let token = digest(token);
        let previous = self.previous.map_or(Choice::from(0), |previous| previous.ct_eq(&token));
        (self.current.ct_eq(&token) | previous).into()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The authentication scheme, compared in any case.
const SCHEME: &[u8] = b"Bearer";

/// Digests make texts of any lengths comparable in constant time.
fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Lets a request with an active token pass: for `middleware::from_fn_with_state`.
pub(crate) async fn require(State(tokens): State<Tokens>, request: Request, next: Next) -> Response {
    match presented(request.headers()) {
        Some(token) if tokens.accept(token) => next.run(request).await,
        _ => Refusal::Unauthorized.into_response(),
    }
}

/// The token of the only `Authorization` header; a repeated one counts as none.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    // RFC 7235: the scheme in any case, then one space or more.
    let (scheme, rest) = value.as_bytes().split_at_checked(SCHEME.len())?;
    let token = rest.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(SCHEME) && token.len() < rest.len()).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn one_header_with_the_scheme_in_any_case() {
        for good in ["Bearer abc", "bearer abc", "BEARER   abc"] {
            assert_eq!(presented(&headers(&[good])), Some(&b"abc"[..]), "{good}");
        }
        for wrong in
            [&[][..], &["Bearer abc", "Bearer abc"], &["abc"], &["Bearerabc"], &["Bearer"], &["Basic abc"]]
        {
            assert_eq!(presented(&headers(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn both_tokens_count_while_one_is_rotated_out() {
        let [new, old] = ["new", "old"].map(|token| Secret::new(token.into()));
        let tokens = Tokens::new(&new, Some(&old));
        assert!(tokens.accept(b"new") && tokens.accept(b"old"));
        for wrong in [&b""[..], b"ne", b"new ", b"NEW"] {
            assert!(!tokens.accept(wrong));
        }
        assert!(!Tokens::new(&new, None).accept(b"old"));
    }
}
