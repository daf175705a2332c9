//! Requests that no well-behaved client sends, none of them signed: what gets in by one of these is a hole.

/// Each by a name, as bytes; the connection's writing side is closed behind it.
pub fn oddities() -> Vec<(&'static str, Vec<u8>)> {
    let post = "POST /webhooks/nexo HTTP/1.1\r\nHost: test\r\n";
    let inner = "GET /api/v1/deliveries HTTP/1.1\r\nHost: test\r\n\r\n";
    let long = "x".repeat(20_000);
    let many: String = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect();
    let heads = [
        (
            "both lengths",
            format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "both lengths, the other way round",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{inner}"),
        ),
        ("two lengths", format!("{post}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        ("two lengths in one", format!("{post}Content-Length: 0, {}\r\n\r\n{inner}", inner.len())),
        ("the same length twice", format!("{post}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx")),
        ("a negative length", format!("{post}Content-Length: -1\r\n\r\n{inner}")),
        ("a length with a sign", format!("{post}Content-Length: +1\r\n\r\nx{inner}")),
        ("a length in hex", format!("{post}Content-Length: 0x2f\r\n\r\n{inner}")),
        (
            "a length beyond all numbers",
            format!("{post}Content-Length: 99999999999999999999999\r\n\r\n{inner}"),
        ),
        (
            "a length with a space before the colon",
            format!("{post}Content-Length : {}\r\n\r\n{inner}", inner.len()),
        ),
        ("another coding", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}")),
        ("two codings", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{inner}")),
        (
            "the coding twice",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}"
            ),
        ),
        ("a coding behind a tab", format!("{post}Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{inner}")),
        (
            "a coding with a vertical tab",
            format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "a coding on a folded line",
            format!("{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        ("a chunk of no size", format!("{post}Transfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n{inner}")),
        (
            "a chunk beyond all sizes",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{inner}"),
        ),
        ("a chunk of a negative size", format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n{inner}")),
        (
            "a chunk that is longer than it says",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n{inner}"),
        ),
        (
            "a chunk with a long extension",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1;{long}\r\nx\r\n0\r\n\r\n{inner}"),
        ),
        (
            "chunks that end in line feeds",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n{inner}"),
        ),
        (
            "a signature in a trailer",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTrailer: X-NEXO-Signature\r\n\r\n1\r\nx\r\n0\r\nX-NEXO-Signature: sha256={}\r\n\r\n",
                "0".repeat(64)
            ),
        ),
        ("line feeds alone", post.replace("\r\n", "\n") + "\n" + inner),
        ("carriage returns alone", format!("POST /webhooks/nexo HTTP/1.1\rHost: test\r\r{inner}")),
        ("a carriage return in a value", format!("{post}X-A: a\rX-NEXO-Signature: b\r\n\r\n")),
        ("NUL in a value", format!("{post}X-A: a\0b\r\n\r\n")),
        ("NUL in a path", "POST /webhooks/nexo\0 HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()),
        (
            "an escaped line in a path",
            format!(
                "POST /webhooks/nexo%0d%0aX-A:%20b HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n{inner}"
            ),
        ),
        (
            "a space in a path",
            format!("POST /webhooks/nexo x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n{inner}"),
        ),
        (
            "a whole URL for a path",
            "POST http://elsewhere/webhooks/nexo HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx"
                .to_owned(),
        ),
        (
            "a path that climbs",
            "GET /webhooks/../api/v1/deliveries HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
        ),
        (
            "a path that climbs, escaped",
            "GET /webhooks/%2e%2e/metrics HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
        ),
        ("no header's name", format!("{post}: a\r\nContent-Length: 0\r\n\r\n{inner}")),
        ("a header without a colon", format!("{post}nothing\r\nContent-Length: 0\r\n\r\n{inner}")),
        (
            "a long path",
            format!("POST /webhooks/nexo?{long} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("a long header", format!("{post}X-A: {long}\r\nContent-Length: 0\r\n\r\n")),
        ("many headers", format!("{post}{many}Content-Length: 0\r\n\r\n")),
        (
            "a method in lower case",
            "post /webhooks/nexo HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
        ("a method that is none", "P@ST /webhooks/nexo HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()),
        ("a tunnel", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()),
        (
            "a trace",
            "TRACE /webhooks/nexo HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer x\r\n\r\n".to_owned(),
        ),
        (
            "another protocol",
            format!(
                "{post}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 0\r\n\r\n"
            ),
        ),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /api/v1/deliveries\r\n".to_owned()),
        (
            "HTTP/1.0 with chunks",
            "POST /webhooks/nexo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
                .to_owned(),
        ),
        ("HTTP/9.9", "POST /webhooks/nexo HTTP/9.9\r\nHost: test\r\nContent-Length: 0\r\n\r\n".to_owned()),
        (
            "two hosts",
            "POST /webhooks/nexo HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
        ("a request within a body", format!("{post}Content-Length: {}\r\n\r\n{inner}", inner.len())),
        ("a body that is half sent", format!("{post}Content-Length: 60000\r\n\r\nhalf")),
        ("a head that is half sent", "POST /webhooks/nexo HTTP/1.1\r\nHos".to_owned()),
        ("nothing but ends of lines", "\r\n".repeat(200)),
    ];
    let mut all: Vec<_> = heads.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
    all.push(("no text at all", (0..=255).cycle().take(5_000).collect()));
    all.push(("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec()));
    all.push((
        "beyond ASCII in a header",
        [post.as_bytes(), b"X-A: \xff\xfe\r\nContent-Length: 0\r\n\r\n"].concat(),
    ));
    all
}
