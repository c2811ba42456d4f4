//! A TCP listener as tokio sees one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use super::{PORT_ATTEMPTS, Stack, TcpStream, options::Linger, shards::Turn, turns::step};
use crate::{stack::ListenerId, tcp::Config, time::Duration};

/// Established connections that wait to be accepted on each shard, as in `std` and tokio. Fewer, and a burst of clients has to send
/// its last ACK twice; more, and clients wait for a program that can't keep up.
const BACKLOG: usize = 1024;

/// Why nothing is accepted any more.
const SHUT_DOWN: &str = "the listener was closed when its stack was shut down";

/// A TCP listener: what `tokio::net::TcpListener` is to the kernel's stack.
///
/// Dropping it resets the connections that wait to be accepted; those that were accepted go on.
#[derive(Debug)]
pub struct TcpListener {
    stack: Stack,
    /// One for each shard that the handle reaches: a SYN may come to any of them.
    ids: Box<[ListenerId]>,
    turn: Turn,
    local: SocketAddr,
    /// What accepted streams start with.
    linger: Option<Duration>,
}

impl TcpListener {
    /// Listens on `address`: the stack's, or 0.0.0.0 for whichever it has. Port 0 means any that is free;
    /// [`local_addr`](Self::local_addr) tells which.
    ///
    /// # Errors
    /// `AddrInUse` when something listens there, `AddrNotAvailable` when the address is not the stack's.
    // Nothing to wait for, but tokio's namesake does.
    #[allow(clippy::unused_async)]
    pub async fn bind(stack: &Stack, address: SocketAddr) -> io::Result<Self> {
        Self::listen(stack, address, BACKLOG, None)
    }

    /// The same, with at most `backlog` established connections that wait to be accepted on each shard, from 1 to
    /// [`MAX_BACKLOG`](crate::stack::MAX_BACKLOG). As many may be half-open, and 64 in any case.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_with_backlog(stack: &Stack, address: SocketAddr, backlog: usize) -> io::Result<Self> {
        Self::listen(stack, address, backlog, None)
    }

    pub(super) fn listen(
        stack: &Stack,
        address: SocketAddr,
        backlog: usize,
        config: Option<Config>,
    ) -> io::Result<Self> {
        for _ in 1..PORT_ATTEMPTS {
            match Self::listen_once(stack, address, backlog, config.as_ref()) {
                Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Self::listen_once(stack, address, backlog, config.as_ref())
    }

    /// Listens on each shard, on the port that the first one found if that was left to us.
    fn listen_once(
        stack: &Stack,
        address: SocketAddr,
        backlog: usize,
        config: Option<&Config>,
    ) -> io::Result<Self> {
        let (mut ids, mut local) = (Vec::new(), address);
        for shard in stack.shards() {
            let listening = shard.with(|core, now| {
                core.running()?;
                let id = core.stack.tcp_listen_with(now, local, backlog, config.cloned())?;
                local = core.stack.tcp_listener(id).map_or(local, |listener| listener.local);
                io::Result::Ok(id)
            });
            match listening {
                Ok(id) => ids.push(id),
                Err(error) => {
                    unlisten(stack, &ids);
                    return Err(error);
                }
            }
        }
        Ok(Self { stack: stack.clone(), ids: ids.into(), turn: Turn::default(), local, linger: None })
    }

    /// Accepted streams linger so long when they are closed.
    pub(super) fn lingering(mut self, linger: Option<Duration>) -> Self {
        self.linger = linger;
        self
    }

    /// Where it listens. It needs no `io::Result`, as tokio's does: a listener knows that for all its life.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for a connection, and returns it with its peer's address. Cancel safe.
    ///
    /// # Errors
    /// Why the stack stopped, if it did, or that it was [shut down](Stack::shut_down). A connection that has failed since is returned all the same, and reading tells.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`accept`](Self::accept) for those who poll themselves.
    ///
    /// # Errors
    /// As `accept`.
    pub fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = step(Some(cx), || {
            self.turn.poll(self.stack.shards(), Some(cx), |position, core, now| {
                let listener = self.ids[position];
                core.running()?;
                if core.stack.tcp_listener(listener).is_none() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, SHUT_DOWN)));
                }
                let Some((id, remote)) = core.stack.tcp_accept(now, listener) else {
                    core.waiters.wait_to_accept(listener, cx);
                    return Poll::Pending;
                };
                let local = core.stack.tcp(id).map_or(self.local, |connection| connection.local());
                let (home, linger) = (self.stack.home(position), Linger::new(self.linger));
                Poll::Ready(Ok((TcpStream::accepted(home, id, local, remote, linger), remote)))
            })
        });
        if accepted.is_ready() {
            self.turn.pass_on();
        }
        accepted
    }
}

/// Ends the first shards' listeners.
fn unlisten(stack: &Stack, ids: &[ListenerId]) {
    for (shard, &id) in stack.shards().iter().zip(ids) {
        let waited = shard.with(|core, now| {
            core.stack.tcp_unlisten(now, id);
            core.waiters.forget_listener(id)
        });
        drop(waited);
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        unlisten(&self.stack, &self.ids);
    }
}
