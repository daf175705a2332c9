//! An HTTP proxy such as stands at the edge of a company's network: it takes requests in absolute form, and CONNECT.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// A proxy, and what it was asked.
pub struct ForwardProxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::default();
        let ours = Arc::clone(&heads);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, Arc::clone(&ours)));
            }
        });
        Self { port, heads }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Passes one connection on to where its first request leads.
async fn serve(mut client: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    let end = loop {
        match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if client.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) => {}
            None => return,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    heads.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap();
    if head.starts_with("CONNECT ") {
        let Ok(mut server) = TcpStream::connect(target).await else {
            let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
            return;
        };
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    }
    let (authority, _) = target.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut server = TcpStream::connect(authority).await.unwrap();
    let passed_on = head.replacen(&format!("http://{authority}"), "", 1);
    server.write_all(passed_on.as_bytes()).await.unwrap();
    server.write_all(&bytes[end..]).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
