//! HTTP/1.1 connections, and the ones that are kept for the next URL on the same host.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::tap::{Record, Tap};
use super::target::Origin;
use crate::cli::console::Diagnostics;
use crate::cli::error::Failure;
use crate::telemetry::STORY;

/// The most header lines that a response may have, and the most bytes. The bytes are curl's limit. Fewer lines would
/// refuse real sites that set a cookie per feature; more cost an allocation of this size for each response.
const HEADERS_MAX: usize = 4096;
const HEAD_BYTES_MAX: usize = 300 * 1024;

/// How long connections may take to end in order once all is done. FIN and its ACK take a round trip; a peer that
/// does not answer gets a reset and does not delay the exit.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that a request can be sent on.
pub(super) struct Connection {
    id: usize,
    origin: Origin,
    sender: SendRequest<Full<Bytes>>,
    record: Record,
    reused: bool,
}

impl Connection {
    /// Sends `request` and waits for the head of the response.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        self.record.begin();
        self.sender.send_request(request).await
    }

    /// What the wire has seen of the current exchange.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Whether the failed exchange may be repeated on a fresh connection: the server closes an idle connection when
    /// it likes, and a request may then cross its FIN (RFC 9112 §9.3.1). Once a byte has come, that is no excuse.
    pub(super) fn died_idle(&self) -> bool {
        let timed_out = self.record.read_error() == Some(io::ErrorKind::TimedOut);
        self.reused && self.record.is_silent() && !timed_out
    }
}

/// All connections of a run: the tasks that drive them, and those that are free for another request.
#[derive(Default)]
pub(super) struct Connections {
    idle: Vec<Connection>,
    drivers: JoinSet<()>,
    opened: usize,
}

impl Connections {
    /// Takes the idle connection to `origin`, if there is one that the server has not closed.
    pub(super) async fn take(&mut self, origin: &Origin) -> Option<Connection> {
        while let Some(index) = self.idle.iter().position(|connection| connection.origin == *origin) {
            let mut connection = self.idle.swap_remove(index);
            if connection.sender.ready().await.is_ok() {
                let Connection { id, origin: Origin { host, .. }, .. } = &connection;
                tracing::info!(target: STORY, "Re-using existing connection! (#{id}) with host {host}");
                connection.reused = true;
                return Some(connection);
            }
            tracing::info!(target: STORY, "Connection #{} was closed by the server", connection.id);
        }
        None
    }

    /// Starts HTTP/1.1 on a fresh stream.
    pub(super) async fn start<S>(
        &mut self,
        stream: S,
        origin: Origin,
        verbose: Option<Diagnostics>,
    ) -> Result<Connection, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (tap, record) = Tap::new(stream, verbose);
        let (sender, driver) = Builder::new()
            .title_case_headers(true)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            // What curl takes, too: real servers send these.
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(tap))
            .await
            .map_err(|_| Failure::Receive(record.read_error().unwrap_or(io::ErrorKind::Other)))?;
        self.drivers.spawn(async move {
            // Whoever waits for the response gets the error as well, and tells it.
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an HTTP connection ended");
            }
        });
        let id = self.opened;
        self.opened += 1;
        Ok(Connection { id, origin, sender, record, reused: false })
    }

    /// Keeps a connection whose response has been read to its end.
    pub(super) fn keep(&mut self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let Connection { id, origin: Origin { host, .. }, .. } = &connection;
        tracing::info!(target: STORY, "Connection #{id} to host {host} left intact");
        self.idle.push(connection);
    }

    /// Ends all connections, in order if the peers play along.
    pub(super) async fn close(mut self) {
        self.idle.clear();
        let drivers = &mut self.drivers;
        let _ = timeout(CLOSE_TIMEOUT, async { while drivers.join_next().await.is_some() {} }).await;
    }
}
