//! A client of the API that holds every answer against the service's own document.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::document;

/// The API token of every service under test.
pub const API_TOKEN: &str = "token-under-test";

/// How long an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("answers are text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the answer is JSON")
    }

    /// A header's text; empty when it is missing.
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header is text"))
    }

    /// Status, error code and message of a refusal.
    pub fn refusal(&self) -> (u16, String, String) {
        let json = self.json();
        let text =
            |field: &str| json[field].as_str().unwrap_or_else(|| panic!("no refusal: {json}")).to_owned();
        (self.status.as_u16(), text("error"), text("message"))
    }

    /// The answer as it was written, each field on a line, for snapshots: no digit lost, no field moved.
    pub fn lines(&self) -> String {
        self.text().replace(",\"", ",\n\"").replace("},{", "},\n{")
    }
}

/// A caller of one service.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    authorization: Vec<String>,
    /// The value of `Idempotency-Key`.
    idempotency_key: Option<String>,
}

impl Client {
    /// A caller with the token of the service under test.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, authorization: vec![format!("Bearer {API_TOKEN}")], idempotency_key: None }
    }

    /// The same caller with other `Authorization` headers, or none.
    pub fn with(&self, authorization: &[&str]) -> Self {
        Self { authorization: authorization.iter().map(ToString::to_string).collect(), ..self.clone() }
    }

    /// The same caller with a key for its requests.
    pub fn keyed(&self, key: &str) -> Self {
        Self { idempotency_key: Some(key.to_owned()), ..self.clone() }
    }

    /// Asks, and checks that the answer is what the document says.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path).await
    }

    /// Asks with any method, and checks the answer likewise.
    pub async fn send(&self, method: Method, path: &str) -> Answer {
        self.send_with(method, path, "").await
    }

    /// Likewise with a body.
    pub async fn send_with(&self, method: Method, path: &str, body: &str) -> Answer {
        self.try_send(method, path, body).await.expect("the service answers")
    }

    /// Likewise; an error says that no answer came.
    pub async fn try_send(&self, method: Method, path: &str, body: &str) -> Result<Answer, String> {
        let exchange = timeout(PATIENCE, self.exchange(&method, path, body)).await;
        let answer = exchange.expect("the service answers in time").map_err(|error| error.to_string())?;
        document::check(&method, path, &answer);
        Ok(answer)
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: &str,
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let (mut send, connection) = handshake(TokioIo::new(TcpStream::connect(self.address).await?)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "test");
        for value in &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let (head, body) = send.send_request(request.body(body)?).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}
