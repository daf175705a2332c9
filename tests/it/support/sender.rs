//! A provider that posts webhooks over one kept-alive connection.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{provider::sign, wire::PATIENCE};

/// What a webhook was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// Status and text, for assertions in one line.
    pub fn short(&self) -> (u16, &str) {
        (self.status.as_u16(), &self.text)
    }

    /// A header's text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header is text"))
    }
}

/// One connection.
pub struct Sender(SendRequest<Full<Bytes>>);

impl Sender {
    /// Connects; an error says that nobody listens.
    pub async fn try_connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (send, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self(send))
    }

    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("the service listens")
    }

    /// Posts a signed body.
    pub async fn post(&mut self, body: &[u8]) -> Reply {
        self.try_post(body).await.expect("the service answers")
    }

    /// Posts a signed body; an error says that no answer came.
    pub async fn try_post(&mut self, body: &[u8]) -> Result<Reply, String> {
        self.send(
            Method::POST,
            &[("x-nexo-signature", &sign(body)), ("content-type", "application/json")],
            body,
        )
        .await
    }

    /// Sends any request to the webhook's path.
    pub async fn send(
        &mut self,
        method: Method,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri("/webhooks/nexo").header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(Bytes::copy_from_slice(body))).expect("a well-formed request");
        timeout(PATIENCE + Duration::from_secs(20), self.exchange(request))
            .await
            .map_err(|_| "no answer in time".to_owned())?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        self.0.ready().await.map_err(|error| error.to_string())?;
        let response = self.0.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let text = String::from_utf8(body.to_vec()).map_err(|error| error.to_string())?;
        Ok(Reply { status: head.status, headers: head.headers, text })
    }
}
