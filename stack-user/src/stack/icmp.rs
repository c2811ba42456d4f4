//! ICMP messages, and the errors that we answer with.

use std::net::IpAddr;

use super::{Event, Stack, demux::Flow, egress::Sender, siblings::Message};
use crate::{
    frame::{FramePool, RxFrame},
    net::{
        icmp::{self, ErrorKind, IcmpError, Input, Problem, Quote},
        ipv4::Datagram,
    },
    tcp::{SeqNumber, Unreachable},
    telemetry::DropReason,
    time::Instant,
    wire::{IpFields, protocol},
};

impl<P: FramePool> Stack<P> {
    /// An ICMP message, `frame` being all of it.
    pub(super) fn handle_icmp_frame(
        &mut self,
        now: Instant,
        sender: Sender,
        datagram: &Datagram,
        frame: RxFrame,
    ) {
        let received = icmp::receive(&self.pool.rx_gather(&frame));
        let result = match received {
            Ok(Input::EchoRequest) => self.answer_echo(now, sender, datagram, &frame),
            Ok(Input::Error(error)) => match self.quoted_elsewhere(&error) {
                Some(shard) => {
                    self.pass_on_message(shard, Message::Error(error));
                    Ok(())
                }
                None => self.handle_icmp_error(now, &error),
            },
            // Nobody here pings (yet).
            Ok(Input::EchoReply { .. }) => Err(DropReason::IcmpUnmatched),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.drops.count(reason);
        }
        self.pool.release_rx(frame);
    }

    fn answer_echo(
        &mut self,
        now: Instant,
        sender: Sender,
        datagram: &Datagram,
        request: &RxFrame,
    ) -> Result<(), DropReason> {
        let destination = IpAddr::V4(datagram.header.destination);
        let room = self.link.header_room(destination);
        let reply = self.icmp.echo_reply(now, &mut self.pool, request, datagram.cast, room)?;
        self.send_answer(now, reply, destination, sender, protocol::ICMPV4, IpFields::default());
        Ok(())
    }

    /// Tells the flow that an error quotes (RFC 9293 §3.9.2.2, MUST-54). Whether it is believed is the flow's business
    /// (RFC 5927).
    pub(super) fn handle_icmp_error(&mut self, now: Instant, error: &IcmpError) -> Result<(), DropReason> {
        if !self.routes().is_ours(error.local.ip()) {
            return Err(DropReason::IcmpUnmatched);
        }
        match error.protocol {
            protocol::TCP => {
                let flow = Flow { local: error.local, remote: error.remote };
                let (what, quoted) = (unreachable(error.kind)?, SeqNumber(error.sequence));
                let Some(id) = self.connections.find(&flow) else {
                    return self.tell_half_open(&flow, what, quoted);
                };
                self.tell_unreachable(now, id, what, Some(quoted));
                Ok(())
            }
            protocol::UDP => {
                let id = self.udp.handle_error(error)?;
                self.events.push_back(Event::Udp { id });
                Ok(())
            }
            _ => Err(DropReason::IcmpUnmatched),
        }
    }

    /// Answers a datagram with an error, if it may be, from the address that it was sent to.
    pub(super) fn send_error(&mut self, now: Instant, problem: Problem, quote: Option<&Quote>, to: Sender) {
        let Some(quote) = quote else { return };
        let source = quote.destination();
        let room = self.link.header_room(source);
        match self.icmp.error(now, &mut self.pool, problem, quote, room) {
            Ok(frame) => {
                self.send_answer(now, frame, source, to, protocol::ICMPV4, IpFields::default());
            }
            Err(reason) => self.drops.count(reason),
        }
    }
}

/// What an ICMP error means to TCP (RFC 1122 §4.2.3.9, RFC 9293 §3.9.2.2).
fn unreachable(kind: ErrorKind) -> Result<Unreachable, DropReason> {
    Ok(match kind {
        ErrorKind::NetUnreachable => Unreachable::Network,
        ErrorKind::HostUnreachable => Unreachable::Host,
        ErrorKind::ProtocolUnreachable => Unreachable::Protocol,
        ErrorKind::PortUnreachable => Unreachable::Port,
        ErrorKind::Prohibited => Unreachable::Admin,
        ErrorKind::FragmentationNeeded { mtu } => Unreachable::FragmentationNeeded { mtu: mtu.unwrap_or(0) },
        ErrorKind::TimeExceeded => Unreachable::TimeExceeded,
        ErrorKind::ParameterProblem => return Err(DropReason::IcmpIgnored),
    })
}
