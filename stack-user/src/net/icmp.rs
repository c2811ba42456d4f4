//! ICMP: answers to pings, errors that we send (RFC 1122 §3.2.2) and errors that we get (RFC 5927).

use std::net::{IpAddr, SocketAddr};

use super::{
    ipv4::Cast,
    route,
    token_bucket::{TokenBucket, UncertainLimit},
};
use crate::{
    frame::{FramePool, RxFrame, TxFrame},
    rng::Rng,
    telemetry::DropReason,
    time::{Duration, Instant},
    wire::{
        icmpv4::{self, Message, Quoted, time_exceeded, unreachable},
        ipv4, protocol,
    },
};

/// A message that means something to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A ping, to be answered with [`Responder::echo_reply`].
    EchoRequest,
    /// The answer to a ping of ours.
    EchoReply {
        /// Whose ping it was.
        identifier: u16,
        /// Which of their pings it was.
        sequence: u16,
    },
    /// A datagram that we sent did not arrive.
    Error(IcmpError),
}

/// What somebody tells about a datagram of ours. It may be forged: whoever owns the flow compares what is quoted
/// with what was sent (RFC 5927 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What happened to it.
    pub kind: ErrorKind,
    /// What it carried: TCP or UDP, else the ports are not ports.
    pub protocol: u8,
    /// Where it came from: an address of ours.
    pub local: SocketAddr,
    /// Where it was going.
    pub remote: SocketAddr,
    /// TCP: its sequence number. UDP: length and checksum. ICMP: identifier and sequence number.
    pub sequence: u32,
}

/// What happened to a datagram, for IPv4 and IPv6 alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No route to its network.
    NetUnreachable,
    /// Its host does not answer, or a source route failed.
    HostUnreachable,
    /// Its host does not speak the protocol.
    ProtocolUnreachable,
    /// Nobody listens on its port.
    PortUnreachable,
    /// A firewall refused it.
    Prohibited,
    /// It is longer than a link on its way takes.
    FragmentationNeeded {
        /// What that link takes, if the router knows (RFC 1191 §4).
        mtu: Option<u16>,
    },
    /// It passed too many routers, or was not put together in time.
    TimeExceeded,
    /// Somebody does not understand its header.
    ParameterProblem,
}

/// Reads the ICMP message in an IPv4 payload.
///
/// # Errors
/// `IcmpMalformed`, or `IcmpIgnored` for a message that neither asks nor tells us anything.
pub fn receive(bytes: &[u8]) -> Result<Input, DropReason> {
    let kind = match Message::parse(bytes)? {
        Message::EchoRequest { .. } => return Ok(Input::EchoRequest),
        Message::EchoReply { identifier, sequence } => return Ok(Input::EchoReply { identifier, sequence }),
        Message::DestinationUnreachable { code, next_hop_mtu } => unreachable_kind(code, next_hop_mtu)?,
        Message::TimeExceeded { .. } => ErrorKind::TimeExceeded,
        Message::ParameterProblem { .. } => ErrorKind::ParameterProblem,
        // What we do not know (RFC 1122 §3.2.2), and source quench (RFC 9293 §3.9.2.2, MUST-55; RFC 6633).
        Message::Other { .. } => return Err(DropReason::IcmpIgnored),
    };
    let quoted = Quoted::parse(bytes.get(icmpv4::LEN..).unwrap_or_default())?;
    // We send no fragments, and what is not the first one has no ports.
    if quoted.fragment_offset != 0 {
        return Err(DropReason::IcmpUnmatched);
    }
    let [s0, s1, d0, d1, a, b, c, d] = quoted.transport;
    let (source_port, destination_port) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Ok(Input::Error(IcmpError {
        kind,
        protocol: quoted.protocol,
        local: SocketAddr::new(quoted.source.into(), source_port),
        remote: SocketAddr::new(quoted.destination.into(), destination_port),
        sequence: u32::from_be_bytes([a, b, c, d]),
    }))
}

/// RFC 1122 §3.2.2.1 and RFC 1812 §5.2.7.1: all codes from 0 to 15.
fn unreachable_kind(code: u8, next_hop_mtu: u16) -> Result<ErrorKind, DropReason> {
    Ok(match code {
        unreachable::NET | 6 | 11 => ErrorKind::NetUnreachable,
        unreachable::HOST | unreachable::SOURCE_ROUTE_FAILED | 7 | 8 | 12 => ErrorKind::HostUnreachable,
        unreachable::PROTOCOL => ErrorKind::ProtocolUnreachable,
        unreachable::PORT => ErrorKind::PortUnreachable,
        unreachable::FRAGMENTATION_NEEDED => {
            ErrorKind::FragmentationNeeded { mtu: Some(next_hop_mtu).filter(|&mtu| mtu != 0) }
        }
        unreachable::NET_PROHIBITED | unreachable::HOST_PROHIBITED | unreachable::PROHIBITED | 14 | 15 => {
            ErrorKind::Prohibited
        }
        _ => return Err(DropReason::IcmpIgnored),
    })
}

/// Why a datagram that came can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No socket has its port.
    PortUnreachable,
    /// We do not speak its protocol.
    ProtocolUnreachable,
    /// Some of its fragments did not come.
    ReassemblyTimeExceeded,
}

/// As much of a datagram as an error may quote: the error's own datagram has at most 576 bytes (RFC 1812
/// §4.3.2.3).
const MAX_QUOTE: usize = 576 - ipv4::LEN - icmpv4::LEN;

/// The beginning of a datagram that may be answered with an error. There is none of a datagram that may not.
#[derive(Clone, Debug)]
pub struct Quote {
    bytes: [u8; MAX_QUOTE],
    len: usize,
    destination: IpAddr,
}

