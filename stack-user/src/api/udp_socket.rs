//! A UDP socket as tokio sees one.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::OnceLock,
    task::{Context, Poll},
};

use tokio::{
    io::{Interest, Ready},
    task::coop::consume_budget,
};

use super::{PORT_ATTEMPTS, Stack, shards::Turn, turns::step, udp_many::Fields};
use crate::{net::udp::RecvError, stack::UdpId, time::Instant, wire::Ecn};

/// The protocols of a shard.
type Protocols = crate::stack::Stack<crate::device::Umem>;

/// A UDP socket: what `tokio::net::UdpSocket` is to the kernel's stack.
///
/// Sending never waits: a datagram for which there is no room is lost, as any datagram may be, and that is an error. Several
/// tasks may receive from one socket; each datagram goes to one of them. All that waits is cancel safe.
#[derive(Debug)]
pub struct UdpSocket {
    stack: Stack,
    /// One for each shard that the handle reaches: a datagram may come to any of them.
    ids: Box<[UdpId]>,
    turn: Turn,
    /// The shard that sends, so that datagrams stay in order; its place among them.
    sender: usize,
    local: SocketAddr,
    remote: OnceLock<SocketAddr>,
    fields: Fields,
}

impl UdpSocket {
    /// A socket on `local`: the stack's address, or 0.0.0.0 for whichever it has. Port 0 means one that nobody can guess
    /// (RFC 6056); [`local_addr`](Self::local_addr) tells which.
    ///
    /// # Errors
    /// `AddrInUse` when another socket has the port, or all have one; `AddrNotAvailable` when the address is not the stack's;
    /// why the stack stopped, if it did.
    // Nothing to wait for, but tokio's namesake does.
    #[allow(clippy::unused_async)]
    pub async fn bind(stack: &Stack, local: SocketAddr) -> io::Result<Self> {
        for _ in 1..PORT_ATTEMPTS {
            match Self::bind_once(stack, local) {
                Err(error) if local.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Self::bind_once(stack, local)
    }

    /// Binds on each shard, to the port that the first one found if that was left to us.
    fn bind_once(stack: &Stack, wish: SocketAddr) -> io::Result<Self> {
        let (mut ids, mut local) = (Vec::new(), wish);
        for shard in stack.shards() {
            let bound = shard.with(|core, _| {
                core.running()?;
                io::Result::Ok(core.stack.udp_bind(local)?)
            });
            match bound {
                Ok((id, at)) => {
                    ids.push(id);
                    local = at;
                }
                Err(error) => {
                    close(stack, &ids);
                    return Err(error);
                }
            }
        }
        let (stack, sender, turn) = (stack.clone(), stack.next_position(), Turn::default());
        let (ids, remote, fields) = (ids.into(), OnceLock::new(), Fields::default());
        Ok(Self { stack, ids, turn, sender, local, remote, fields })
    }

    /// Our end's address: 0.0.0.0 if it is on all of them, until it is [connected](Self::connect).
    pub fn local_addr(&self) -> SocketAddr {
        let local = self.stack.shards()[0].with(|core, _| core.stack.udp_local(self.ids[0]));
        local.unwrap_or(self.local)
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
        for (shard, &id) in self.stack.shards().iter().zip(&self.ids) {
            shard.with(|core, _| core.stack.udp_connect(id, remote));
        }
        Ok(())
    }

    /// Sends a datagram to the peer that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected`; else as [`send_to`](Self::send_to).
    pub async fn send(&self, payload: &[u8]) -> io::Result<usize> {
        self.send_to(payload, self.peer_addr()?).await
    }

    /// Sends a datagram. It does not wait for the network, but lets others run if the task has done much without a pause. Cancel safe:
    /// then nothing was sent.
    ///
    /// # Errors
    /// `InvalidInput` when it does not fit in a packet, `NetworkUnreachable` without a route, `OutOfMemory` when no
    /// frame is free; and, once, what an ICMP error said of an earlier one.
    pub async fn send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        consume_budget().await;
        self.try_send_to(payload, remote)
    }

    /// [`send`](Self::send), which never waits.
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, payload: &[u8]) -> io::Result<usize> {
        self.try_send_to(payload, self.peer_addr()?)
    }

