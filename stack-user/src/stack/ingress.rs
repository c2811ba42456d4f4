//! A frame's way in: Ethernet, then ARP or IP, then ICMP, UDP or TCP.

use std::net::IpAddr;

use super::{Stack, egress::Sender};
use crate::{
    frame::{FramePool, RxFrame},
    net::{
        arp,
        icmp::{Problem, Quote},
        ipv4::{self, Cast, Datagram},
        reassembly::Reassembled,
        route::{NextHop, Route},
    },
    telemetry::DropReason,
    time::Instant,
    wire::{
        Ecn, MacAddr, arp as wire_arp,
        ethernet::{self, ethertype},
        ipv4::Header,
        protocol,
    },
};

impl<P: FramePool> Stack<P> {
    /// Takes in a received frame. It is kept as long as its data waits to be read, or given back to the pool.
    pub fn handle_frame(&mut self, now: Instant, mut frame: RxFrame) {
        let (ethernet, payload) = match ethernet::Header::parse(self.pool.rx_bytes(&frame)) {
            Ok(parsed) => parsed,
            Err(reason) => return self.drop_received(frame, reason),
        };
        if let Err(reason) = self.check_ethernet(&ethernet) {
            return self.drop_received(frame, reason);
        }
        frame.trim_front(payload);
        match ethernet.ethertype {
            ethertype::ARP => self.handle_arp(now, frame),
            ethertype::IPV4 => self.handle_ipv4(now, frame, &ethernet),
            _ => self.drop_received(frame, DropReason::EthernetUnknownType),
        }
    }

    fn check_ethernet(&self, header: &ethernet::Header) -> Result<(), DropReason> {
        if header.vlan != self.link.vlan {
            return Err(DropReason::EthernetWrongVlan);
        }
        // IEEE 802.3 §3.2.3: a sender is one station. Its answer would go to all of them.
        if !header.source.is_unicast() {
            return Err(DropReason::EthernetBadSource);
        }
        // A group address is checked again by what is inside: ARP asks everybody, IP broadcasts.
        if header.destination != self.link.mac && !header.destination.is_multicast() {
            return Err(DropReason::EthernetNotForUs);
        }
        Ok(())
    }

    fn handle_arp(&mut self, now: Instant, frame: RxFrame) {
        let packet = wire_arp::Packet::parse(self.pool.rx_bytes(&frame));
        self.pool.release_rx(frame);
        match packet {
            Ok(packet) if self.pass_on_arp(&packet) => {}
            Ok(packet) => self.handle_arp_packet(now, &packet),
            Err(reason) => self.drops.count(reason),
        }
    }

    pub(super) fn handle_arp_packet(&mut self, now: Instant, packet: &wire_arp::Packet) {
        let answer = self.receive_arp(now, packet);
        self.pass_on_lesson(packet, answer.is_ok());
        match answer {
            Ok(Some(reply)) => {
                let to = reply.target_mac;
                if let Some(frame) = self.arp_frame(&reply, to) {
                    self.send_later(now, frame);
                }
            }
            Ok(None) => {}
            Err(reason) => self.drops.count(reason),
        }
        self.handle_claim_events(now);
    }

    /// What an ARP packet says that the first shard has had, and answered.
    pub(super) fn learn(&mut self, now: Instant, packet: &wire_arp::Packet) {
        let _known_or_not = self.receive_arp(now, packet);
    }

    fn receive_arp(
        &mut self,
        now: Instant,
        packet: &wire_arp::Packet,
    ) -> Result<Option<wire_arp::Packet>, DropReason> {
        let (routes, claims) = self.addresses.for_packet();
        let received = arp::receive(now, packet, self.link.mac, routes, claims, &mut self.neighbours);
        self.addresses.worked_on();
        received
    }

    fn handle_ipv4(&mut self, now: Instant, mut frame: RxFrame, ethernet: &ethernet::Header) {
        let link_group = ethernet.destination.is_multicast();
        let (bytes, routes) = (self.pool.rx_bytes(&frame), self.addresses.routes());
        let datagram = match ipv4::receive_front(bytes, frame.len(), routes, link_group) {
            Ok(datagram) => datagram,
            Err(reason) => return self.drop_received(frame, reason),
        };
        if datagram.header.is_fragment() {
            return self.handle_fragment(now, &datagram, frame, ethernet.source);
        }
        let header_len = datagram.payload.start;
        frame.truncate(datagram.payload.end);
        let sender = Sender { ip: datagram.header.source.into(), mac: ethernet.source };
        match datagram.header.protocol {
            protocol::TCP if datagram.cast == Cast::Unicast => {
                frame.trim_front(header_len);
                let ce = Ecn::of(datagram.header.tos) == Ecn::Ce;
                self.handle_tcp(now, sender, datagram.header.destination.into(), frame, ce);
            }
            // RFC 9293 §3.10.7.2, MUST-57: TCP is for two hosts.
            protocol::TCP => self.drop_received(frame, DropReason::TcpBadAddress),
            // With its IP header: an error would quote it.
            protocol::UDP => self.handle_udp_frame(now, sender, &datagram, frame),
            protocol::ICMPV4 => {
                frame.trim_front(header_len);
                self.handle_icmp_frame(now, sender, &datagram, frame);
            }
            _ => {
                let quote = Quote::of_front(self.pool.rx_bytes(&frame), frame.len(), datagram.cast);
                self.send_error(now, Problem::ProtocolUnreachable, quote.as_ref(), sender);
                self.drop_received(frame, DropReason::Ipv4UnknownProtocol);
            }
        }
    }

