//! Active opens: a connection's first steps.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
};

use super::{Stack, TcpId, demux::Flow};
use crate::{
    frame::FramePool,
    net::route::{self, Route},
    tcp::{Config, Connection},
    time::Instant,
};

/// Why a connection can't even be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address has been claimed.
    #[error("the stack has no address (yet): claim one first")]
    NoAddress,
    /// The local address that was asked for.
    #[error(
        "{0} is not an address of this stack, or not for long: connect from one that it has claimed, or from any (0.0.0.0)"
    )]
    NotOurs(IpAddr),
    /// Nobody can forward to the destination.
    #[error("no route to {0}: it is not on our link and there is no gateway; name one with --gateway")]
    NoRoute(IpAddr),
    /// The destination is not one host, or port 0.
    #[error("TCP can't connect to {0} through a network card: name one host's address and a port")]
    BadRemote(SocketAddr),
    /// The port that was asked for is a listener's, or has a connection to the same peer.
    #[error("port {port} can't be used for a connection to {remote}: a listener or another connection has it", port = .0.port(), remote = .1)]
    InUse(SocketAddr, SocketAddr),
    /// There is no ephemeral port left.
    #[error("all ephemeral ports to {0} are in use: close connections, or claim another address")]
    NoPort(SocketAddr),
}

/// Ports that are passed over because their answers would come to another queue. Fewer, and with dozens of queues some
/// connections get none that suits; more, and a NIC whose hash hardly depends on our port makes each connection slow: these
/// many hashes take a fortieth of a millisecond. Less than are tried before ports in TIME-WAIT are.
const MAX_MISPLACED: u32 = 256;

/// How often a port is picked that another shard then takes in the same moment. Once more after that has never been seen;
/// whoever asks for one port is told at once that it is in use.
const RESERVE_ATTEMPTS: usize = 8;

impl<P: FramePool> Stack<P> {
    /// Opens a connection (RFC 9293 §3.10.1); its SYN is the next thing that it has to send. Returns it with the local
    /// address, which is that of the route (§3.9.1.1, MUST-44), and port. Of several addresses it is the one in the peer's
    /// subnet, else the first that has a router (RFC 1122 §3.3.4.3).
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn tcp_connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
    ) -> Result<(TcpId, SocketAddr), ConnectError> {
        self.tcp_connect_with(now, None, remote, None)
    }

    /// As [`tcp_connect`](Self::tcp_connect), from a chosen address, unless that is 0.0.0.0, and port, unless that is 0; and as
    /// another configuration than the stack's says, if there is one.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn tcp_connect_with(
        &mut self,
        now: Instant,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        config: Option<&Config>,
    ) -> Result<(TcpId, SocketAddr), ConnectError> {
        let route = self.route_to(remote, local.map(|local| local.ip()))?;
        let port = local.map_or(0, |local| local.port());
        let flow = self.reserve_flow(now, SocketAddr::new(route.address(), port), remote)?;
        let local = flow.local;
        let secrets = self.secrets(now, &flow);
        self.time_waits.remove(&flow);
        let config = self.tcp_config(config, local.ip(), route.mtu());
        let connection = Connection::connect(now, config, local, remote, secrets);
        let id = self.connections.insert(connection);
        self.unreserve(&flow);
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        Ok((id, local))
    }

    /// The number of the shard that has a connection, or a TIME-WAIT, from `local` to `remote`, if one of several has: only there
    /// can another connection follow it.
    pub fn shard_of(&self, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        let siblings = self.siblings.as_ref()?;
        let route = self.route_to(remote, Some(local.ip())).ok()?;
        let flow = Flow { local: SocketAddr::new(route.address(), local.port()), remote };
        siblings.owner(&flow).map(usize::from)
    }

    /// From `source`, if that is chosen.
    fn route_to(&self, remote: SocketAddr, source: Option<IpAddr>) -> Result<Route, ConnectError> {
        let routes = self.routes();
        let chosen = source.filter(|source| !source.is_unspecified());
        if let Some(foreign) = chosen.filter(|&source| !self.addresses.may_open(source)) {
            return Err(ConnectError::NotOurs(foreign));
        }
        if routes.first().is_none() {
            return Err(ConnectError::NoAddress);
        }
        // RFC 9293 §3.9.1.1, MUST-46.
        if remote.port() == 0 || !route::is_unicast(remote.ip()) || routes.is_broadcast(remote.ip()) {
            return Err(ConnectError::BadRemote(remote));
        }
        let route = match chosen {
            Some(source) => routes.next_hop(source, remote.ip()).and(routes.get(source)),
            None => routes.source_for(remote.ip()),
        };
        route.copied().ok_or(ConnectError::NoRoute(remote.ip()))
    }

    /// The flow of a connection, which from now on is no other shard's.
    fn reserve_flow(
        &mut self,
        now: Instant,
        wish: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Flow, ConnectError> {
        for _ in 0..RESERVE_ATTEMPTS {
            let flow = Flow { local: self.pick_local(now, wish, remote)?, remote };
            if self.reserve(&flow).is_ok() {
                return Ok(flow);
            }
        }
        Err(ConnectError::NoPort(remote))
    }

    /// The local end of a connection: as `wish` says, with a port that nobody can guess in place of 0.
    fn pick_local(
        &mut self,
        now: Instant,
        wish: SocketAddr,
        remote: SocketAddr,
    ) -> Result<SocketAddr, ConnectError> {
        let Self { connections, half_open, listeners, time_waits, ports, siblings, placement, .. } = self;
        let is_used = |port, or_waits: bool| {
            let flow = Flow { local: SocketAddr::new(wish.ip(), port), remote };
            // A listener's port is its own (RFC 6056 §3.2): its clients would meet ours.
            connections.is_in_use(&flow)
                || half_open.find(&flow).is_some()
                || listeners.find(flow.local).is_some()
                || siblings.as_ref().is_some_and(|siblings| siblings.is_used(&flow))
                || if or_waits {
                    time_waits.get(&flow).is_some()
                } else {
                    !time_waits.may_be_reused(now, &flow)
                }
        };
        if wish.port() != 0 {
            return if is_used(wish.port(), false) {
                Err(ConnectError::InUse(wish, remote))
            } else {
                Ok(wish)
            };
        }
        // The answers' queue, before anything that costs more: but a port is better than none.
        let misses = Cell::new(0);
        let is_misplaced = |port| {
            let local = SocketAddr::new(wish.ip(), port);
            let is = misses.get() < MAX_MISPLACED
                && placement.as_ref().is_some_and(|(rss, queue)| rss.queue_of(local, remote) != Some(*queue));
            misses.set(misses.get() + u32::from(is));
            is
        };
        // While all ports wait in TIME-WAIT, nobody shall look at each of them for every connection.
        let fresh = ports.pick_soon(wish.ip(), remote, |port| is_misplaced(port) || is_used(port, true));
        let port = fresh.or_else(|| ports.pick(wish.ip(), remote, |port| is_used(port, false)));
        let port = port.ok_or(ConnectError::NoPort(remote))?;
        Ok(SocketAddr::new(wish.ip(), port))
    }
}
