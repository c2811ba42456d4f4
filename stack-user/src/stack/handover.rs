//! Frames that came in on a queue whose shard does not have their flow: passed on, and taken in.
//!
//! What is passed on was parsed already, so only payload is copied, once. What was taken in stays: if the flow is gone by
//! then, it is a segment for no connection, as on the queue where it came in.

use std::{mem, net::SocketAddr, task::Waker};

use super::{
    Stack, UdpId,
    demux::Flow,
    egress::Sender,
    listeners::unspecified,
    siblings::{Membership, Message, Notice, Siblings},
};
use crate::{
    frame::{FramePool, RxFrame},
    net::{
        icmp::IcmpError,
        ipv4::{self, Datagram},
        reassembly::Reassembled,
    },
    rng::Rng,
    tcp::Segment,
    telemetry::DropReason,
    time::Instant,
    wire::{MacAddr, arp::Packet, ipv4::Header, protocol},
};

/// What a shard has passed on, and taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandOvers {
    /// Frames that came in here and were another shard's.
    pub passed_on: u64,
    /// Frames of ours that came in elsewhere.
    pub taken_in: u64,
}

impl HandOvers {
    /// Counts what another shard has counted, too.
    pub fn add(&mut self, other: Self) {
        self.passed_on += other.passed_on;
        self.taken_in += other.taken_in;
    }
}

/// Makes stacks the shards of one: they are on the same link with the same link-layer address, and each has a queue of it.
/// The first one claims addresses, defends them, and answers for them; the others use what it has.
///
/// To be called once, before anything else is done with them. One alone stays as it is.
pub fn unite<'a, P: FramePool + 'a>(stacks: impl IntoIterator<Item = &'a mut Stack<P>>, rng: &mut Rng) {
    let mut stacks: Vec<_> = stacks.into_iter().collect();
    let (Ok(count @ 2..), Some(first)) = (u16::try_from(stacks.len()), stacks.first()) else { return };
    let secret = first.secret.clone();
    for (stack, membership) in stacks.iter_mut().zip(Siblings::of(count, secret, rng)) {
        stack.secret = membership.secret().clone();
        stack.connections.join(&membership);
        stack.half_open.join(&membership);
        stack.time_waits.join(&membership);
        stack.siblings = Some(membership);
    }
}

impl<P: FramePool> Stack<P> {
    /// Whom to wake when another shard has passed something on: [`handle_messages`](Self::handle_messages) is due then.
    pub fn on_message(&self, waker: Waker) {
        if let Some(siblings) = &self.siblings {
            siblings.on_message(waker);
        }
    }

    /// Whether other shards have passed something on, or have something to say.
    pub fn has_messages(&self) -> bool {
        self.siblings.as_ref().is_some_and(|siblings| siblings.has_messages() || siblings.has_notices())
    }

    /// What this shard has passed on, and taken in.
    pub fn hand_overs(&self) -> HandOvers {
        self.hand_overs
    }

    /// Takes in what other shards have passed on.
    pub fn handle_messages(&mut self, now: Instant) {
        let Some(siblings) = self.siblings.as_ref().filter(|siblings| siblings.has_messages()) else {
            return;
        };
        let mut letters = mem::take(&mut self.letters);
        siblings.take(&mut letters);
        self.takes_in = true;
        for (message, payload) in letters.iter() {
            self.hand_overs.taken_in += u64::from(!matches!(message, Message::Lesson(_)));
            if let Err(reason) = self.handle_message(now, message, payload) {
                self.drops.count(reason);
            }
        }
        self.takes_in = false;
        letters.clear();
        self.letters = letters;
    }

    /// Takes in what the first shard has to say about addresses: before anything is done that depends on them.
    pub fn handle_notices(&mut self, now: Instant) {
        while let Some(notice) = self.siblings.as_ref().and_then(Membership::take_notice) {
            match notice {
                Notice::Claimed(route) => {
                    // The first shard has room for as many as we have.
                    let _known = self.adopt(route);
                }
                Notice::Leaving(address) => self.give_up(now, address),
                Notice::Released(address) => self.release(now, address),
                Notice::Lost(address) => self.abandon(now, address),
            }
        }
    }

