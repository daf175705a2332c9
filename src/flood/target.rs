//! Where requests go: an `http://` URL, taken apart.
//!
//! Lives here: reading the URL, looking its host up. Does not: whether a target may be flooded (`cli/flood`).

use std::{fmt, io, net::SocketAddr};

use url::Url;

/// What a receiver's webhook path ends with; what stands before it is a proxy's prefix, for the API too.
const WEBHOOK: &str = "/webhooks/nexo";

/// A receiver's webhook URL.
#[derive(Debug, Clone)]
pub struct Target {
    url: Url,
}

/// The text is no URL that can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// Not a URL with a host.
    #[error("not a URL such as http://127.0.0.1:3000/webhooks/nexo")]
    NotAUrl,
    /// TLS is a proxy's.
    #[error("only http:// is spoken here; for https:// send to the receiver behind the proxy")]
    NotHttp,
    /// A user, a password or a fragment.
    #[error("a URL without user, password and fragment is needed")]
    TooMuch,
}

impl Target {
    /// Parses a webhook URL.
    ///
    /// # Errors
    /// [`InvalidTarget`] when it is no plain `http://` URL.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        let url = Url::parse(text).map_err(|_| InvalidTarget::NotAUrl)?;
        if url.scheme() != "http" {
            return Err(if url.has_host() { InvalidTarget::NotHttp } else { InvalidTarget::NotAUrl });
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(InvalidTarget::TooMuch);
        }
        Ok(Self { url })
    }

    /// All addresses of the host, looked up once, so that every connection goes to where the first went.
    ///
    /// # Errors
    /// When the host has no address.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        // An IPv6 address is looked up without its brackets.
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().unwrap_or(80);
        let found: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
        if found.is_empty() { Err(io::Error::other("the host has no address")) } else { Ok(found) }
    }

    /// The head of a webhook's request up to the signature, which 64 hex digits follow.
    pub(super) fn webhook_head(&self) -> String {
        let query = self.url.query().map_or(String::new(), |query| format!("?{query}"));
        format!(
            "POST {}{query} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nx-nexo-signature: sha256=",
            self.url.path(),
            self.authority()
        )
    }

    /// The request that asks the API for a delivery.
    pub(super) fn question(&self, id: &str, token: &str) -> String {
        let prefix = self.url.path().strip_suffix(WEBHOOK).unwrap_or_default();
        let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        let authority = self.authority();
        format!(
            "GET {prefix}/api/v1/deliveries/{id} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n\r\n"
        )
    }

    fn authority(&self) -> &str {
        self.url.authority()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_is_spoken() {
        for (text, wrong) in [
            ("", InvalidTarget::NotAUrl),
            ("127.0.0.1:3000", InvalidTarget::NotAUrl),
            ("localhost:3000/webhooks/nexo", InvalidTarget::NotAUrl),
            ("https://example.com/webhooks/nexo", InvalidTarget::NotHttp),
            ("http://user@example.com/", InvalidTarget::TooMuch),
            ("http://:password@example.com/", InvalidTarget::TooMuch),
            ("http://example.com/#here", InvalidTarget::TooMuch),
        ] {
            assert_eq!(Target::parse(text).unwrap_err(), wrong, "{text}");
        }
    }

    #[test]
    fn the_api_is_where_the_webhook_is() {
        for (url, asked) in [
            (
                "http://127.0.0.1:3000/webhooks/nexo",
                "GET /api/v1/deliveries/a%2Fb HTTP/1.1\r\nhost: 127.0.0.1:3000\r\n",
            ),
            (
                "http://[::1]/otp/webhooks/nexo?x=1",
                "GET /otp/api/v1/deliveries/a%2Fb HTTP/1.1\r\nhost: [::1]\r\n",
            ),
            ("http://host/hook", "GET /api/v1/deliveries/a%2Fb HTTP/1.1\r\nhost: host\r\n"),
        ] {
            let question = Target::parse(url).unwrap().question("a/b", "t");
            assert!(question.starts_with(asked), "{question}");
        }
        let head = Target::parse("http://[::1]/otp/webhooks/nexo?x=1").unwrap().webhook_head();
        assert!(head.starts_with("POST /otp/webhooks/nexo?x=1 HTTP/1.1\r\nhost: [::1]\r\n"), "{head}");
    }
}
