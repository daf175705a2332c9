//! Bytes on a socket, for what no well-behaved client sends.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than any deadline that a test configures.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that sends just what it is told.
pub struct Wire(pub TcpStream);

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the service listens");
        stream.set_nodelay(true).expect("a fresh socket takes the option");
        Self(stream)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // The peer may have closed already; what it answered is what counts.
        let _ = self.0.write_all(bytes.as_ref()).await;
        self
    }

    /// Everything until the peer closes.
    pub async fn until_closed(&mut self) -> String {
        let mut answer = Vec::new();
        let read =
            timeout(PATIENCE, self.0.read_to_end(&mut answer)).await.expect("the service closes in time");
        if let Err(error) = read {
            panic!("the connection broke ({error}) after {:?}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8(answer).expect("answers are text")
    }

    /// One answer with a `Content-Length`, on a connection that stays open.
    pub async fn answer(&mut self) -> String {
        timeout(PATIENCE, self.read_answer()).await.expect("the service answers in time")
    }

    async fn read_answer(&mut self) -> String {
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            let bytes = self.0.read_buf(&mut answer).await.expect("the connection holds");
            assert!(bytes > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8(answer).expect("answers are text")
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().expect("a number"))
    });
    body.len() >= length.unwrap_or(0)
}
