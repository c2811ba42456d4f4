//! One client of a proxy, from its first byte to its last.

use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Host;

use super::client::Client;
use super::config::{Config, Protocol};
use super::socks5::{VERSION, VERSION_4};
use super::{http, socks};
use crate::cli::network::{Connection, Network};
use crate::cli::relay::handle::Tally;
use crate::cli::relay::outgoing::Outgoing;
use crate::cli::relay::pump::relay;
use crate::cli::relay::{Accepted, DialError, Dialer, Limits, Serve, Side};
use crate::telemetry::STORY;

/// What a client of SOCKS version 4 understands: rejected.
const VERSION_4_REJECTED: [u8; 8] = [0, 91, 0, 0, 0, 0, 0, 0];

/// What serves the clients of a proxy.
pub(super) struct Proxy<N> {
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) dialer: Dialer<N>,
    pub(super) tally: Arc<Tally>,
    pub(super) stopping: CancellationToken,
}

impl<N: Network> Serve for Proxy<N> {
    async fn serve<S: Connection>(self: Arc<Self>, client: S, accepted: Accepted) {
        if !self.config.allows(accepted.peer) {
            self.tally.refused();
            return client.reset();
        }
        if let Some(keepalive) = self.limits.probes() {
            client.set_keepalive(keepalive);
        }
        let mut client = Client::new(client);
        let first = match timeout(self.config.handshake_timeout, client.first_byte()).await {
            Ok(Ok(first)) => first,
            // Nothing was wanted: a port that is looked at, or a browser that connects in advance.
            Ok(Err(_)) => return client.close().await,
            Err(_) => return self.tally.refused(),
        };
        match (self.config.protocol, first) {
            (Protocol::Auto | Protocol::Socks5, VERSION) => socks::serve(&*self, client, accepted).await,
            (Protocol::Auto | Protocol::Socks5, VERSION_4) => {
                self.tally.refused();
                client.refuse(&VERSION_4_REJECTED).await;
            }
            (Protocol::Auto, first) if first.is_ascii_alphabetic() => {
                http::serve(&self, client, accepted).await
            }
            (Protocol::Http, _) => http::serve(&self, client, accepted).await,
            _ => self.tally.refused(),
        }
    }
}

impl<N: Network> Proxy<N> {
    /// The side through which clients are connected to what they ask for.
    pub(super) fn out(&self) -> Side {
        self.config.side().other()
    }

    /// Carries bytes from now on.
    pub(super) async fn join<S: Connection>(
        &self,
        client: Client<S>,
        target: Outgoing<N::Stream>,
        accepted: Accepted,
        host: &Host,
        port: u16,
    ) {
        if let Some(keepalive) = self.limits.probes() {
            target.set_keepalive(keepalive);
        }
        let Some((client, early)) = client.into_parts() else { return target.reset() };
        let outcome = relay(client, early, target, self.limits.idle(), &self.tally.traffic).await;
        let from = accepted.peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
        tracing::info!(target: STORY, "{from} -> {host}:{port}: {outcome}");
    }

    /// Counts it, and tells it to those who want to know.
    pub(super) fn tell_failure(&self, error: &DialError, host: &Host, port: u16) {
        match error {
            DialError::Forbidden(_) => self.tally.refused(),
            _ => self.tally.failed(),
        }
        tracing::info!(target: STORY, "{host}:{port}: {error}");
    }
}
