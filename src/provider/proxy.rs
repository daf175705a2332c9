//! The proxy between this service and the provider.

use std::fmt;

use http::{HeaderValue, Uri, uri::Authority};

/// An HTTP proxy. It prints as host and port, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is, without credentials.
    pub uri: Uri,
    /// The `Proxy-Authorization` header; marked as sensitive.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri.authority().map_or("", Authority::as_str))
    }
}

impl Proxy {
    /// As the client takes it.
    pub(super) fn for_client(&self) -> Result<reqwest::Proxy, reqwest::Error> {
        let proxy = reqwest::Proxy::all(self.uri.to_string())?;
        Ok(match &self.authorization {
            Some(authorization) => proxy.custom_http_auth(authorization.clone()),
            None => proxy,
        })
    }
}
