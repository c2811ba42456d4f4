//! One connection that is forwarded, from its first byte to its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::proxy_protocol;
use super::spec::Spec;
use crate::cli::network::{Connection, Network};
use crate::cli::relay::handle::Tally;
use crate::cli::relay::outgoing::Outgoing;
use crate::cli::relay::pump::{OrReset, relay};
use crate::cli::relay::{Accepted, DialError, Dialer, Serve, Target};
use crate::tcp::KeepAlive;
use crate::telemetry::STORY;

/// What serves the connections of a forward.
pub(super) struct Forward<N> {
    pub(super) spec: Spec,
    pub(super) dialer: Dialer<N>,
    pub(super) keepalive: Option<KeepAlive>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) tally: Arc<Tally>,
    /// The target could not be reached last time: said once, not for each client.
    pub(super) unreachable: AtomicBool,
}

impl<N: Network> Serve for Forward<N> {
    async fn serve<S: Connection>(self: Arc<Self>, client: S, accepted: Accepted) {
        // Whatever goes wrong, the client is told as if the target had reset it.
        let mut client = OrReset::new(client);
        let target = match self.dial(accepted.port).await {
            Ok(target) => target,
            Err(error) => return self.tell_unreachable(&error),
        };
        if self.unreachable.swap(false, Ordering::Relaxed) {
            tracing::warn!("{} can be reached again", self.spec.to);
        }
        let Some(client) = client.take() else { return };
        self.join(client, target, accepted).await;
    }
}

impl<N: Network> Forward<N> {
    async fn dial(&self, index: u16) -> Result<Outgoing<N::Stream>, DialError> {
        match &self.spec.to {
            Target::Tcp(side, host, ports) => self.dialer.dial(*side, host, ports.nth(index)).await,
            Target::Unix(path) => self.dialer.dial_file(path).await,
        }
    }

    fn tell_unreachable(&self, error: &DialError) {
        self.tally.failed();
        if !self.unreachable.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} cannot be reached, and its clients are reset: {error}", self.spec.to);
        }
        tracing::info!(target: STORY, "{}: {error}", self.spec.to);
    }

    async fn join<S: Connection>(&self, client: S, target: Outgoing<N::Stream>, accepted: Accepted) {
        if let Some(keepalive) = self.keepalive {
            client.set_keepalive(keepalive);
            target.set_keepalive(keepalive);
        }
        let (mut client, mut target) = (OrReset::new(client), OrReset::new(target));
        if let Some(version) = self.spec.proxy_protocol {
            let local = client.get().and_then(|client| client.local_addr());
            let header = proxy_protocol::header(version, accepted.peer, local);
            let Some(stream) = target.get() else { return };
            if stream.write_all(&header).await.is_err() {
                return;
            }
        }
        let Some((client, target)) = client.take().zip(target.take()) else { return };
        let outcome = relay(client, Vec::new(), target, self.idle_timeout, &self.tally.traffic).await;
        let from = accepted.peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
        tracing::info!(target: STORY, "{from} -> {}: {outcome}", self.spec.to);
    }
}
