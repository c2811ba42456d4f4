//! HTTP/1.1 for whoever answers requests: one connection from its first byte to its orderly end, within time limits,
//! with TLS if asked for, and a line in the access log for each request.
//!
//! A peer must never take a part for the whole. So a connection that does not end in order is reset: when a body
//! breaks off, when a time limit is over, and when its task is dropped.

pub mod access_log;
mod guarded;
mod transport;

use std::{
    convert::Infallible,
    error::Error as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_rustls::TlsAcceptor;
use tower::BoxError;

use self::{
    access_log::{AccessLog, Entry, Logged},
    guarded::{Activity, Guarded},
    transport::Transport,
};
use super::{network::Connection, service::Service};
use crate::telemetry::STORY;

/// What answers carry.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The longest request line and headers together, as nginx has it. Smaller, and the cookies of some sites do not fit;
/// larger, and a stranger makes every connection cost that much.
const MAX_HEAD: usize = 32 * 1024;

/// How many bytes of a body hyper collects before it waits for the peer. Smaller, and the connection waits for the disk
/// after each piece; larger, and ten thousand slow readers need that much memory each.
const WRITE_BUFFER: usize = 128 * 1024;

/// How long, and for how many bytes, to listen to a peer that was answered and is still sending. Closing at once would
/// reset the connection, and with it the answer, before the peer has read it. nginx lingers, too, and for longer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 1024 * 1024;

/// How long a peer may take, for each thing that it does.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a request, or from the beginning of the connection, TLS handshake included, to the end of
    /// the request's head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Until it takes more of what is being sent.
    pub send: Duration,
}

/// What happened, by number.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// Connections that ended for a request that is none.
    pub bad_requests: AtomicU64,
    /// TLS handshakes that failed.
    pub failed_handshakes: AtomicU64,
    /// Connections whose time for a head, a handshake or for taking what was sent was over.
    pub timed_out: AtomicU64,
    /// Connections that the peer, or the end of a body before its time, broke off.
    pub broken: AtomicU64,
}

/// What all connections of one server have in common.
#[derive(Clone)]
pub struct HttpServer {
    /// The time limits.
    pub limits: Limits,
    /// TLS, if it is spoken.
    pub tls: Option<TlsAcceptor>,
    /// Where requests are told.
    pub log: AccessLog,
    /// What happened.
    pub tally: Arc<Tally>,
}

impl HttpServer {
    /// Serves one connection of `service`: `answer` is called for each request. When the service stops, the request under
    /// way is the last, and a connection without one ends at once. While it is full, each connection has one answer, and
    /// makes room for a newcomer.
    pub async fn serve<C, F>(
        &self,
        stream: C,
        remote: SocketAddr,
        service: &Service,
        answer: impl Fn(Request<Incoming>) -> F,
    ) where
        C: Connection,
        F: Future<Output = Response<Body>>,
    {
        let stopping = service.stopping();
        let activity = Arc::new(Activity::default());
        let guarded = Guarded::new(stream, self.limits, Arc::clone(&activity));
        let transport = match &self.tls {
            None => Transport::Plain(guarded),
            Some(tls) => tokio::select! {
                // Nothing was begun that could be finished.
                () = stopping.cancelled() => return,
                accepted = tls.accept(guarded) => match accepted {
                    Ok(stream) => Transport::Tls(Box::new(stream)),
                    Err(error) => return self.tell_handshake(remote, &error),
                },
            },
        };
        let answering = service_fn(|request: Request<Incoming>| {
            let begun = activity.begin();
            let entry = self.log.entry(remote.ip(), &request);
            let answered = answer(request);
            async move {
                let mut response = answered.await;
                if service.is_full() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                self.tally.requests.fetch_add(1, Ordering::Relaxed);
                let status = response.status();
                Ok::<_, Infallible>(response.map(|body| Logged::new(body, entry, status, begun)))
            }
        });
        let mut http = http1::Builder::new();
        // Time limits are the guard's, which tells idling from dawdling. Whoever has sent all it wants to say may close its side.
        http.header_read_timeout(None).half_close(true).max_header_size(MAX_HEAD).max_buf_size(WRITE_BUFFER);
        let mut connection = http.serve_connection(TokioIo::new(transport), answering);
        let ended = {
            let mut stop = std::pin::pin!(stopping.cancelled());
            let mut stopped = false;
            std::future::poll_fn(|cx| {
                if !stopped && stop.as_mut().poll(cx).is_ready() {
                    stopped = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                let ended = Pin::new(&mut connection).poll(cx);
                if ended.is_pending() && activity.is_idle_for_long() && !stopped {
                    stopped = true;
                    Pin::new(&mut connection).graceful_shutdown();
                    return Pin::new(&mut connection).poll(cx);
                }
                ended
            })
            .await
        };
        let transport = connection.into_parts().io.into_inner();
        self.end(transport, remote, ended, activity.has_timed_out()).await;
    }

    /// Closes in order, or resets when the peer has not got the whole of something.
    async fn end<C: Connection>(
        &self,
        transport: Transport<C>,
        remote: SocketAddr,
        ended: Result<(), hyper::Error>,
        timed_out: bool,
    ) {
        if timed_out {
            self.tally.timed_out.fetch_add(1, Ordering::Relaxed);
        }
        let error = match ended {
            // Nothing had been begun.
            Ok(()) if timed_out => return transport.finish(),
            Ok(()) => return linger(transport).await,
            Err(error) => error,
        };
        if error.is_parse() {
            let status = refusal(&error);
            self.tally.bad_requests.fetch_add(1, Ordering::Relaxed);
            self.log.write(Entry::unreadable(remote.ip()), status, 0);
            return linger(transport).await;
        }
        if !timed_out {
            self.tally.broken.fetch_add(1, Ordering::Relaxed);
        }
        let reason = source_of(&error).map_or_else(|| error.to_string(), ToString::to_string);
        tracing::info!(target: STORY, "{remote}: {reason}");
        // Dropped as it is, the guard resets it.
        drop(transport);
    }

    fn tell_handshake(&self, remote: SocketAddr, error: &io::Error) {
        let timed_out = error.kind() == io::ErrorKind::TimedOut;
        let count = if timed_out { &self.tally.timed_out } else { &self.tally.failed_handshakes };
        count.fetch_add(1, Ordering::Relaxed);
        tracing::info!(target: STORY, "{remote}: the TLS handshake failed: {error}");
    }
}

/// What hyper answers to a request that it can't read.
fn refusal(error: &hyper::Error) -> StatusCode {
    if error.is_parse_too_large() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    }
}

/// The I/O error behind one of hyper's.
fn source_of(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// All is sent, and so is our FIN: listens until the peer has closed too, within limits.
async fn linger<C: Connection>(mut transport: Transport<C>) {
    {
        let mut rest = (&mut transport).take(LINGER_BYTES);
        let until_closed = std::future::poll_fn(|cx| {
            // Not kept while nothing comes: each connection would be as much larger.
            let mut scratch = [0; 2048];
            loop {
                let mut buffer = tokio::io::ReadBuf::new(&mut scratch);
                match std::task::ready!(Pin::new(&mut rest).poll_read(cx, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        });
        let _ = tokio::time::timeout(LINGER, until_closed).await;
    }
    transport.finish();
}
