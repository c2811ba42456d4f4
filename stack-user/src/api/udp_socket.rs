//! A UDP socket as tokio sees one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::OnceLock,
    task::{Context, Poll},
};

use super::Stack;
use crate::{
    net::udp::RecvError,
    stack::{ListenError, UdpId},
};

/// A UDP socket: what `tokio::net::UdpSocket` is to the kernel's stack.
///
/// Sending never waits: a datagram for which there is no room is lost, as any datagram may be, and that is an error. Several
/// tasks may receive from one socket; each datagram goes to one of them. All that waits is cancel safe.
#[derive(Debug)]
pub struct UdpSocket {
    stack: Stack,
    id: UdpId,
    local: SocketAddr,
    remote: OnceLock<SocketAddr>,
}

impl UdpSocket {
    /// A socket on `local`: the stack's address, or 0.0.0.0 for whichever it has. Port 0 means one that nobody can guess
    /// (RFC 6056); [`local_addr`](Self::local_addr) tells which.
    ///
    /// # Errors
    /// `AddrInUse` when another socket has the port, or all have one; `AddrNotAvailable` when the address is not the stack's;
    /// why the stack stopped, if it did.
    // Nothing to wait for yet, but tokio's namesake does, and so may several shards.
    #[allow(clippy::unused_async)]
    pub async fn bind(stack: &Stack, local: SocketAddr) -> io::Result<Self> {
        let (id, local) = stack.shard().with(|core, _| {
            core.running()?;
            if !local.ip().is_unspecified() && core.stack.address() != Some(local.ip()) {
                return Err(ListenError::NotOurs(local.ip()).into());
            }
            io::Result::Ok(core.stack.udp_bind(local.port())?)
        })?;
        Ok(Self { stack: stack.clone(), id, local, remote: OnceLock::new() })
    }

    /// Our end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address, once [connected](Self::connect).
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.remote.get().copied().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Receives from `remote` only from now on, and sends there by [`send`](Self::send). Once only.
    ///
    /// # Errors
    /// `AlreadyExists` when it is connected.
    // As tokio's namesake.
    #[allow(clippy::unused_async)]
    pub async fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        self.remote.set(remote).map_err(|_| io::ErrorKind::AlreadyExists)?;
        self.stack.shard().with(|core, _| core.stack.udp_connect(self.id, remote));
        Ok(())
    }

    /// Sends a datagram to the peer that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected`; else as [`send_to`](Self::send_to).
    // As tokio's namesake.
    #[allow(clippy::unused_async)]
    pub async fn send(&self, payload: &[u8]) -> io::Result<usize> {
        self.try_send_to(payload, self.peer_addr()?)
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// `InvalidInput` when it does not fit in a packet, `NetworkUnreachable` without a route, `OutOfMemory` when no
    /// frame is free; and, once, what an ICMP error said of an earlier one.
    // As tokio's namesake.
    #[allow(clippy::unused_async)]
    pub async fn send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        self.try_send_to(payload, remote)
    }

    /// [`send_to`](Self::send_to), which never waits.
    ///
    /// # Errors
    /// As there.
    pub fn try_send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        self.stack.shard().with(|core, now| {
            core.running()?;
            io::Result::Ok(core.stack.udp_send_to(now, self.id, remote, payload)?)
        })?;
        Ok(payload.len())
    }

    /// Receives a datagram: its length and its sender. What does not fit in `buf` is cut off.
    ///
    /// # Errors
    /// `ConnectionRefused` when an ICMP error said that a datagram of ours found no socket; `AddrNotAvailable` when the
    /// stack has lost the address.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_recv_from(cx, buf)).await
    }

    /// [`recv_from`](Self::recv_from) for those who poll themselves.
    ///
    /// # Errors
    /// As `recv_from`.
    pub fn poll_recv_from(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.poll(Some(cx), |stack, id| stack.udp_recv_from(id, buf))
    }

    /// Receives a datagram: its length.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).await.map(|(n, _)| n)
    }

    /// Receives a datagram if one has come.
    ///
    /// # Errors
    /// `WouldBlock` if none has; else as [`recv_from`](Self::recv_from).
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self.poll(None, |stack, id| stack.udp_recv_from(id, buf)) {
            Poll::Ready(received) => received,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits for a datagram, and leaves it to be received.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll(Some(cx), |stack, id| stack.udp_peek_from(id, buf))).await
    }

    /// Waits until a datagram has come, or an error. Somebody else may take it first.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let looked = self.poll(Some(cx), |stack, id| stack.udp_peek_from(id, &mut []));
            looked.map(|_| self.stack.shard().with(|core, _| core.running()).map_err(io::Error::from))
        })
        .await
    }

    /// Receives by `receive`. Without a context nobody is woken.
    fn poll(
        &self,
        cx: Option<&Context<'_>>,
        receive: impl FnOnce(
            &mut crate::stack::Stack<crate::device::Umem>,
            UdpId,
        ) -> Result<(usize, SocketAddr), RecvError>,
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.stack.shard().with(|core, _| match receive(&mut core.stack, self.id) {
            Err(RecvError::WouldBlock) if let Err(stopped) = core.running() => {
                Poll::Ready(Err(stopped.into()))
            }
            Err(RecvError::WouldBlock) => {
                if let Some(cx) = cx {
                    core.waiters.wait_to_receive(self.id, cx);
                }
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
