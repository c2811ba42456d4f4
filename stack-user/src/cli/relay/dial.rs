//! From a target to a connection: every address in turn, within the time there is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use url::Host;

use super::endpoint::Side;
use super::outgoing::Outgoing;
use crate::cli::kernel::{KernelNetwork, connect_error};
use crate::cli::network::{ConnectError, Network, ResolveError};

/// Why a target can't be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Its name has no address.
    #[error("could not resolve the name: {0}")]
    Resolve(#[from] ResolveError),
    /// None of its addresses could be connected to; this is what the last one said.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// Every address of it is one that must not be connected to.
    #[error("{0} is this host itself, which is not for others to reach")]
    Forbidden(IpAddr),
}

impl DialError {
    /// Whether the time was up, rather than that somebody said no.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::TimedOut))
    }
}

/// Connects to targets.
#[derive(Debug)]
pub struct Dialer<N> {
    ours: Arc<N>,
    /// How long resolving and connecting may take together.
    timeout: Duration,
    /// Whether the host's own addresses of loopback are reached through the kernel.
    loopback: bool,
}

impl<N: Network> Dialer<N> {
    /// One that gives up after `timeout`.
    pub fn new(ours: Arc<N>, timeout: Duration) -> Self {
        Self { ours, timeout, loopback: true }
    }

    /// Refuses to connect to loopback through the kernel: what listens there takes its clients for this host's.
    pub fn without_loopback(self) -> Self {
        Self { loopback: false, ..self }
    }

    /// Connects to a host through the sockets of a side.
    ///
    /// # Errors
    /// What the last address that was tried said.
    pub async fn dial(&self, side: Side, host: &Host, port: u16) -> Result<Outgoing<N::Stream>, DialError> {
        match side {
            Side::Ours => self.dial_through(&*self.ours, true, host, port).await.map(Outgoing::Ours),
            Side::Kernel => {
                let dialed = self.dial_through(&KernelNetwork, self.loopback, host, port).await;
                dialed.map(Outgoing::Kernel)
            }
        }
    }

    /// Connects to whoever listens on a socket file.
    ///
    /// # Errors
    /// That nobody does, or that we may not.
    pub async fn dial_file(&self, path: &Path) -> Result<Outgoing<N::Stream>, DialError> {
        let connected = tokio::time::timeout(self.timeout, UnixStream::connect(path)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok(Outgoing::Unix(stream)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ConnectError::Unreachable("there is no such socket".to_owned()).into())
            }
            Err(error) => Err(connect_error(&error).into()),
        }
    }

    async fn dial_through<M: Network>(
        &self,
        network: &M,
        loopback: bool,
        host: &Host,
        port: u16,
    ) -> Result<M::Stream, DialError> {
        let deadline = Instant::now() + self.timeout;
        let resolved = timeout_at(deadline, addresses(network, host)).await;
        let addresses = resolved.map_err(|_| ResolveError::Failed("no answer in time".to_owned()))??;
        let mut outcome = Err(ResolveError::UnknownHost.into());
        for (index, ip) in addresses.iter().enumerate() {
            if !loopback && is_this_host(*ip) {
                outcome = Err(DialError::Forbidden(*ip));
                continue;
            }
            let share = share(deadline, addresses.len() - index);
            match timeout_at(share, network.connect(SocketAddr::new(*ip, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => outcome = Err(error.into()),
                Err(_) => outcome = Err(ConnectError::TimedOut.into()),
            }
        }
        outcome
    }
}

async fn addresses<M: Network>(network: &M, host: &Host) -> Result<Vec<IpAddr>, ResolveError> {
    match host {
        Host::Ipv4(ip) => Ok(vec![(*ip).into()]),
        Host::Ipv6(ip) => Ok(vec![(*ip).into()]),
        Host::Domain(name) => network.resolve(name).await,
    }
}

/// Whether the kernel takes it for this host whatever its interfaces' addresses are.
fn is_this_host(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// When to give up on an address that is followed by others: half of what is left, so that a first address which
/// swallows every packet leaves time for the second, and the last one gets all the rest.
pub(crate) fn share(deadline: Instant, addresses_left: usize) -> Instant {
    if addresses_left <= 1 {
        return deadline;
    }
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}
