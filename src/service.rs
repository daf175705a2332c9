//! Assembly.

use std::{net::SocketAddr, time::Duration};

use crate::{http, secret::Secret, store::open::Location, writer};

/// What a service is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub host: String,
    /// Where it listens; 0 takes a free one.
    pub port: u16,
    /// Where the data is.
    pub location: Location,
    /// Whether to apply missing migrations at the start.
    pub migrate: bool,
    /// The webhook secret.
    pub webhook_secret: Secret,
    /// The one being rotated out.
    pub webhook_secret_previous: Option<Secret>,
    /// The bearer token.
    pub api_token: Secret,
    /// The one being rotated out.
    pub api_token_previous: Option<Secret>,
    /// The queue.
    pub writer: writer::Options,
    /// Limits of serving.
    pub http: http::Options,
}

/// A running service.
#[derive(Debug)]
pub struct Running(SocketAddr);

/// Starts.
///
/// # Errors
/// Always, for now.
pub async fn start(_options: Options) -> Result<Running, crate::store::StoreError> {
    Err(crate::store::StoreError::Unavailable("nothing to start yet".into()))
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0
    }

    /// Waits until a part of the service ends by itself, which no part should.
    pub async fn failed(&self) {}

    /// Stops. Answers whether all was done within `patience`.
    pub async fn stop(self, _patience: Duration) -> bool {
        true
    }
}