    fn handle_message(&mut self, now: Instant, message: Message, payload: &[u8]) -> Result<(), DropReason> {
        match message {
            Message::Segment { sender, flow, segment } => {
                if !self.routes().is_ours(flow.local.ip()) {
                    return Err(DropReason::Ipv4NotForUs);
                }
                let frame = self.frame_of(payload)?;
                self.handle_segment(now, sender, flow, &segment, frame);
                Ok(())
            }
            Message::Error(error) => self.handle_icmp_error(now, &error),
            Message::Datagram { mac } => self.handle_datagram(now, mac, payload),
            Message::Reassembled(header) => {
                if !self.routes().is_ours(header.destination.into()) {
                    return Err(DropReason::Ipv4NotForUs);
                }
                self.handle_udp_reassembled(Reassembled { header, payload: payload.to_vec() });
                Ok(())
            }
            Message::Arp(packet) => {
                self.handle_arp_packet(now, &packet);
                Ok(())
            }
            Message::Lesson(packet) => {
                self.learn(now, &packet);
                Ok(())
            }
        }
    }

    /// A part of a datagram, or one for a UDP socket that only this shard has.
    fn handle_datagram(&mut self, now: Instant, mac: MacAddr, bytes: &[u8]) -> Result<(), DropReason> {
        let datagram = ipv4::receive(bytes, self.routes(), false)?;
        let frame = self.frame_of(bytes)?;
        if datagram.header.is_fragment() {
            // What the parts are put together to is a frame of its own, and may well be passed on.
            self.takes_in = false;
            self.assemble(now, &datagram, frame, mac);
            self.takes_in = true;
        } else {
            let sender = Sender { ip: datagram.header.source.into(), mac };
            self.handle_udp_frame(now, sender, &datagram, frame);
        }
        Ok(())
    }

    /// A frame of ours with what came in one of another shard's.
    fn frame_of(&mut self, bytes: &[u8]) -> Result<RxFrame, DropReason> {
        self.pool.receive_whole(bytes).ok_or(DropReason::NoFrame)
    }

    /// The other shard that a segment for no connection of ours is for: the one that has its flow; or, if nobody has, one
    /// that listens there while we do not.
    pub(super) fn owner_elsewhere(&self, flow: &Flow) -> Option<u16> {
        let siblings = self.siblings.as_ref().filter(|_| !self.takes_in)?;
        if self.half_open.find(flow).is_some() || self.time_waits.get(flow).is_some() {
            return None;
        }
        siblings.owner_elsewhere(flow).or_else(|| {
            let listens = self.listeners.find(flow.local).is_some();
            siblings.service_elsewhere(protocol::TCP, flow.local).filter(|_| !listens)
        })
    }

    /// The other shard that an error is for, whose flow we don't have.
    pub(super) fn quoted_elsewhere(&self, error: &IcmpError) -> Option<u16> {
        let siblings = self.siblings.as_ref().filter(|_| !self.takes_in)?;
        match error.protocol {
            protocol::TCP => {
                let flow = Flow { local: error.local, remote: error.remote };
                let ours = self.connections.is_in_use(&flow) || self.half_open.find(&flow).is_some();
                siblings.owner_elsewhere(&flow).filter(|_| !ours)
            }
            protocol::UDP => self.socket_elsewhere(error.local, error.remote),
            _ => None,
        }
    }

    /// The other shard that has a UDP socket which we don't have.
    pub(super) fn socket_elsewhere(&self, local: SocketAddr, remote: SocketAddr) -> Option<u16> {
        let siblings = self.siblings.as_ref().filter(|_| !self.takes_in)?;
        if self.udp.lookup(local, remote).is_some() {
            return None;
        }
        siblings.service_elsewhere(protocol::UDP, local)
    }

    /// Other shards may have to know where one has a socket. Its port is enough: another address is answered there.
    pub(super) fn tell_of_socket(&self, id: UdpId, tell: impl Fn(&Membership, u8, SocketAddr)) {
        if let Some(siblings) = &self.siblings
            && let Some(local) = self.udp.local(id)
        {
            tell(siblings, protocol::UDP, SocketAddr::new(unspecified(local.ip()), local.port()));
        }
    }