impl Quote {
    /// Quotes `datagram`, header and all, which was sent to `cast`; `None` if it must not be answered with an error:
    /// one that is an error itself, or went to many, or is not the first fragment, or came from no single host
    /// (RFC 1122 §3.2.2).
    pub fn of(datagram: &[u8], cast: Cast) -> Option<Self> {
        Self::of_front(datagram, datagram.len(), cast)
    }

    /// The same of a datagram that begins with these bytes and has `len` in all.
    pub fn of_front(datagram: &[u8], len: usize, cast: Cast) -> Option<Self> {
        let (header, payload) = ipv4::Header::parse_front(datagram, len).ok()?;
        let end = payload.end.min(MAX_QUOTE);
        let one_host = cast == Cast::Unicast && route::is_unicast(IpAddr::V4(header.source));
        // An echo may be answered. Its checksum may be wrong, and its other fragments are not here: the type is
        // all there is to look at.
        let kind = datagram.get(payload.start).copied();
        let may_be_error = header.protocol == protocol::ICMPV4 && !matches!(kind, Some(0 | 8));
        if !one_host || may_be_error || header.fragment_offset != 0 {
            return None;
        }
        let mut bytes = [0; MAX_QUOTE];
        bytes.get_mut(..end)?.copy_from_slice(datagram.get(..end)?);
        Some(Self { bytes, len: end, destination: header.destination.into() })
    }

    /// Whom the datagram was sent to: an address of ours, as it went to nobody else.
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Pings that are answered: 1000 a second, 100 at once. Lower, and somebody who measures loss measures our
/// limit; higher, and a flood of pings takes the time of the connections.
const ECHO_INTERVAL: Duration = Duration::from_millis(1);
const ECHO_BURST: u32 = 100;

/// Errors that are sent: 500 a second, some 50 at once (RFC 1812 §4.3.2.8 asks for a limit; Linux has 1000 and
/// 50). Higher, and we serve to flood the owner of a forged address.
const ERROR_INTERVAL: Duration = Duration::from_millis(1);
const ERROR_BURST: u32 = 100;

/// Tokens that an error takes: a random number up to this. With a fixed price, whoever counts the errors
/// learns which ports did not cost one, that is, are open.
const MAX_ERROR_PRICE: u32 = 3;

/// Writes answers, not too many.
#[derive(Debug)]
pub struct Responder {
    echoes: TokenBucket,
    errors: UncertainLimit,
}

impl Responder {
    /// Nothing was answered yet.
    pub fn new(rng: Rng) -> Self {
        let echoes = TokenBucket::new(ECHO_INTERVAL, ECHO_BURST);
        let errors = TokenBucket::new(ERROR_INTERVAL, ERROR_BURST);
        Self { echoes, errors: UncertainLimit::new(errors, MAX_ERROR_PRICE, rng) }
    }

    /// The answer to an echo request, with the same data (RFC 1122 §3.2.2.6), after `header_room` bytes that are
    /// left for the headers. `request` is the view of the ICMP message; it stays the caller's.
    ///
    /// # Errors
    /// `IcmpIgnored` when it was sent to many (RFC 1122 §3.2.2.6 allows that; else a ping becomes a flood);
    /// `IcmpRateLimited`, `IcmpMalformed`, `NoFrame`.
    pub fn echo_reply<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        request: &RxFrame,
        cast: Cast,
        header_room: usize,
    ) -> Result<TxFrame, DropReason> {
        if cast != Cast::Unicast {
            return Err(DropReason::IcmpIgnored);
        }
        let message = pool.rx_gather(request);
        let Message::EchoRequest { identifier, sequence } = Message::parse(&message)? else {
            return Err(DropReason::IcmpIgnored);
        };
        if !self.echoes.take(now, 1) {
            return Err(DropReason::IcmpRateLimited);
        }
        // Two chunks of one pool can't be borrowed at once; pings are rare enough for a detour over the heap.
        let message = message.into_owned();
        write(pool, Message::EchoReply { identifier, sequence }, message, header_room)
    }

    /// The error that answers a datagram, after `header_room` bytes that are left for the headers.
    ///
    /// # Errors
    /// `IcmpRateLimited`, `NoFrame`.
    pub fn error<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        problem: Problem,
        quote: &Quote,
        header_room: usize,
    ) -> Result<TxFrame, DropReason> {
        if !self.errors.take(now) {
            return Err(DropReason::IcmpRateLimited);
        }
        let unreachable = |code| Message::DestinationUnreachable { code, next_hop_mtu: 0 };
        let message = match problem {
            Problem::PortUnreachable => unreachable(unreachable::PORT),
            Problem::ProtocolUnreachable => unreachable(unreachable::PROTOCOL),
            Problem::ReassemblyTimeExceeded => Message::TimeExceeded { code: time_exceeded::REASSEMBLY },
        };
        write(pool, message, [&[0; icmpv4::LEN], quote.bytes()].concat(), header_room)
    }
}

/// Puts a message in front of what it is about, which lies behind as many bytes of `bytes` as the message has, and both into a
/// frame.
fn write<P: FramePool>(
    pool: &mut P,
    message: Message,
    mut bytes: Vec<u8>,
    header_room: usize,
) -> Result<TxFrame, DropReason> {
    message.emit(&mut bytes);
    let end = header_room + bytes.len();
    let mut frame = pool.allocate_tx(end).ok_or(DropReason::NoFrame)?;
    pool.tx_write(&mut frame, header_room, &bytes);
    frame.set_len(end);
    Ok(frame)
}

#[cfg(test)]
mod tests;
