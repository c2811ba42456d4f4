//! A TCP listener as tokio sees one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use super::{Stack, TcpStream};
use crate::{stack::ListenerId, tcp::Config};

/// Established connections that wait to be accepted, as in `std` and tokio. Fewer, and a burst of clients has to send
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
    id: ListenerId,
    local: SocketAddr,
}

impl TcpListener {
    /// Listens on `address`: the stack's, or 0.0.0.0 for whichever it has. Port 0 means any that is free;
    /// [`local_addr`](Self::local_addr) tells which.
    ///
    /// # Errors
    /// `AddrInUse` when something listens there, `AddrNotAvailable` when the address is not the stack's.
    // Nothing to wait for yet, but tokio's namesake does, and so may several shards.
    #[allow(clippy::unused_async)]
    pub async fn bind(stack: &Stack, address: SocketAddr) -> io::Result<Self> {
        Self::listen(stack, address, BACKLOG, None)
    }

    pub(super) fn listen(
        stack: &Stack,
        address: SocketAddr,
        backlog: usize,
        config: Option<Config>,
    ) -> io::Result<Self> {
        let (id, local) = stack.shard().with(|core, now| {
            core.running()?;
            let id = core.stack.tcp_listen_with(now, address, backlog, config)?;
            let local = core.stack.tcp_listener(id).map_or(address, |listener| listener.local);
            io::Result::Ok((id, local))
        })?;
        Ok(Self { stack: stack.clone(), id, local })
    }

    /// Where it listens.
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
        self.stack.shard().with(|core, now| {
            core.running()?;
            if core.stack.tcp_listener(self.id).is_none() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, SHUT_DOWN)));
            }
            let Some((id, remote)) = core.stack.tcp_accept(now, self.id) else {
                core.waiters.wait_to_accept(self.id, cx);
                return Poll::Pending;
            };
            let local = core.stack.tcp(id).map_or(self.local, crate::tcp::Connection::local);
            Poll::Ready(Ok((TcpStream::accepted(self.stack.clone(), id, local, remote), remote)))
        })
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.stack.shard().with(|core, now| {
            core.stack.tcp_unlisten(now, self.id);
            core.waiters.forget_listener(self.id);
        });
    }
}
