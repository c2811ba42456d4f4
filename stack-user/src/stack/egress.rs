//! A byte's way out: connections and sockets, then the next hop's headers, then the TX ring.

use std::net::{IpAddr, SocketAddr};

use super::{
    Event, Stack, TcpId,
    demux::Flow,
    followers::{Headers, Leader},
};
use crate::{
    frame::{CompletedFrame, FramePool, TxFrame},
    net::{arp, neighbour, route::NextHop},
    tcp::{Transmit, Unreachable},
    telemetry::{DropReason, STORY},
    time::Instant,
    wire::{IpFields, MacAddr, arp::Packet, ethernet::ethertype, ipv4, protocol},
};

/// Answers and datagrams that wait for the TX ring. Fewer, and a program's burst of datagrams loses some that the
/// ring would take a moment later; more, and what others make us say while the ring stands still takes the chunks
/// that connections need.
const MAX_OUTGOING: usize = 512;

/// Who gets a frame back when the NIC is done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) id: TcpId,
    /// What the connection knows the frame by, if it wants it back to retransmit from.
    pub(super) retained: Option<u64>,
}

/// Who sent a datagram, and the station that handed it to us: the sender itself, or a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) ip: IpAddr,
    pub(super) mac: MacAddr,
}

impl<P: FramePool> Stack<P> {
    /// The next frames to send, all headers written, as far as there is room: each is handed to `send`. The caller sends them in
    /// this order, and gives them back by [`handle_completions`](Self::handle_completions). Returns how many there were: less than
    /// there was room for if there is no more to send.
    ///
    /// The order: what answers others (ARP, ICMP, RST), frames whose neighbour was just found, and then connections
    /// in turn.
    pub fn transmit(&mut self, now: Instant, room: usize, mut send: impl FnMut(TxFrame)) -> usize {
        let mut sent = 0;
        while sent < room
            && let Some((frame, leader)) = self.next_frame(now)
        {
            sent += 1;
            let led = leader.filter(|_| sent < room).map(|leader| (leader, Headers::of(&self.pool, &frame)));
            send(frame);
            if let Some((leader, headers)) = led {
                sent += self.transmit_followers(now, leader, &headers, room - sent, &mut send);
            }
        }
        sent
    }

