//! One URL: send, follow, write.

use std::time::Duration;

use http::header::LOCATION;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::connection::{Connection, Connections};
use super::diagnose::{body_failure, head_failure};
use super::dial::{DEFAULT_CONNECT_TIMEOUT, Limit, dial};
use super::options::{CurlOptions, Override};
use super::output::Sink;
use super::progress::Progress;
use super::request::Plan;
use super::target::{Origin, Target};
use crate::cli::console::Diagnostics;
use crate::cli::error::Failure;
use crate::cli::network::Network;
use crate::telemetry::STORY;

/// How much of a body that nobody wants (of a redirect, say) is read to keep its connection. Beyond it a new
/// connection is cheaper.
const UNWANTED_BODY_MAX: u64 = 64 * 1024;

/// What the transfers of a run share.
pub(super) struct Session<'a, N> {
    /// What to connect through.
    pub(super) network: &'a N,
    /// The command's options.
    pub(super) options: &'a CurlOptions,
    /// `--resolve`.
    pub(super) overrides: &'a [Override],
    /// Kept from one URL to the next.
    pub(super) connections: &'a mut Connections,
    /// For `-v` and the progress bar.
    pub(super) diagnostics: &'a Diagnostics,
}

/// The transfer of one URL.
pub(super) struct Transfer<'a, 'b, N> {
    session: &'a mut Session<'b, N>,
    sink: Sink<'a>,
    start: Instant,
    /// `--max-time`.
    deadline: Option<Instant>,
    /// Bytes of the body so far.
    received: u64,
    /// Its length, if the server said.
    total: Option<u64>,
}

impl<'a, 'b, N: Network> Transfer<'a, 'b, N> {
    /// Prepares one; the clock of `--max-time` starts.
    pub(super) fn new(session: &'a mut Session<'b, N>, sink: Sink<'a>) -> Self {
        let start = Instant::now();
        let deadline = limit(session.options.max_time).and_then(|limit| start.checked_add(limit));
        Self { session, sink, start, deadline, received: 0, total: None }
    }

    /// Does it, within `--max-time`.
    pub(super) async fn run(mut self, plan: Plan, target: Target) -> Result<(), Failure> {
        let Some(deadline) = self.deadline else {
            return self.follow(plan, target).await;
        };
        match timeout_at(deadline, self.follow(plan, target)).await {
            Ok(result) => result,
            Err(_) => {
                let elapsed_ms = self.start.elapsed().as_millis();
                Err(Failure::OperationTimedOut { elapsed_ms, received: self.received, total: self.total })
            }
        }
    }

    /// Requests `target`, and what its redirects lead to.
    async fn follow(&mut self, mut plan: Plan, mut target: Target) -> Result<(), Failure> {
        let first = target.origin();
        let mut redirects = 0;
        loop {
            let (connection, response) = self.exchange(&plan, &target, &first).await?;
            if self.session.options.head || self.session.options.include {
                self.sink.write_head(&connection.record().head()).await?;
            }
            let status = response.status();
            let Some(location) = self.redirect(&response) else {
                return self.deliver(connection, response).await;
            };
            discard(connection, response, self.session.connections).await;
            if self.session.options.redirect_limit().is_some_and(|max| redirects >= max) {
                return Err(Failure::TooManyRedirects { max: redirects });
            }
            redirects += 1;
            target = target.join(&location)?;
            plan.redirected(status);
            tracing::info!(target: STORY, "Issue another request to this URL: '{location}'");
        }
    }

    /// Sends one request and waits for the head of its response, on a kept connection if there is one.
    async fn exchange(
        &mut self,
        plan: &Plan,
        target: &Target,
        first: &Origin,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        let origin = target.origin();
        loop {
            let mut connection = match self.session.connections.take(&origin).await {
                Some(connection) => connection,
                None => self.connect(&origin).await?,
            };
            match connection.exchange(plan.request(target, first)?).await {
                Ok(response) => return Ok((connection, response)),
                Err(_) if connection.died_idle() => {
                    tracing::info!(target: STORY, "Connection died, retrying a fresh connect");
                }
                Err(error) => return Err(head_failure(&error, connection.record())),
            }
        }
    }

    async fn connect(&mut self, origin: &Origin) -> Result<Connection, Failure> {
        let Session { network, options, overrides, connections, diagnostics } = &mut *self.session;
        let within = limit(options.connect_timeout).unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        let start = Instant::now();
        let deadline = start.checked_add(within).unwrap_or(start + DEFAULT_CONNECT_TIMEOUT);
        let limit = match self.deadline {
            Some(sooner) if sooner <= deadline => Limit { start: self.start, deadline: sooner },
            _ => Limit { start, deadline },
        };
        let stream = dial(*network, origin, overrides, limit).await?;
        let verbose = options.verbose.then(|| diagnostics.clone());
        connections.start(stream, origin.clone(), verbose).await
    }

    /// Where the response leads, if we are to go there.
    fn redirect(&self, response: &Response<Incoming>) -> Option<String> {
        if !self.session.options.location || !response.status().is_redirection() {
            return None;
        }
        let location = response.headers().get(LOCATION)?;
        Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
    }

    /// Writes the body of the response that was wanted.
    async fn deliver(&mut self, connection: Connection, response: Response<Incoming>) -> Result<(), Failure> {
        let status = response.status();
        if self.session.options.fail && status >= StatusCode::BAD_REQUEST {
            discard(connection, response, self.session.connections).await;
            self.sink.finish_head().await?;
            return Err(Failure::HttpStatus { status: status.as_u16() });
        }
        let mut body = response.into_body();
        self.total = body.size_hint().exact();
        let progress = Progress::start(self.shows_progress(), self.total);
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    // What came is the user's, even if it is not all.
                    self.sink.finish().await?;
                    let missing = self.total.map(|total| total.saturating_sub(self.received));
                    return Err(body_failure(&error, connection.record(), missing));
                }
            };
            // Trailers are not data.
            let Some(data) = frame.data_ref() else { continue };
            self.received += data.len() as u64;
            self.sink.write_body(data).await?;
            progress.advance(data.len() as u64);
        }
        self.sink.finish().await?;
        self.session.connections.keep(connection);
        Ok(())
    }

    /// With `-v`, or with the output on the same terminal, a bar would only be in the way.
    fn shows_progress(&self) -> bool {
        let options = self.session.options;
        let quiet = options.silent || options.verbose || options.head;
        self.session.diagnostics.is_terminal() && !quiet && !self.sink.is_terminal()
    }
}

/// Reads a body that nobody wants, if it is short and soon over, so that its connection can be used again.
async fn discard(connection: Connection, response: Response<Incoming>, connections: &mut Connections) {
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += match frame {
            Ok(frame) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(_) => return,
        };
        if read > UNWANTED_BODY_MAX {
            return;
        }
    }
    connections.keep(connection);
}

/// Zero stands for no limit.
fn limit(option: Option<Duration>) -> Option<Duration> {
    option.filter(|limit| !limit.is_zero())
}