    /// A part of a datagram: kept until the others have come.
    fn handle_fragment(&mut self, now: Instant, datagram: &Datagram, frame: RxFrame, mac: MacAddr) {
        // What is cut and sent to all is kept by none: if the other parts did not come, nobody may be told (RFC 1122 §3.2.2).
        if datagram.cast != Cast::Unicast {
            return self.drop_received(frame, DropReason::Ipv4NotForUs);
        }
        match self.assembler_elsewhere(&datagram.header) {
            Some(shard) => self.pass_on_datagram(shard, datagram, mac, frame),
            None => self.assemble(now, datagram, frame, mac),
        }
    }

    pub(super) fn assemble(&mut self, now: Instant, datagram: &Datagram, frame: RxFrame, mac: MacAddr) {
        let bytes = self.pool.rx_gather(&frame);
        let payload = bytes.get(datagram.payload.clone()).unwrap_or_default();
        let inserted = self.fragments.insert(now, &datagram.header, payload);
        self.pool.release_rx(frame);
        for _ in 0..self.fragments.take_evicted() {
            self.drops.count(DropReason::FragmentQueueFull);
        }
        match inserted {
            Ok(Some(whole)) if whole.header.protocol == protocol::UDP => {
                self.handle_udp_reassembled(whole);
            }
            Ok(Some(whole)) => {
                let sender = Sender { ip: whole.header.source.into(), mac };
                if let Err(reason) = self.handle_reassembled(now, sender, &whole) {
                    self.drops.count(reason);
                }
            }
            Ok(None) => {}
            Err(reason) => self.drops.count(reason),
        }
    }

    /// A segment or an ICMP message that came in parts, because a router on the way had to cut it: rare, and no longer
    /// than what comes in one part, so it goes on in a frame as if it had.
    fn handle_reassembled(
        &mut self,
        now: Instant,
        sender: Sender,
        whole: &Reassembled,
    ) -> Result<(), DropReason> {
        let known = matches!(whole.header.protocol, protocol::TCP | protocol::ICMPV4);
        if !known {
            return Err(DropReason::Ipv4UnknownProtocol);
        }
        let mtu = self.routes().get(whole.header.destination.into()).map_or(0, Route::mtu);
        if whole.payload.len() > self.pool.tx_capacity().max(mtu.into()) {
            return Err(DropReason::FragmentTooLong);
        }
        let frame = self.pool.receive_whole(&whole.payload).ok_or(DropReason::NoFrame)?;
        if whole.header.protocol == protocol::TCP {
            let ce = Ecn::of(whole.header.tos) == Ecn::Ce;
            self.handle_tcp(now, sender, whole.header.destination.into(), frame, ce);
        } else {
            let datagram =
                Datagram { header: whole.header, payload: 0..whole.payload.len(), cast: Cast::Unicast };
            self.handle_icmp_frame(now, sender, &datagram, frame);
        }
        Ok(())
    }

    pub(super) fn handle_fragment_timeout(&mut self, now: Instant) {
        if self.fragments.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.fragments.handle_timeout(now);
        while let Some(expired) = self.fragments.poll_expired() {
            self.drops.count(DropReason::FragmentTimeout);
            let Some(first) = expired.first else { continue };
            // Fragments that did not come to us alone are not kept.
            let quote = Quote::of(&first, Cast::Unicast);
            let Ok((header, _)) = Header::parse(&first) else { continue };
            // Nobody is asked for on the link for the sake of an error that is half a minute late.
            let (ours, ip) = (IpAddr::V4(header.destination), IpAddr::V4(header.source));
            let next_hop = self.routes().next_hop(ours, ip);
            if let Some(NextHop::Neighbour(neighbour)) = next_hop
                && let Some(mac) = self.neighbours.peek(neighbour)
            {
                self.send_error(now, Problem::ReassemblyTimeExceeded, quote.as_ref(), Sender { ip, mac });
            }
        }
    }

    /// Nothing that we send from `local` to `ip` is answered: the first hop may be the reason (RFC 9293 §3.8.3, MUST-20).
    pub(super) fn suspect_neighbour(&mut self, now: Instant, local: IpAddr, ip: IpAddr) {
        if let Some(NextHop::Neighbour(neighbour)) = self.routes().next_hop(local, ip) {
            self.neighbours.suspect(now, neighbour);
        }
    }

    /// Something that we sent from `local` to `ip` has arrived, so the way there works (RFC 4861 §7.3.1; RFC 1122 §2.3.2.1). What
    /// comes from there proves nothing: a peer that hears us no more goes on repeating itself.
    pub(super) fn confirm_neighbour(&mut self, now: Instant, local: IpAddr, ip: IpAddr) {
        if let Some(NextHop::Neighbour(neighbour)) = self.routes().next_hop(local, ip) {
            self.neighbours.confirm(now, neighbour);
        }
    }
}
