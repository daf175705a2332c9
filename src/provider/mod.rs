//! The provider, called: send an OTP, ask what became of one, ask for the balance.
//!
//! Lives here: [`Provider`], its three calls, and what of a failed one is certain. Does not: when to call, and whether
//! to call again, which are the caller's; what the answers' bytes say of a delivery (`event`). The facts are of the
//! provider's guide and its API reference.

mod answer;
mod code;
mod proxy;
mod refusal;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::Serialize;
use url::Url;

pub use answer::{Balance, Buckets, Sent};
pub use code::{Code, InvalidCode};
pub use proxy::Proxy;
pub use refusal::Refusal;

use crate::{clock::Timestamp, delivery::DeliveryId, phone::Phone, secret::Secret};

/// The most of an answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// The longest that a `Retry-After` is heeded. One that is longer is a mistake or an attack, and an OTP that was sent
/// would stay unknown for as long.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// How the provider is called.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its API is, `https://nexoroute.dev/api/v1`.
    pub base_url: Url,
    /// The API key; ASCII that fits a header.
    pub key: Secret,
    /// How long connecting may take, the name's look-up and TLS included.
    pub connect_timeout: Duration,
    /// How long a call may take as a whole.
    pub timeout: Duration,
    /// The proxy that calls go through, if any.
    pub proxy: Option<Proxy>,
}

/// The provider, ready to be called. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Provider {
    client: Client,
    base_url: Url,
    connect_timeout: Duration,
}

/// The provider can't be called at all.
#[derive(Debug, thiserror::Error)]
#[error("the provider can't be called: {0}")]
pub struct Unusable(String);

/// Why a call brought no answer that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The provider says no: nothing was done.
    #[error("the provider refuses: {0}")]
    Refused(Refusal),
    /// Nothing of the call has left: no connection came about.
    #[error("the provider was not reached: {0}")]
    NotReached(String),
    /// The call has left, and no answer came that says what was done: a send may have been made and charged. The
    /// provider has no idempotency key by which to find out.
    #[error("the provider may have done it, but its answer is missing: {0}")]
    Unclear(String),
}

/// An answer, and the bytes that it was read from, which are evidence.
#[derive(Debug, Clone)]
pub struct Answered<T> {
    /// What it says.
    pub answer: T,
    /// The body as it came.
    pub body: Bytes,
}

impl Provider {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// [`Unusable`] when the key fits no header, or the system's certificates can't be read.
    pub fn new(options: &Options) -> Result<Self, Unusable> {
        let Options { base_url, key, connect_timeout, timeout, proxy } = options;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
            .map_err(|_| Unusable("the key is no text for a header".into()))?;
        bearer.set_sensitive(true);
        let unusable = |error: reqwest::Error| Unusable(reason(&error));
        let mut client = Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            .user_agent(concat!("nexo-receiver/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(*connect_timeout)
            .timeout(*timeout)
            // The key goes to the host that was configured and to no other.
            .redirect(redirect::Policy::none())
            // A send that may have been made is never made again by itself.
            .retry(reqwest::retry::never())
            // The options alone say whether there is one; the client would read the environment.
            .no_proxy();
        if let Some(proxy) = proxy {
            client = client.proxy(proxy.for_client().map_err(unusable)?);
        }
        let client = client.build().map_err(unusable)?;
        Ok(Self { client, base_url: base_url.clone(), connect_timeout: *connect_timeout })
    }

    /// Sends an OTP: a real call to a real phone, charged when it is accepted.
    ///
    /// # Errors
    /// [`CallError`]; after [`CallError::Unclear`] it may have been sent.
    pub async fn send(&self, phone: &Phone, code: &Code) -> Result<Answered<Sent>, CallError> {
        #[derive(Serialize)]
        struct Fields<'a> {
            phone: &'a str,
            code: &'a str,
        }
        let body = serde_json::to_vec(&Fields { phone: phone.reveal(), code: code.reveal() })
            .expect("two texts are JSON");
        let request = self.request(Method::POST, &["send-otp"]).header(CONTENT_TYPE, "application/json");
        let body = self.call(request.body(body)).await.map_err(|error| match error {
            // A send names no OTP that could be missing.
            CallError::Refused(Refusal::NotFound) => CallError::Refused(Refusal::NoSuchCall),
            error => error,
        })?;
        answered(body, Sent::read)
    }

    /// Asks what became of an OTP. The body says it; `event` reads it.
    ///
    /// # Errors
    /// [`CallError`]; [`Refusal::NotFound`] for an id that the account does not have.
    pub async fn delivery(&self, id: &DeliveryId) -> Result<Bytes, CallError> {
        self.call(self.request(Method::GET, &["deliveries", id.as_str()])).await
    }

    /// Asks what the wallet holds.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn balance(&self) -> Result<Answered<Balance>, CallError> {
        answered(self.call(self.request(Method::GET, &["balance"])).await?, Balance::read)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base_url.clone();
        // An http URL can always be a base.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.client.request(method, url)
    }

    /// The body of an answer that says `"ok":true`.
    async fn call(&self, request: RequestBuilder) -> Result<Bytes, CallError> {
        let mut response = request.send().await.map_err(|error| self.fault(&error))?;
        let (status, retry_after) = (response.status(), retry_after(response.headers(), Timestamp::now()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(&error))? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                return Err(CallError::Unclear(format!("an answer of more than {LONGEST_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        match Refusal::read(status, retry_after, &body) {
            Some(refusal) => Err(CallError::Refused(refusal)),
            None if status.is_success() => Ok(body.into()),
            None => Err(CallError::Unclear(format!("it answered {}", shown(status)))),
        }
    }

    fn fault(&self, error: &reqwest::Error) -> CallError {
        let reason = if error.is_connect() && error.is_timeout() {
            format!("no connection within {} s", self.connect_timeout.as_secs())
        } else if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            reason(error)
        };
        if error.is_connect() { CallError::NotReached(reason) } else { CallError::Unclear(reason) }
    }
}

fn answered<T>(body: Bytes, read: impl Fn(&[u8]) -> Option<T>) -> Result<Answered<T>, CallError> {
    let unclear = || CallError::Unclear("an answer that is not as documented".into());
    let answer = read(&body).ok_or_else(unclear)?;
    Ok(Answered { answer, body })
}

fn shown(status: StatusCode) -> String {
    let name = status.canonical_reason().unwrap_or_default();
    format!("{} {name}", status.as_u16()).trim_end().to_owned()
}

/// How long to leave it alone: seconds, or until a time; [`LONGEST_RETRY_AFTER`] at most.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let time = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more seconds than count.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        Timestamp::parse_http_date(text)?.since(now)
    };
    Some(time.min(LONGEST_RETRY_AFTER))
}

/// The innermost cause; reqwest's own words have the URL in them, and an id with it.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "the request can't be made".to_owned(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_heeded_up_to_an_hour() {
        let now = Timestamp::parse("2026-05-26T10:00:00Z").unwrap();
        let heeded = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers, now)
        };
        for (text, seconds) in [
            ("0", 0),
            ("30", 30),
            (" 3600 ", 3_600),
            ("3601", 3_600),
            ("315360000", 3_600),
            ("18446744073709551615", 3_600),
            ("99999999999999999999999999", 3_600),
            ("Tue, 26 May 2026 10:00:25 GMT", 25),
            ("Tue, 26 May 2026 09:00:00 GMT", 0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600),
        ] {
            assert_eq!(heeded(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "-1", "1.5", "soon", "0x10", "+5", "Fri, 31 Dec 10000 23:59:59 GMT"] {
            assert_eq!(heeded(text), None, "{text}");
        }
    }
}