    /// The other shard that puts a datagram together.
    pub(super) fn assembler_elsewhere(&self, part: &Header) -> Option<u16> {
        let siblings = self.siblings.as_ref().filter(|_| !self.takes_in)?;
        siblings.assembler_elsewhere(&(part.source, part.destination, part.protocol, part.identification))
    }

    /// Makes sure that a flow is no other shard's, until one of our tables has it.
    ///
    /// # Errors
    /// [`DropReason::ShardRace`]: another shard has just taken it.
    pub(super) fn reserve(&self, flow: &Flow) -> Result<(), DropReason> {
        let is_ours = self.siblings.as_ref().is_none_or(|siblings| siblings.enter(flow));
        is_ours.then_some(()).ok_or(DropReason::ShardRace)
    }

    /// One of our tables has the flow.
    pub(super) fn unreserve(&self, flow: &Flow) {
        if let Some(siblings) = &self.siblings {
            siblings.leave(flow);
        }
    }

    /// Passes a segment on.
    pub(super) fn pass_on_segment(
        &mut self,
        shard: u16,
        sender: Sender,
        flow: Flow,
        segment: &Segment,
        frame: RxFrame,
    ) {
        self.pass_on(shard, Message::Segment { sender, flow, segment: *segment }, Some(&frame));
        self.pool.release_rx(frame);
    }

    /// Passes a datagram on, `frame` being all of it from the IP header on.
    pub(super) fn pass_on_datagram(
        &mut self,
        shard: u16,
        datagram: &Datagram,
        mac: MacAddr,
        mut frame: RxFrame,
    ) {
        frame.truncate(datagram.payload.end);
        self.pass_on(shard, Message::Datagram { mac }, Some(&frame));
        self.pool.release_rx(frame);
    }

    /// Passes on what needs no frame.
    pub(super) fn pass_on_message(&mut self, shard: u16, message: Message) {
        self.pass_on(shard, message, None);
    }

    /// Passes on a datagram that came in parts.
    pub(super) fn pass_on_reassembled(&mut self, shard: u16, whole: &Reassembled) {
        let message = Message::Reassembled(whole.header);
        let is_sent =
            self.siblings.as_ref().is_some_and(|siblings| siblings.send(shard, message, &whole.payload));
        self.count_passed_on(is_sent);
    }

    fn pass_on(&mut self, shard: u16, message: Message, frame: Option<&RxFrame>) {
        let payload = frame.map(|frame| self.pool.rx_gather(frame)).unwrap_or_default();
        let is_sent = self.siblings.as_ref().is_some_and(|siblings| siblings.send(shard, message, &payload));
        self.count_passed_on(is_sent);
    }

    fn count_passed_on(&mut self, is_sent: bool) {
        match is_sent {
            true => self.hand_overs.passed_on += 1,
            false => self.drops.count(DropReason::ShardInboxFull),
        }
    }

    /// An ARP packet that came in on our queue is the first shard's business. Whether it has been passed on.
    pub(super) fn pass_on_arp(&mut self, packet: &Packet) -> bool {
        let is_anothers = self.siblings.as_ref().is_some_and(|siblings| !siblings.is_first());
        if is_anothers {
            self.pass_on(0, Message::Arp(*packet), None);
        }
        is_anothers
    }

    /// Others may want to know, too, what an ARP packet says: what it taught us, and all answers, since what they have asked
    /// for we may not have.
    pub(super) fn pass_on_lesson(&self, packet: &Packet, was_of_interest: bool) {
        let Some(siblings) = &self.siblings else { return };
        if was_of_interest || packet.target_mac == self.link.mac {
            siblings.send_all(Message::Lesson(*packet));
        }
    }

    /// Has the other shards do what the first one does about an address.
    pub(super) fn notify_siblings(&self, notice: Notice) {
        if let Some(siblings) = self.siblings.as_ref().filter(|siblings| siblings.is_first()) {
            siblings.notify_all(notice);
        }
    }
}
