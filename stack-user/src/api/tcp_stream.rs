//! A TCP connection as tokio sees one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stack;
use crate::{stack::TcpId, tcp, time::Duration};

/// A TCP connection: what `tokio::net::TcpStream` is to the kernel's stack.
///
/// Reading copies once, from the frames that arrived to the caller's buffer; writing copies once, into the frame that
/// is sent and retransmitted from. Dropping the stream closes the connection in order: what was written is still
/// delivered, and the stack keeps the connection until its peer has confirmed that.
#[derive(Debug)]
pub struct TcpStream {
    stack: Stack,
    id: TcpId,
    local: SocketAddr,
    remote: SocketAddr,
}

impl TcpStream {
    /// Opens a connection to `remote`.
    ///
    /// Cancel safe: dropping the future aborts the attempt.
    ///
    /// # Errors
    /// `ConnectionRefused`, `HostUnreachable`, `NetworkUnreachable`, `TimedOut`, `ConnectionReset`;
    /// `AddrNotAvailable` when all ports to this peer are in use, or the stack has lost its address; `InvalidInput` when
    /// `remote` is not one host and port; why the stack stopped, if it did.
    pub async fn connect(stack: &Stack, remote: SocketAddr) -> io::Result<Self> {
        let (id, local) = stack.shard().with(|core, now| {
            core.running()?;
            io::Result::Ok(core.stack.tcp_connect(now, remote)?)
        })?;
        let stream = Self { stack: stack.clone(), id, local, remote };
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// A connection that a listener has accepted.
    pub(super) fn accepted(stack: Stack, id: TcpId, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { stack, id, local, remote }
    }

    /// Our end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Sends small writes at once (`TCP_NODELAY`) instead of waiting for the ACK of what is on its way, or not any more.
    pub fn set_nodelay(&self, nodelay: bool) {
        self.stack.shard().with(|core, _| core.stack.tcp_set_nodelay(self.id, nodelay));
    }

    /// Marks what is sent from now on with a Differentiated Services Codepoint, six bits (the upper ones of `IP_TOS`).
    pub fn set_dscp(&self, dscp: u8) {
        self.stack.shard().with(|core, _| core.stack.tcp_set_dscp(self.id, dscp));
    }

    /// Asks a silent peer from time to time whether it is there (`SO_KEEPALIVE` with `TCP_KEEPIDLE`, `TCP_KEEPINTVL` and
    /// `TCP_KEEPCNT`), or not any more. By default it is not asked. When it does not answer, reading fails with `TimedOut`.
    pub fn set_keepalive(&self, keepalive: Option<tcp::KeepAlive>) {
        self.stack.shard().with(|core, now| core.stack.tcp_set_keepalive(now, self.id, keepalive));
    }

    /// How long what was written may stay without the peer's acknowledgement before the connection fails with `TimedOut`
    /// (`TCP_USER_TIMEOUT`). The default is five minutes.
    pub fn set_user_timeout(&self, timeout: Duration) {
        self.stack.shard().with(|core, now| core.stack.tcp_set_user_timeout(now, self.id, timeout));
    }

    /// Dropping the stream from now on resets the connection at once, and gives up what was not delivered (`SO_LINGER`
    /// with a time of 0). Otherwise dropping never waits, and delivers in the background.
    pub fn set_zero_linger(&self) {
        self.stack.shard().with(|core, _| core.stack.tcp_set_zero_linger(self.id, true));
    }

    /// What the protocol knows of the connection, in the manner of Linux' `TCP_INFO`. `None` when it has ended.
    pub fn info(&self) -> Option<tcp::Info> {
        self.stack.shard().with(|core, _| core.stack.tcp(self.id).map(tcp::Connection::info))
    }

    fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.stack.shard().with(|core, _| {
            core.running()?;
            let Some(connection) = core.stack.tcp(self.id) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if let Some(error) = connection.error() {
                return Poll::Ready(Err(error.into()));
            }
            if connection.state().is_synchronized() {
                return Poll::Ready(Ok(()));
            }
            core.waiters.wait_to_write(self.id, cx);
            Poll::Pending
        })
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.stack.shard().with(|core, now| {
            match core.stack.tcp_read(now, self.id, buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    Poll::Ready(Ok(()))
                }
                Err(_) if let Err(stopped) = core.running() => Poll::Ready(Err(stopped.into())),
                Err(tcp::ReadError::WouldBlock) => {
                    core.waiters.wait_to_read(self.id, cx);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error.into())),
            }
        })
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stack.shard().with(|core, now| {
            core.running()?;
            match core.stack.tcp_write(now, self.id, buf) {
                Ok(written) => Poll::Ready(Ok(written)),
                Err(tcp::WriteError::WouldBlock) => {
                    core.waiters.wait_to_write(self.id, cx);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error.into())),
            }
        })
    }

    /// Nothing to do: what was written is on its way already, as far as the windows allow.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes our direction: the peer reads the end of the stream after what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stack.shard().with(|core, now| {
            core.running()?;
            core.stack.tcp_shutdown_write(now, self.id);
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.stack.shard().with(|core, now| core.stack.tcp_close(now, self.id));
    }
}
