//! HTTP/1.1 with as little work as will do: a request is bytes, an answer is a status and a body of a known length.
//!
//! Lives here: one kept-alive connection, one request at a time. Does not: what is sent, or when.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The longest answer that is read, head and body.
const LONGEST_ANSWER: usize = 1 << 20;

/// Room for an answer to a webhook, so that it is read at once.
const USUAL_ANSWER: usize = 1 << 12;

/// A kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
    /// Whether the connection takes another request.
    pub stays_open: bool,
}

impl Connection {
    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn open(addresses: &[SocketAddr]) -> io::Result<Self> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(USUAL_ANSWER) })
    }

    /// Sends one request and reads its answer. After an error the connection is of no more use.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no answer that can be read.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.input.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(head) = Head::parse(&self.input)? {
                break head;
            }
            self.read().await?;
        };
        let end = head.length.saturating_add(head.body);
        while self.input.len() < end {
            self.read().await?;
        }
        let body = &self.input[head.length..end];
        // More than was announced would be taken for the next answer.
        let stays_open = head.stays_open && self.input.len() == end;
        Ok(Answer { status: head.status, body, stays_open })
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.input.len() >= LONGEST_ANSWER {
            return Err(invalid("an answer of more than a MiB"));
        }
        if self.stream.read_buf(&mut self.input).await? == 0 {
            let when = if self.input.is_empty() { "before" } else { "in the middle of" };
            return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("closed {when} an answer")));
        }
        Ok(())
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// What must be known of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Its own bytes, the empty line included.
    length: usize,
    /// The body's bytes.
    body: usize,
    stays_open: bool,
}

impl Head {
    /// Reads a head; `None` when it isn't whole yet.
    fn parse(input: &[u8]) -> io::Result<Option<Self>> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = input.windows(END.len()).position(|bytes| bytes == END) else { return Ok(None) };
        let text =
            std::str::from_utf8(&input[..end]).map_err(|_| invalid("an answer's head that is no text"))?;
        let (first, headers) = text.split_once("\r\n").unwrap_or((text, ""));
        let rest = first.strip_prefix("HTTP/1.").ok_or_else(|| invalid("an answer that is no HTTP/1"))?;
        let status = rest.get(2..5).and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| invalid("an answer without a status"))?;
        let mut length = if matches!(status, 204 | 304) { Some(0) } else { None };
        let mut stays_open = rest.starts_with("1 ");
        for (name, value) in headers.split("\r\n").filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                stays_open &= !value.eq_ignore_ascii_case("close");
            }
        }
        let body = length.ok_or_else(|| invalid("an answer without a Content-Length"))?;
        Ok(Some(Self { status, length: end + END.len(), body, stays_open }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_a_status_and_a_length() {
        for (text, status, body, stays_open) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200, 2, true),
            (
                "HTTP/1.1 401 Unauthorized\r\na: b\r\ncontent-length:13\r\nConnection: Close\r\n\r\n",
                401,
                13,
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", 200, 0, false),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, 0, true),
        ] {
            let head = Head::parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(head, Head { status, length: text.len(), body, stays_open });
            for end in 0..text.len() {
                assert_eq!(Head::parse(&text.as_bytes()[..end]).unwrap(), None);
            }
        }
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 2\u{e9}0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        ] {
            assert_eq!(Head::parse(text.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(noise in ".{0,60}") {
            let _ = Head::parse(noise.as_bytes());
            let _ = Head::parse(format!("HTTP/1.{noise}\r\n\r\n").as_bytes());
        }
    }
}
