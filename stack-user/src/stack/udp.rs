//! What applications ask of UDP, and datagrams on their way to their sockets.

use std::net::{IpAddr, SocketAddr};

use super::{Event, Stack, UdpId, egress::Sender, siblings::Membership};
use crate::{
    frame::{FramePool, RxFrame, behind},
    net::{
        icmp::{Problem, Quote},
        ipv4::Datagram,
        reassembly::Reassembled,
        route::Route,
        udp::{BindError, Path, Payload, Received, RecvError, SendError},
    },
    telemetry::DropReason,
    time::Instant,
    wire::{Ecn, IpFields, protocol, udp::Header},
};

/// Why there is no UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UdpBindError {
    /// No address has been claimed.
    #[error("the stack has no address (yet): claim one first")]
    NoAddress,
    /// The address is neither ours nor "all of ours".
    #[error(
        "{0} is not an address of this stack: bind to one that it has claimed, or to all of them (0.0.0.0)"
    )]
    NotOurs(IpAddr),
    /// The port can't be had.
    #[error(transparent)]
    Port(#[from] BindError),
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UdpSendError {
    /// The address was lost, or released.
    #[error("the stack has no address (any more), or not the socket's")]
    NoAddress,
    /// Nobody can forward to the destination.
    #[error("no route to {0}: it is not on our link and there is no gateway; name one with --gateway")]
    NoRoute(IpAddr),
    /// The socket can't send it.
    #[error(transparent)]
    Socket(#[from] SendError),
}

impl<P: FramePool> Stack<P> {
    /// Opens a socket on an address of ours, or on all of them if it is unspecified; port 0 asks for a random one (RFC 6056).
    /// What a socket on all of them sends comes from the address that a connection would (RFC 1122 §4.1.3.5).
    ///
    /// # Errors
    /// See [`UdpBindError`].
    pub fn udp_bind(&mut self, local: SocketAddr) -> Result<(UdpId, SocketAddr), UdpBindError> {
        if self.address().is_none() {
            return Err(UdpBindError::NoAddress);
        }
        if !local.ip().is_unspecified() && !self.addresses.may_open(local.ip()) {
            return Err(UdpBindError::NotOurs(local.ip()));
        }
        let id = self.udp.bind(local, &mut self.rng)?;
        self.tell_of_socket(id, Membership::open);
        Ok((id, self.udp.local(id).unwrap_or(local)))
    }

    /// The address and port of a socket.
    pub fn udp_local(&self, id: UdpId) -> Option<SocketAddr> {
        self.udp.local(id)
    }

    /// Sends a datagram as others do, with a time to live of 64 and no wish.
    ///
    /// # Errors
    /// See [`UdpSendError`].
    pub fn udp_send_to(
        &mut self,
        now: Instant,
        id: UdpId,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Result<(), UdpSendError> {
        self.udp_send_with(now, id, remote, None, IpFields::default(), payload)
    }

    /// Sends a datagram whose IP header says what `fields` do. If the socket is on all our addresses, it comes from `source`.
    ///
    /// # Errors
    /// See [`UdpSendError`].
    pub fn udp_send_with(
        &mut self,
        now: Instant,
        id: UdpId,
        remote: SocketAddr,
        source: Option<IpAddr>,
        fields: IpFields,
        payload: &[u8],
    ) -> Result<(), UdpSendError> {
        let routes = self.addresses.routes();
        let bound = self.udp.local(id).map(|local| local.ip()).filter(|ip| !ip.is_unspecified());
        let bound = bound.or(source.filter(|ip| !ip.is_unspecified()));
        let ours = bound.map_or_else(|| !routes.is_empty(), |source| routes.is_ours(source));
        if !ours {
            return Err(UdpSendError::NoAddress);
        }
        let route = match bound {
            Some(source) => routes.next_hop(source, remote.ip()).and(routes.get(source)),
            None => routes.source_for(remote.ip()),
        };
        let route = route.ok_or(UdpSendError::NoRoute(remote.ip()))?;
        let source = route.address();
        let path = Path { source, header_room: self.link.header_room(source), mtu: route.mtu() };
        let sent = self.udp.send(&mut self.pool, id, Some(remote), path, payload)?;
        self.send_ip_later(now, sent.frame, sent.source.ip(), sent.destination.ip(), protocol::UDP, fields);
        Ok(())
    }

    /// Receives a datagram: how many bytes were copied, and its sender.
    ///
    /// # Errors
    /// See [`RecvError`].
    pub fn udp_recv_from(&mut self, id: UdpId, buf: &mut [u8]) -> Result<(usize, SocketAddr), RecvError> {
        self.udp_recv(id, buf).map(|received| (received.len, received.from))
    }

    /// Receives a datagram, and what its IP header said.
    ///
    /// # Errors
    /// See [`RecvError`].
    pub fn udp_recv(&mut self, id: UdpId, buf: &mut [u8]) -> Result<Received, RecvError> {
        self.udp.recv(&mut self.pool, id, buf)
    }

    /// Looks at the next datagram: see [`udp_recv_from`](Self::udp_recv_from).
    ///
    /// # Errors
    /// See [`RecvError`].
    pub fn udp_peek_from(&self, id: UdpId, buf: &mut [u8]) -> Result<(usize, SocketAddr), RecvError> {
        self.udp.peek(&self.pool, id, buf).map(|received| (received.len, received.from))
    }

    /// Sends to `remote` from now on where no other destination is named, and receives from there only. A socket on all
    /// addresses is on the one from then on that reaches `remote`, if any does.
    pub fn udp_connect(&mut self, id: UdpId, remote: SocketAddr) {
        let source = self.addresses.routes().source_for(remote.ip()).map(Route::address);
        self.udp.connect(&mut self.pool, id, remote, source);
    }

    /// Closes a socket.
    pub fn udp_close(&mut self, id: UdpId) {
        self.tell_of_socket(id, Membership::close);
        self.udp.close(&mut self.pool, id);
    }

    /// A whole datagram, `frame` being all of it, from the IP header on.
    pub(super) fn handle_udp_frame(
        &mut self,
        now: Instant,
        sender: Sender,
        datagram: &Datagram,
        mut frame: RxFrame,
    ) {
        let (source, destination) =
            (IpAddr::V4(datagram.header.source), IpAddr::V4(datagram.header.destination));
        let ip_header_len = datagram.payload.start;
        let parsed = if frame.is_long() {
            let pieces = behind(ip_header_len, self.pool.rx_pieces(&frame));
            Header::parse_pieces(source, destination, datagram.payload.len(), pieces)
        } else {
            let ip_payload = self.pool.rx_bytes(&frame).get(datagram.payload.clone()).unwrap_or_default();
            Header::parse(source, destination, ip_payload)
        };
        let (header, payload) = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => return self.drop_received(frame, reason),
        };
        let local = SocketAddr::new(destination, header.destination_port);
        let remote = SocketAddr::new(source, header.source_port);
        let Some(id) = self.udp.lookup(local, remote) else {
            if let Some(shard) = self.socket_elsewhere(local, remote) {
                return self.pass_on_datagram(shard, datagram, sender.mac, frame);
            }
            let quote = Quote::of_front(self.pool.rx_bytes(&frame), frame.len(), datagram.cast);
            // RFC 1122 §4.1.3.1.
            self.send_error(now, Problem::PortUnreachable, quote.as_ref(), sender);
            return self.drop_received(frame, DropReason::UdpNoSocket);
        };
        frame.truncate(ip_header_len + payload.end);
        frame.trim_front(ip_header_len + payload.start);
        self.deliver_udp(id, remote, destination, Ecn::of(datagram.header.tos), Payload::Frame(frame));
    }

    /// A datagram that came in parts.
    pub(super) fn handle_udp_reassembled(&mut self, whole: Reassembled) {
        let (source, destination) = (IpAddr::V4(whole.header.source), IpAddr::V4(whole.header.destination));
        let (header, payload) = match Header::parse(source, destination, &whole.payload) {
            Ok(parsed) => parsed,
            Err(reason) => return self.drops.count(reason),
        };
        let local = SocketAddr::new(destination, header.destination_port);
        let remote = SocketAddr::new(source, header.source_port);
        match self.udp.lookup(local, remote) {
            Some(id) => {
                let data = whole.payload.get(payload).unwrap_or_default().to_vec();
                self.deliver_udp(id, remote, destination, Ecn::of(whole.header.tos), Payload::Heap(data));
            }
            None => match self.socket_elsewhere(local, remote) {
                Some(shard) => self.pass_on_reassembled(shard, &whole),
                None => self.drops.count(DropReason::UdpNoSocket),
            },
        }
    }

    fn deliver_udp(&mut self, id: UdpId, remote: SocketAddr, to: IpAddr, ecn: Ecn, payload: Payload) {
        match self.udp.deliver(&mut self.pool, id, remote, to, ecn, payload) {
            Ok(()) => self.events.push_back(Event::Udp { id }),
            Err(reason) => self.drops.count(reason),
        }
    }
}
