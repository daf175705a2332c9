//! Assembly.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

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
pub struct Running(SocketAddr, Arc<()>);

/// Starts.
///
/// # Errors
/// When it can't listen.
pub async fn start(options: Options) -> std::io::Result<Running> {
    let listener = TcpListener::bind((options.host, options.port)).await?;
    let address = listener.local_addr()?;
    let open = Arc::new(());
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                if head[..read].starts_with(b"POST") {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let _ = stream.write_all(answer).await;
                drop(counted);
            });
        }
    });
    Ok(Running(address, open))
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0
    }

    /// Waits until a part of the service ends by itself, which no part should.
    pub async fn failed(&self) {
        std::future::pending().await
    }

    /// Stops. Answers whether all was done within `patience`.
    #[expect(clippy::disallowed_methods, reason = "a stand-in")]
    pub async fn stop(self, patience: Duration) -> bool {
        if Arc::strong_count(&self.1) > 2 {
            tokio::time::sleep(patience).await;
            return false;
        }
        true
    }
}
