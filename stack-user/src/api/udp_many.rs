//! Several datagrams at once, and what the headers of their packets say: what QUIC wants of a socket.

use std::{
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
};

use super::UdpSocket;
use crate::{
    net::udp::Received,
    wire::{Ecn, IpFields},
};

/// A datagram that was received into a buffer: see [`UdpSocket::recv_many`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes of the buffer that it fills.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Which of our addresses it came to (`IP_PKTINFO`).
    pub to: IpAddr,
    /// What routers said of congestion (RFC 3168).
    pub ecn: Ecn,
}

/// What the IP headers of a socket's packets say.
#[derive(Debug)]
pub(super) struct Fields {
    ttl: AtomicU8,
    dscp: AtomicU8,
}

impl Fields {
    fn get(&self) -> IpFields {
        IpFields::new(self.ttl.load(Ordering::Relaxed).max(1), self.dscp.load(Ordering::Relaxed))
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self { ttl: AtomicU8::new(IpFields::DEFAULT_HOP_LIMIT), dscp: AtomicU8::new(0) }
    }
}

impl UdpSocket {
    /// Time to live of the packets (`IP_TTL`). Default: 64. Zero counts as one, since no packet may leave with zero.
    pub fn set_ttl(&self, ttl: u8) {
        self.fields().ttl.store(ttl, Ordering::Relaxed);
    }

    /// Time to live of the packets.
    pub fn ttl(&self) -> u8 {
        self.fields().get().hop_limit
    }

    /// A Differentiated Services Codepoint, six bits (the upper ones of `IP_TOS`). Default: 0.
    pub fn set_dscp(&self, dscp: u8) {
        self.fields().dscp.store(dscp & IpFields::MAX_DSCP, Ordering::Relaxed);
    }

    /// The Differentiated Services Codepoint of the packets.
    pub fn dscp(&self) -> u8 {
        self.fields().dscp.load(Ordering::Relaxed)
    }

    /// Sends several datagrams to `remote` in one go, as `sendmmsg` does, with that codepoint of congestion notification.
    /// If the socket is on all our addresses, they come from `source`, or from the one that a connection would have. Returns
    /// how many were sent: fewer than all when the frames are used up, or when one can't be sent.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to), if the first one can't be sent.
    pub fn try_send_many<'a>(
        &self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
        remote: SocketAddr,
        source: Option<IpAddr>,
        ecn: Ecn,
    ) -> io::Result<usize> {
        let fields = self.fields().get().with_ecn(ecn);
        self.send_by(|stack, now, id| {
            let mut sent = 0;
            for datagram in datagrams {
                match stack.udp_send_with(now, id, remote, source, fields, datagram) {
                    Err(error) if sent == 0 => return Err(error.into()),
                    Err(_) => break,
                    Ok(()) => sent += 1,
                }
            }
            Ok(sent)
        })
    }

    /// Waits for datagrams, and receives as many as there are, one into each of `bufs`, as `recvmmsg` does; what does not fit
    /// in its buffer is cut off. `received` is cleared first, and then tells of each. Cancel safe.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn recv_many(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        received: &mut Vec<Datagram>,
    ) -> io::Result<usize> {
        received.clear();
        poll_fn(|cx| self.poll_recv_many(cx, bufs, |datagram| received.push(datagram))).await
    }

    /// [`recv_many`](Self::recv_many) for those who poll themselves: tells `received` of each datagram, in the order of the
    /// buffers, and returns how many came.
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv_many(
        &self,
        cx: &Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        mut received: impl FnMut(Datagram),
    ) -> Poll<io::Result<usize>> {
        let took = self.poll(Some(cx), |stack, id| {
            let mut n = 0;
            for buf in &mut *bufs {
                match stack.udp_recv(id, buf) {
                    Ok(Received { len, from, to, ecn }) => received(Datagram { len, from, to, ecn }),
                    Err(error) if n == 0 => return Err(error),
                    // An error of the network comes before what waits, and the others can be had again.
                    Err(_) => break,
                }
                n += 1;
            }
            Ok(n)
        });
        if took.is_ready() {
            self.pass_on();
        }
        took
    }
}
