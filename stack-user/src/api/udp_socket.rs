//! A UDP socket as tokio sees one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use super::Stack;
use crate::{net::udp::RecvError, stack::UdpId};

/// A UDP socket: what `tokio::net::UdpSocket` is to the kernel's stack.
#[derive(Debug)]
pub struct UdpSocket {
    stack: Stack,
    id: UdpId,
    local: SocketAddr,
}

impl UdpSocket {
    /// A socket on `port` of the stack's address; port 0 means one that nobody can guess (RFC 6056).
    ///
    /// # Errors
    /// `AddrInUse` when another socket has the port, or all have one.
    pub fn bind(stack: &Stack, port: u16) -> io::Result<Self> {
        let (id, local) = stack.shard().with(|core, _| {
            core.running()?;
            io::Result::Ok(core.stack.udp_bind(port)?)
        })?;
        Ok(Self { stack: stack.clone(), id, local })
    }

    /// Our end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends a datagram. It does not wait: one that can't be sent is lost, as any datagram may be.
    ///
    /// # Errors
    /// `InvalidInput` when it does not fit in a packet, `NetworkUnreachable` without a route, `OutOfMemory` when no
    /// frame is free.
    pub fn send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        self.stack.shard().with(|core, now| {
            core.running()?;
            io::Result::Ok(core.stack.udp_send_to(now, self.id, remote, payload)?)
        })?;
        Ok(payload.len())
    }

    /// Receives a datagram: its length and its sender. What does not fit in `buf` is cut off. Cancel safe.
    ///
    /// # Errors
    /// `ConnectionRefused` when an ICMP error said that a datagram of ours found no socket.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_recv_from(cx, buf)).await
    }

    /// [`recv_from`](Self::recv_from) for those who poll themselves.
    ///
    /// # Errors
    /// As `recv_from`.
    pub fn poll_recv_from(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.stack.shard().with(|core, _| match core.stack.udp_recv_from(self.id, buf) {
            Err(RecvError::WouldBlock) if let Err(stopped) = core.running() => {
                Poll::Ready(Err(stopped.into()))
            }
            Err(RecvError::WouldBlock) => {
                core.waiters.wait_to_receive(self.id, cx);
                Poll::Pending
            }
            received => Poll::Ready(received.map_err(io::Error::from)),
        })
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.stack.shard().with(|core, _| {
            core.stack.udp_close(self.id);
            core.waiters.forget_udp(self.id);
        });
    }
}
