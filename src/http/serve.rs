//! The accept loop: from a bound listener to answered requests, until it is told to stop.
//!
//! Lives here: limits on connections, deadlines, HTTP/1, draining. Does not: routes (`http/mod`).

use std::{
    convert::Infallible,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinSet, coop::unconstrained},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Options, Site,
    again::again,
    connection::{Connection, HEAD_BYTES, Patience, Phase, Progress},
};
use crate::metrics::{Counted, Metrics};

/// What a head that takes too long is answered, written past hyper, which would close without a word.
const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: 26\r\n\r\n\
    request head came too late";

/// Of what a refused peer still sends, at most this much is read, for at most this long, before its connection is
/// closed: a close with unread bytes is a reset, which can overtake the answer.
const LINGER: (u64, Duration) = (64 * 1024, Duration::from_secs(1));

/// After a failed accept (out of descriptors, mostly) the next try waits for a connection to end, or this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// Not yet.
    Never,
    /// Now; what is not finished at the deadline is cut off.
    By(Instant),
}

/// Serves HTTP/1 on a listener until told to stop and drained. Answers whether everything in flight was finished.
pub(crate) async fn serve(
    listener: TcpListener,
    site: Site,
    options: &Options,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<Stop>,
) -> bool {
    let places = Arc::new(Semaphore::new(options.connections));
    let patience = Patience {
        idle: options.idle_timeout,
        head: options.head_timeout,
        write: options.write_timeout,
        shortest: options.shortest_timeout(),
    };
    let server = Server { site: Arc::new(site), patience, metrics, stop: stop.clone() };
    let mut connections = JoinSet::new();
    let deadline = loop {
        tokio::select! {
            // A full house first waits for a place, so that the kernel's backlog holds the others back.
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, peer, place)) => {
                    connections.spawn(server.clone().connection(stream, peer, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    let _ = timeout(ACCEPT_PAUSE, connections.join_next()).await;
                }
            },
            Some(_) = connections.join_next() => {}
            deadline = told_to_stop(&mut stop) => break deadline,
        }
    };
    drop(listener);
    let drained =
        timeout_at(deadline, async { while connections.join_next().await.is_some() {} }).await.is_ok();
    connections.shutdown().await;
    drained
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn told_to_stop(stop: &mut watch::Receiver<Stop>) -> Instant {
    match stop.wait_for(|stop| matches!(stop, Stop::By(_))).await.as_deref() {
        Ok(Stop::By(deadline)) => *deadline,
        // Whoever could tell us to stop is gone.
        Ok(Stop::Never) | Err(_) => Instant::now(),
    }
}

/// What a future comes to, or nothing if we are told to stop before.
async fn until_told<F: Future>(stop: &watch::Receiver<Stop>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut own = stop.clone();
    let mut told = pin!(unconstrained(told_to_stop(&mut own)));
    let mut is_listening = false;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        // Once asked it wakes this task: asking at each turn would take a lock that all connections share.
        if is_listening && matches!(stop.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        is_listening = true;
        told.as_mut().poll(context).map(|_| None)
    })
    .await
}

#[derive(Clone)]
struct Server {
    site: Arc<Site>,
    patience: Patience,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<Stop>,
}

impl Server {
    async fn connection(self, stream: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit) {
        let _counted = Counted::in_gauge(&self.metrics.connections);
        // Answers are small and wait for nothing.
        let _ = stream.set_nodelay(true);
        let mut connection = Connection::new(stream, self.patience);
        let progress = connection.progress();
        let result = progress.deadlines.watch(self.exchange(&mut connection, peer.ip(), &progress)).await;
        if let Err(error) = &result {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
        match connection.expired() {
            Some(Phase::Head) => {
                let written = connection.stream().write_all(HEAD_TOO_SLOW);
                let _ = timeout(LINGER.1, written).await;
                linger(connection.stream()).await;
            }
            Some(_) => {}
            None if progress.is_closing() || result.is_err_and(|error| error.is_parse()) => {
                linger(connection.stream()).await;
            }
            None => {}
        }
    }

    async fn exchange(
        &self,
        connection: &mut Connection<TcpStream>,
        peer: IpAddr,
        progress: &Arc<Progress>,
    ) -> hyper::Result<()> {
        let service = service_fn(|request| answer(&self.site, peer, progress, request));
        let mut exchange = pin!(
            http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(HEAD_BYTES)
                // Answers are short: copying one behind its head costs less than telling the kernel of two pieces.
                .writev(false)
                // Who has sent all and says so may still read the answer.
                .half_close(true)
                .serve_connection(TokioIo::new(connection), service)
        );
        if let Some(result) = until_told(&self.stop, again(exchange.as_mut())).await {
            return result;
        }
        // hyper would wait for the first request; all others it lets finish, answer included.
        if progress.is_untouched() {
            return Ok(());
        }
        exchange.as_mut().graceful_shutdown();
        exchange.await
    }
}

async fn answer(
    site: &Site,
    peer: IpAddr,
    progress: &Arc<Progress>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    progress.begin();
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let response = if chunked && progress.may_have_both_lengths() {
        both_lengths()
    } else {
        site.answer(request, peer, &progress.deadlines).await?
    };
    let closing = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    if response.body().size_hint().exact().is_some() {
        progress.end(closing);
        return Ok(response);
    }
    // A stream is answered when it ends; until then the connection does not idle.
    let progress = Arc::clone(progress);
    Ok(response.map(|body| Body::new(Streamed { body, progress })))
}

/// An answer that is not at its end when its head is sent.
struct Streamed {
    body: Body,
    progress: Arc<Progress>,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.progress.end(false);
    }
}

fn both_lengths() -> Response {
    let mut response = Response::new(Body::from("a head with both Content-Length and Transfer-Encoding"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Says that no more will be written, and reads on for a little, so that the answer arrives.
async fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = stream.take(LINGER.0);
    let mut scrap = [0; 4096];
    let drain = async { while rest.read(&mut scrap).await.is_ok_and(|bytes| bytes > 0) {} };
    let _ = timeout(LINGER.1, drain).await;
}
