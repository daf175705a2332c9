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
use http::{Request, StatusCode, header};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinSet, coop::unconstrained},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    Options, Site,
    again::again,
    answer::{closing, text},
    body::BODY_TOO_SLOW,
    connection::{Connection, HEAD_BYTES, Patience, Phase, Progress},
    places::Places,
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

/// How often a place is looked for anew while all are taken and nobody waits for a peer.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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
    let mut places = Places::new(options.connections, Arc::clone(&metrics));
    let patience = Patience {
        first: options.head_timeout.min(options.idle_timeout),
        idle: options.idle_timeout,
        head: options.head_timeout,
        write: options.write_timeout,
        shortest: options.shortest_timeout(),
    };
    let server = Server { site: Arc::new(site), metrics, stop: stop.clone() };
    let mut connections = JoinSet::new();
    let mut newcomer = None;
    let mut look_again = interval(LOOK_AGAIN);
    look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = loop {
        tokio::select! {
            accepted = listener.accept(), if newcomer.is_none() => match accepted {
                Ok(accepted) => newcomer = Some(accepted),
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    places.make_way();
                    let ended = timeout(ACCEPT_PAUSE, connections.join_next_with_id()).await;
                    ended.ok().flatten().into_iter().for_each(|ended| places.leave(ended));
                }
            },
            Some(ended) = connections.join_next_with_id() => places.leave(ended),
            _ = look_again.tick(), if newcomer.is_some() => {}
            deadline = told_to_stop(&mut stop) => break deadline,
        }
        // Others wait in the kernel's backlog until this one has its place.
        if newcomer.is_some() && places.are_taken() {
            places.make_way();
        } else if let Some((stream, peer)) = newcomer.take() {
            let connection = Connection::new(stream, patience);
            let progress = connection.progress();
            let task = connections.spawn(server.clone().connection(connection, peer));
            places.take(task.id(), progress);
        }
    };
    drop((listener, newcomer));
    let drained =
        timeout_at(deadline, async { while connections.join_next().await.is_some() {} }).await.is_ok();
    connections.shutdown().await;
    drained
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
    metrics: Arc<Metrics>,
    stop: watch::Receiver<Stop>,
}

impl Server {
    async fn connection(self, mut connection: Connection<TcpStream>, peer: SocketAddr) {
        let _counted = Counted::in_gauge(&self.metrics.connections);
        // Answers are small and wait for nothing.
        let _ = connection.stream().set_nodelay(true);
        let progress = connection.progress();
        let result = progress.deadlines.watch(self.exchange(&mut connection, peer.ip(), &progress)).await;
        if let Err(error) = &result {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
        match connection.expired() {
            Some(Phase::Head) => {
                let is_in_the_way = progress.makes_way();
                let written = connection.stream().write_all(HEAD_TOO_SLOW);
                let _ = timeout(LINGER.1, written).await;
                if !is_in_the_way {
                    linger(&mut connection).await;
                }
            }
            Some(_) => {}
            None if progress.lingers() || result.is_err_and(|error| error.is_parse()) => {
                linger(&mut connection).await;
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
    // Where there is a Content-Length too, hyper goes by the chunks and closes the connection after the answer, without
    // a word to us (RFC 9112, 6.3).
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = site.answer(request, peer, &progress.deadlines).await?;
    if progress.makes_way() {
        response = closing(text(StatusCode::REQUEST_TIMEOUT, BODY_TOO_SLOW));
    }
    let closing = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    let lingers = closing || chunked;
    if response.body().size_hint().exact().is_some() {
        progress.end(lingers);
        return Ok(response);
    }
    // A stream is answered when it ends; until then the connection does not idle.
    let progress = Arc::clone(progress);
    Ok(response.map(|body| Body::new(Streamed { body, progress, lingers })))
}

/// An answer that is not at its end when its head is sent.
struct Streamed {
    body: Body,
    progress: Arc<Progress>,
    lingers: bool,
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
        self.progress.end(self.lingers);
    }
}

/// Says that no more will be written, and reads on for a little, so that the answer arrives. Makes way like any other
/// connection that waits for its peer.
async fn linger(connection: &mut Connection<TcpStream>) {
    let _ = connection.shutdown().await;
    let mut rest = connection.take(LINGER.0);
    let mut scrap = [0; 4096];
    let drain = async { while rest.read(&mut scrap).await.is_ok_and(|bytes| bytes > 0) {} };
    let _ = timeout(LINGER.1, drain).await;
}
