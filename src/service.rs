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
pub async fn start(_options: Options) -> anyhow::Result<Running> {
    anyhow::bail!("nothing to start yet")
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0
    }

    /// Stops.
    ///
    /// # Errors
    /// Never, for now.
    pub async fn stop(self, _deadline: Duration) -> anyhow::Result<()> {
        Ok(())
    }
}
