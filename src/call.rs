//! One HTTP/1.1 call over a connection of its own.
//!
//! Lives here: asking. Does not: serving (`http`), TLS, deadlines, which are the caller's.

use std::io;

use bytes::Bytes;
use http::{StatusCode, header::HOST, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::{Position, Url};

/// The most of an answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The body as text; empty when it is longer than what is read.
    pub text: String,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The URL is for something else.
    #[error("not an http URL with a host")]
    NotHttp,
    /// Nobody listens there.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error(transparent)]
    Exchange(#[from] hyper::Error),
    /// The request can't be written.
    #[error(transparent)]
    Malformed(#[from] http::Error),
}

/// Calls `url`; `request` brings method and headers.
///
/// # Errors
/// [`CallError`] when no answer came.
pub async fn call(url: &Url, request: request::Builder, body: Bytes) -> Result<Reply, CallError> {
    let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
        return Err(CallError::NotHttp);
    };
    let request = request
        .uri(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .body(Full::new(body))?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(Reply { status: head.status, text: String::from_utf8_lossy(&body).into_owned() })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        reply = &mut exchange => reply,
        ended = &mut connection => { ended?; exchange.await }
    }
}
