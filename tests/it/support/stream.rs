//! A reader of server-sent events.

use std::{collections::VecDeque, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::{
    document,
    http::{API_TOKEN, Answer},
    wire::PATIENCE,
};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The last id that came with it or before it.
    pub id: String,
    /// What it says; nothing for one that only moves the reader on.
    pub delivery: Option<Value>,
}

/// A stream of changes; dropping it cuts it off.
pub struct Stream {
    body: Incoming,
    buffer: Vec<u8>,
    id: String,
    ready: VecDeque<Event>,
}

impl Stream {
    /// Follows; an answer that is no stream is the error.
    pub async fn open(address: SocketAddr, query: &str, last_event_id: Option<&str>) -> Result<Self, Answer> {
        let path = format!("/api/v1/deliveries/stream{query}");
        let stream = TcpStream::connect(address).await.expect("the service listens");
        let (mut send, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request =
            Request::get(&path).header("host", "test").header("authorization", format!("Bearer {API_TOKEN}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response =
            timeout(PATIENCE, send.send_request(request)).await.expect("an answer in time").unwrap();
        let (head, body) = response.into_parts();
        if head.status == StatusCode::OK {
            check(&path, head.status, &head.headers);
            return Ok(Self { body, buffer: Vec::new(), id: String::new(), ready: VecDeque::new() });
        }
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer { status: head.status, headers: head.headers, body };
        document::check(&Method::GET, &path, &answer);
        Err(answer)
    }

    /// The next event; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    /// The next delivery, its position before.
    pub async fn delivery(&mut self) -> Option<(String, Value)> {
        loop {
            let Event { id, delivery } = self.next().await?;
            if let Some(delivery) = delivery {
                return Some((id, delivery));
            }
        }
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                self.parse(std::str::from_utf8(&event).unwrap());
            }
        }
    }

    fn parse(&mut self, event: &str) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let Some(id) = field("id") {
            id.clone_into(&mut self.id);
        }
        let delivery = field("data").map(|data| serde_json::from_str(data).expect("data is JSON"));
        assert_eq!(delivery.is_some(), field("event") == Some("delivery"), "{event}");
        self.ready.push_back(Event { id: self.id.clone(), delivery });
    }
}

fn check(path: &str, status: StatusCode, headers: &HeaderMap) {
    let answer = Answer { status, headers: headers.clone(), body: Bytes::new() };
    document::check(&Method::GET, path, &answer);
}