    /// One frame to send: as [`transmit`](Self::transmit) with room for one.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<TxFrame> {
        let mut next = None;
        self.transmit(now, 1, |frame| next = Some(frame));
        next
    }

    /// The next frame, and what may have followers.
    fn next_frame(&mut self, now: Instant) -> Option<(TxFrame, Option<Leader>)> {
        loop {
            // Most often there is none of that.
            let has_errands =
                !self.outgoing.is_empty() || self.neighbours.has_errands() || self.addresses.has_errands();
            if has_errands && let Some(frame) = self.next_errand(now) {
                return Some((frame, None));
            }
            let Some(id) = self.connections.next_ready() else {
                self.finish_releases();
                return None;
            };
            if self.addresses.begin_turn() {
                self.finish_releases();
            }
            if let Some(sent) = self.poll_connection(now, id) {
                return Some(sent);
            }
        }
    }

    /// A frame that is no connection's.
    #[inline(never)]
    fn next_errand(&mut self, now: Instant) -> Option<TxFrame> {
        loop {
            self.handle_unreachable_neighbours(now);
            if let Some(frame) = self.outgoing.pop_front() {
                return Some(frame);
            }
            let Some((mut frame, mac)) = self.neighbours.poll_ready() else { return self.poll_arp() };
            if self.is_from_us(&frame) {
                self.link.write_ethernet(&mut self.pool, &mut frame, mac, ethertype::IPV4);
                return Some(frame);
            }
            self.drop_unsent(now, frame, DropReason::NoRoute);
        }
    }

    /// The NIC is done with a frame: it goes back to its connection, to retransmit from, or to the pool.
    pub fn handle_completion(&mut self, now: Instant, frame: CompletedFrame) {
        self.handle_completions(now, [frame]);
    }

    /// The NIC is done with several. As they were sent in trains, most come back with others of the same connection, which is
    /// looked up once for all of them.
    pub fn handle_completions(&mut self, now: Instant, frames: impl IntoIterator<Item = CompletedFrame>) {
        let Self { pool, connections, owners, events, .. } = self;
        let who_wants_it = |frame: CompletedFrame| {
            let owner = owners.get_mut(frame.chunk() as usize).and_then(Option::take);
            (frame, owner.and_then(|Owner { id, retained }| Some((id, retained?))))
        };
        let mut frames = frames.into_iter().map(who_wants_it);
        let mut next = frames.next();
        while let Some((frame, owner)) = next {
            // One that rests wants nothing back: all that it sent is acknowledged, and it goes on resting.
            next = if let Some((id, key)) = owner
                && let Some(connection) = connections.awake_mut(id)
            {
                connection.handle_completion(now, pool, frame, key);
                let other = loop {
                    match frames.next() {
                        Some((frame, Some((same, key)))) if same == id => {
                            connection.handle_completion(now, pool, frame, key);
                        }
                        other => break other,
                    }
                };
                if connection.may_go_on() {
                    connections.worked_on(id, pool, events);
                }
                other
            } else {
                pool.release_completed(frame);
                frames.next()
            };
        }
    }

    /// A segment of the connection that is first in line. `None` when it has none, or its neighbour is not known yet.
    fn poll_connection(&mut self, now: Instant, id: TcpId) -> Option<(TxFrame, Option<Leader>)> {
        let connection = self.connections.get_mut(id)?;
        let (local, remote) = (connection.local().ip(), connection.remote().ip());
        let fields = connection.ip_fields();
        let Some(transmit) = connection.poll_transmit(now, &mut self.pool) else {
            let retired = connection.retire(now).map(|entry| (entry, connection.time_wait()));
            if let Some((entry, lasts)) = retired {
                let flow = Flow { local: connection.local(), remote: connection.remote() };
                self.time_waits.insert(now, &flow, entry, lasts);
            }
            self.connections.sent_all(&mut self.pool, &mut self.events);
            return None;
        };
        let may_lead = connection.may_lead(&transmit);
        let Transmit { frame, retained, ecn } = transmit;
        self.connections.rotate();
        if let Some(owner) = self.owners.get_mut(frame.chunk() as usize) {
            *owner = Some(Owner { id, retained });
        }
        let frame = self.send_ip(now, frame, local, remote, protocol::TCP, fields.with_ecn(ecn))?;
        let leader = retained.filter(|_| may_lead).map(|start| Leader { id, start });
        Some((frame, leader))
    }

    /// Writes the headers of a datagram whose payload is in place. `None` when the frame waits for its neighbour, or
    /// can't be sent.
    pub(super) fn send_ip(
        &mut self,
        now: Instant,
        mut frame: TxFrame,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        fields: IpFields,
    ) -> Option<TxFrame> {
        let Some(next_hop) = self.routes().next_hop(source, destination) else {
            self.drop_unsent(now, frame, DropReason::NoRoute);
            return None;
        };
        if !self.link.write_ip(&mut self.pool, &mut frame, source, destination, protocol, fields) {
            self.drop_unsent(now, frame, DropReason::NoRoute);
            return None;
        }
        let mac = match next_hop {
            NextHop::Group(mac) => mac,
            NextHop::Neighbour(ip) => match self.neighbours.lookup(now, source, ip) {
                neighbour::Lookup::Found(mac) => mac,
                neighbour::Lookup::Pending => {
                    if let Err(older) = self.neighbours.park(ip, frame) {
                        self.drop_unsent(now, older, DropReason::NeighbourQueueFull);
                    }
                    return None;
                }
                neighbour::Lookup::Failed => {
                    self.fail_unsent(now, frame);
                    return None;
                }
            },
        };
        self.link.write_ethernet(&mut self.pool, &mut frame, mac, ethertype::IPV4);
        Some(frame)
    }

    /// Sends a datagram that no connection waits for, as soon as its neighbour is known.
    pub(super) fn send_ip_later(
        &mut self,
        now: Instant,
        frame: TxFrame,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        fields: IpFields,
    ) {
        if let Some(frame) = self.send_ip(now, frame, source, destination, protocol, fields) {
            self.send_later(now, frame);
        }
    }

    /// Sends the answer to a datagram, to the station that its frame came from.
    ///
    /// It is not looked up: whoever forges addresses could otherwise have us ask the link for neighbours that nobody
    /// has, until there is no room to ask for those that we need.
    pub(super) fn send_answer(
        &mut self,
        now: Instant,
        mut frame: TxFrame,
        source: IpAddr,
        to: Sender,
        protocol: u8,
        fields: IpFields,
    ) {
        if !self.link.write_ip(&mut self.pool, &mut frame, source, to.ip, protocol, fields) {
            return self.drop_unsent(now, frame, DropReason::NoRoute);
        }
        self.link.write_ethernet(&mut self.pool, &mut frame, to.mac, ethertype::IPV4);
        self.send_later(now, frame);
    }

    /// Puts a whole frame in line for the TX ring, in front of what connections have to say.
    pub(super) fn send_later(&mut self, now: Instant, frame: TxFrame) {
        if self.outgoing.len() >= MAX_OUTGOING {
            return self.drop_unsent(now, frame, DropReason::TxQueueFull);
        }
        self.outgoing.push_back(frame);
    }

    /// An ARP question, or what address conflict detection has to say.
    fn poll_arp(&mut self) -> Option<TxFrame> {
        if let Some(packet) = self.addresses.poll_transmit() {
            return self.arp_frame(&packet, MacAddr::BROADCAST);
        }
        while let Some(request) = self.neighbours.poll_transmit() {
            if let Some((packet, to)) = arp::request(&request, self.link.mac, self.routes()) {
                return self.arp_frame(&packet, to);
            }
        }
        None
    }

    /// A frame with an ARP packet, or a drop when no chunk is left: whoever asks will ask again.
    pub(super) fn arp_frame(&mut self, packet: &Packet, to: MacAddr) -> Option<TxFrame> {
        let frame = self.link.arp_frame(&mut self.pool, packet, to);
        if frame.is_none() {
            self.drops.count(DropReason::NoFrame);
        }
        frame
    }

    /// Neighbours that did not answer: the connections whose frames waited are told.
    fn handle_unreachable_neighbours(&mut self, now: Instant) {
        while let Some(unreachable) = self.neighbours.poll_unreachable() {
            tracing::info!(target: STORY, "{} does not answer ARP", unreachable.neighbour);
            for frame in unreachable.frames {
                self.fail_unsent(now, frame);
            }
        }
    }

    /// A frame that can't be sent because its neighbour does not answer.
    fn fail_unsent(&mut self, now: Instant, frame: TxFrame) {
        let owner = self.owners.get(frame.chunk() as usize).copied().flatten();
        let datagram = self.udp_flow(&frame);
        self.drop_unsent(now, frame, DropReason::NeighbourUnreachable);
        if let Some(Owner { id, .. }) = owner {
            self.tell_unreachable(now, id, Unreachable::NoNeighbour, None);
        } else if let Some((local, remote)) = datagram
            && let Some(id) = self.udp.handle_no_neighbour(local, remote)
        {
            self.events.push_back(Event::Udp { id });
        }
    }

    /// Whether a frame that has waited for its neighbour comes from an address that still is ours (RFC 5227 §2.4 (b)).
    fn is_from_us(&self, frame: &TxFrame) -> bool {
        self.ip_header(frame).is_some_and(|(header, _)| self.routes().is_ours(header.source.into()))
    }

    /// From where to where a frame's datagram goes, if it is UDP's.
    fn udp_flow(&self, frame: &TxFrame) -> Option<(SocketAddr, SocketAddr)> {
        let (header, payload) = self.ip_header(frame)?;
        if header.protocol != protocol::UDP {
            return None;
        }
        let [s0, s1, d0, d1] = *payload.first_chunk()?;
        let local = SocketAddr::new(header.source.into(), u16::from_be_bytes([s0, s1]));
        Some((local, SocketAddr::new(header.destination.into(), u16::from_be_bytes([d0, d1]))))
    }

    /// The IP header of a frame to send, and as much of what is behind it as lies in the first chunk.
    fn ip_header(&self, frame: &TxFrame) -> Option<(ipv4::Header, &[u8])> {
        let before = self.link.ethernet_len();
        let datagram = self.pool.tx_bytes(frame).get(before..)?;
        let (header, payload) = ipv4::Header::parse_front(datagram, frame.len() - before).ok()?;
        Some((header, datagram.get(payload.start..payload.end.min(datagram.len()))?))
    }

    /// Counts a frame that is not going to be sent, and gives it back as if it had been.
    fn drop_unsent(&mut self, now: Instant, frame: TxFrame, reason: DropReason) {
        self.drops.count(reason);
        self.handle_completion(now, frame.into_completed());
    }

    /// Something can be told to whoever waits for the stack as a whole.
    pub(super) fn changed(&mut self) {
        self.events.push_back(Event::Changed);
    }
}