    /// [`send_to`](Self::send_to), which never waits.
    ///
    /// # Errors
    /// As there.
    pub fn try_send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        self.try_send_many([payload], remote, None, Ecn::NotEct)?;
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
        self.poll_take(Some(cx), buf)
    }

    /// Receives a datagram: its length.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).await.map(|(n, _)| n)
    }

    /// [`recv`](Self::recv) for those who poll themselves.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn poll_recv(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_recv_from(cx, buf).map_ok(|(n, _)| n)
    }

    /// Receives a datagram if one has come: its length.
    ///
    /// # Errors
    /// `WouldBlock` if none has; else as [`recv_from`](Self::recv_from).
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_recv_from(buf).map(|(n, _)| n)
    }

    /// Receives a datagram if one has come: its length and its sender.
    ///
    /// # Errors
    /// `WouldBlock` if none has; else as [`recv_from`](Self::recv_from).
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        at_once(self.poll_take(None, buf))
    }

    /// Waits for a datagram, and leaves it to be received.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_peek_from(cx, buf)).await
    }

    /// [`peek_from`](Self::peek_from) for those who poll themselves.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn poll_peek_from(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.poll(Some(cx), |stack, id| stack.udp_peek_from(id, buf))
    }

    /// Looks at the next datagram if one has come, and leaves it to be received.
    ///
    /// # Errors
    /// `WouldBlock` if none has; else as [`recv_from`](Self::recv_from).
    pub fn try_peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        at_once(self.poll(None, |stack, id| stack.udp_peek_from(id, buf)))
    }

    /// As [`peek_from`](Self::peek_from), without the sender.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.peek_from(buf).await.map(|(n, _)| n)
    }

    /// As [`peek_from`](Self::peek_from), the sender only.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn peek_sender(&self) -> io::Result<SocketAddr> {
        self.peek_from(&mut []).await.map(|(_, sender)| sender)
    }

    /// Waits until a datagram has come, or an error. Somebody else may take it first.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let looked = self.poll(Some(cx), |stack, id| stack.udp_peek_from(id, &mut []));
            looked.map(|_| self.running())
        })
        .await
    }

    /// Waits until sending makes sense, which it always does; others may have their turn first.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn writable(&self) -> io::Result<()> {
        consume_budget().await;
        self.running()
    }

    /// Waits for what `interest` names: see [`readable`](Self::readable) and [`writable`](Self::writable).
    ///
    /// # Errors
    /// As there.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        if interest.is_writable() {
            self.writable().await?;
            let has_come = interest.is_readable() && self.try_peek_from(&mut []).is_ok();
            return Ok(if has_come { Ready::READABLE | Ready::WRITABLE } else { Ready::WRITABLE });
        }
        self.readable().await?;
        Ok(Ready::READABLE)
    }

    /// Receives by `receive`. Without a context nobody is woken.
    pub(super) fn poll<T>(
        &self,
        cx: Option<&Context<'_>>,
        mut receive: impl FnMut(&mut Protocols, UdpId) -> Result<T, RecvError>,
    ) -> Poll<io::Result<T>> {
        step(cx, || {
            self.turn.poll(self.stack.shards(), cx, |position, core, _| {
                let id = self.ids[position];
                match receive(&mut core.stack, id) {
                    Err(RecvError::WouldBlock) if let Err(stopped) = core.running() => {
                        Poll::Ready(Err(stopped.into()))
                    }
                    Err(RecvError::WouldBlock) => {
                        if let Some(cx) = cx {
                            core.waiters.wait_to_receive(id, cx);
                        }
                        Poll::Pending
                    }
                    received => Poll::Ready(received.map_err(io::Error::from)),
                }
            })
        })
    }

    /// Sends by `send`, all at one shard so that the datagrams stay in order.
    pub(super) fn send_by<T>(
        &self,
        send: impl FnOnce(&mut Protocols, Instant, UdpId) -> io::Result<T>,
    ) -> io::Result<T> {
        let sender = match self.ids.len() {
            1 => 0,
            _ => self.stack.idle_position(self.sender),
        };
        self.stack.shards()[sender].with(|core, now| {
            core.running()?;
            send(&mut core.stack, now, self.ids[sender])
        })
    }

    /// What the IP headers of what is sent say.
    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The next one to receive from may be another shard.
    pub(super) fn pass_on(&self) {
        self.turn.pass_on();
    }

    /// Takes a datagram, so that the next one may be another shard's.
    fn poll_take(&self, cx: Option<&Context<'_>>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let received = self.poll(cx, |stack, id| stack.udp_recv_from(id, buf));
        if received.is_ready() {
            self.pass_on();
        }
        received
    }

    /// Why the stack stopped, if it did.
    fn running(&self) -> io::Result<()> {
        for shard in self.stack.shards() {
            shard.with(|core, _| core.running())?;
        }
        Ok(())
    }
}

fn at_once<T>(result: Poll<io::Result<T>>) -> io::Result<T> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Closes the first shards' sockets.
fn close(stack: &Stack, ids: &[UdpId]) {
    for (shard, &id) in stack.shards().iter().zip(ids) {
        let waited = shard.with(|core, _| {
            core.stack.udp_close(id);
            core.waiters.forget_udp(id)
        });
        drop(waited);
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        close(&self.stack, &self.ids);
    }
}
