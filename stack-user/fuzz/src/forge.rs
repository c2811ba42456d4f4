//! Frames as an attacker on the link makes them: right in most parts, so that they get past the checks before.

use std::net::{IpAddr, Ipv4Addr};

use stack_user::{
    tcp::{
        Segment, SeqNumber,
        options::{Options, Timestamps},
    },
    time::Instant,
    wire::{
        MacAddr, arp,
        checksum::{Sum, checksum},
        ethernet::{self, ethertype},
        ipv4, protocol,
        tcp::Flags,
    },
};

use super::{
    frames::{NEIGHBOUR, OUR_MAC, OURS, SERVER_PORT, THEIR_MAC, UDP_PORT},
    input::{Input, pattern},
};

/// Where a checksum is in the headers that have one.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;

/// Frames of the largest burst: as many as the driver takes off a ring at once.
const MAX_BURST: usize = 64;

/// A frame; `said` is what the stack has sent, from the IP header on.
pub(crate) fn frame(input: &mut Input<'_>, said: &[Vec<u8>]) -> Vec<u8> {
    match input.below(16) {
        0 => arp(&arp_packet(input)),
        1 => {
            let ethertype = input.pick(&[ethertype::ARP, ethertype::IPV4, 0x8100, 0x86dd]);
            let len = input.below(80);
            ethernet(input, ethertype, input_bytes(len))
        }
        2 => ip(input, protocol_and_raw),
        3 | 4 => ip(input, udp),
        5 | 6 => ip(input, |input| (protocol::ICMPV4, icmp(input, said))),
        _ => ip(input, |input| (protocol::TCP, tcp(input, said))),
    }
}

fn input_bytes(len: usize) -> impl FnOnce(&mut Input<'_>) -> Vec<u8> {
    move |input| input.bytes(len).to_vec()
}

fn ethernet(input: &mut Input<'_>, ethertype: u16, body: impl FnOnce(&mut Input<'_>) -> Vec<u8>) -> Vec<u8> {
    let choice = input.byte();
    let destination = match choice & 0x0f {
        0 => MacAddr::BROADCAST,
        1 => MacAddr([1, 0, 0x5e, 0, 0, 1]),
        2 => MacAddr([2, 0, 0, 0, 0, 9]),
        _ => OUR_MAC,
    };
    let source = match choice >> 4 {
        0 => MacAddr::BROADCAST,
        1 => OUR_MAC,
        2 => MacAddr([2, 0, 0, 0, 0, 7]),
        _ => THEIR_MAC,
    };
    let mut frame = vec![0; ethernet::LEN];
    ethernet::Header { destination, source, vlan: None, ethertype }.emit(&mut frame);
    frame.extend(body(input));
    frame
}

pub(crate) fn arp(packet: &arp::Packet) -> Vec<u8> {
    let mut frame = vec![0; ethernet::LEN + arp::LEN];
    let header = ethernet::Header {
        destination: OUR_MAC,
        source: packet.sender_mac,
        vlan: None,
        ethertype: ethertype::ARP,
    };
    header.emit(&mut frame);
    packet.emit(&mut frame[ethernet::LEN..]);
    frame
}

fn arp_packet(input: &mut Input<'_>) -> arp::Packet {
    let operation = input.pick(&[arp::Operation::Request, arp::Operation::Reply]);
    arp::Packet {
        operation,
        sender_mac: input.pick(&[
            THEIR_MAC,
            THEIR_MAC,
            MacAddr([2, 0, 0, 0, 0, 9]),
            MacAddr::BROADCAST,
            OUR_MAC,
        ]),
        sender_ip: address(input),
        target_mac: input.pick(&[OUR_MAC, MacAddr::ZERO, MacAddr::BROADCAST]),
        target_ip: address(input),
    }
}

fn address(input: &mut Input<'_>) -> Ipv4Addr {
    match input.below(32) {
        0 => OURS,
        1 => Ipv4Addr::BROADCAST,
        2 => Ipv4Addr::new(10, 0, 0, 255),
        3 => Ipv4Addr::new(224, 0, 0, 1),
        4 => Ipv4Addr::UNSPECIFIED,
        5 => Ipv4Addr::LOCALHOST,
        6 => Ipv4Addr::from(input.u32()),
        7..=9 => Ipv4Addr::new(10, 0, 0, input.byte()),
        10..=12 => Ipv4Addr::new(192, 0, 2, input.byte()),
        _ => NEIGHBOUR,
    }
}

/// A datagram with a payload that `body` makes, whole or a fragment of it.
fn ip(input: &mut Input<'_>, body: impl FnOnce(&mut Input<'_>) -> (u8, Vec<u8>)) -> Vec<u8> {
    let choice = input.byte();
    let source = if choice & 7 == 0 { address(input) } else { NEIGHBOUR };
    let destination = if choice & 0x38 == 0 { address(input) } else { OURS };
    let (protocol, mut payload) = body(input);
    if !input.one_in(8) {
        fix_checksum(source, destination, protocol, &mut payload);
    }
    let mut fields = (0, 0, 0);
    if choice & 0xc0 == 0xc0 {
        // A part of it, of one of a few datagrams, so that parts meet.
        let at = input.pick(&[0, 8, 16, 64, 1480, 65_528]).min(payload.len());
        let len = input.pick(&[8, 16, 64, 1480]).min(payload.len() - at);
        let more = u16::from(!input.one_in(3)) << 13;
        fields = (u16::from(input.byte() & 3), more | (at / 8) as u16, at);
        payload = payload[at..at + len].to_vec();
    }
    let options = if input.one_in(16) { input.bytes(40) } else { &[] };
    let options = &options[..options.len() / 4 * 4];
    let mut datagram = vec![0; ipv4::LEN];
    ipv4::Header::new(source, destination, protocol, (options.len() + payload.len()) as u16)
        .emit(&mut datagram);
    datagram[0] += (options.len() / 4) as u8;
    datagram[4..6].copy_from_slice(&fields.0.to_be_bytes());
    datagram[6..8].copy_from_slice(&fields.1.to_be_bytes());
    datagram.extend_from_slice(options);
    if input.one_in(32) {
        // Anything in the header may be wrong, as long as the checksum is right.
        let at = input.below(ipv4::LEN);
        datagram[at] ^= input.byte();
    }
    datagram[10..12].fill(0);
    let sum = checksum(&datagram);
    datagram[10..12].copy_from_slice(&sum.to_be_bytes());
    datagram.extend(payload);
    ethernet(input, ethertype::IPV4, |_| datagram)
}

fn fix_checksum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &mut [u8]) {
    let (at, start) = match protocol {
        protocol::TCP | protocol::UDP => {
            let sum = Sum::pseudo_header(source.into(), destination.into(), protocol, payload.len());
            (if protocol == protocol::TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }, sum)
        }
        protocol::ICMPV4 => (ICMP_CHECKSUM, Sum::new()),
        _ => return,
    };
    if payload.len() >= at + 2 {
        payload[at..at + 2].fill(0);
        let sum = start.bytes(payload).finish();
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn protocol_and_raw(input: &mut Input<'_>) -> (u8, Vec<u8>) {
    let protocol = input.pick(&[protocol::TCP, protocol::UDP, protocol::ICMPV4, 2, 255]);
    let len = input.below(100);
    (protocol, input.bytes(len).to_vec())
}

fn udp(input: &mut Input<'_>) -> (u8, Vec<u8>) {
    let port = input.pick(&[UDP_PORT, UDP_PORT, 54, 0]);
    let len = input.pick(&[0, 1, 100, 1472, 3000]);
    let mut datagram = [4000_u16.to_be_bytes(), port.to_be_bytes(), [0; 2], [0; 2]].concat();
    datagram.resize(8 + len, 0xaa);
    let told = if input.one_in(16) { input.u16() } else { 8 + len as u16 };
    datagram[4..6].copy_from_slice(&told.to_be_bytes());
    (protocol::UDP, datagram)
}

/// Pings, and errors about what was said.
fn icmp(input: &mut Input<'_>, said: &[Vec<u8>]) -> Vec<u8> {
    let kind = input.pick(&[3, 3, 3, 8, 0, 11, 12, 4, 5, 13]);
    let mut message = vec![kind, input.pick(&[0, 1, 2, 3, 4, 13, 200]), 0, 0];
    message.extend(input.pick(&[0, 68, 576, 1400, 1500, 0xffff_ffff_u32]).to_be_bytes());
    match said.get(input.below(16)) {
        Some(quoted) if kind != 8 => {
            let len = input.pick(&[28, 40, 20, 8, 200]).min(quoted.len());
            message.extend(&quoted[..len]);
            if input.one_in(8) {
                let at = input.below(message.len());
                message[at] ^= input.byte();
            }
        }
        _ => {
            let len = input.below(64);
            message.extend(input.bytes(len));
        }
    }
    message
}

/// A segment of a flow that the stack knows, of a new one to a listener, or of none.
fn tcp(input: &mut Input<'_>, said: &[Vec<u8>]) -> Vec<u8> {
    let known = said.iter().rev().filter_map(|said| parse(said)).nth(input.below(4));
    let len = input.pick(&[0, 0, 1, 100, 1000, 1460]);
    let mut segment = Segment {
        source_port: 1000 + u16::from(input.byte() & 7),
        destination_port: SERVER_PORT,
        seq: SeqNumber(1000),
        ack: SeqNumber(0),
        flags: input.pick(&[Flags::ACK, Flags::ACK, Flags::ACK, Flags::SYN]),
        window: input.pick(&[65_535, 0, 1000]),
        urgent: 0,
        options: Options::default(),
        ce: false,
    };
    if let Some((_, theirs, their_len)) = known.filter(|_| !input.one_in(4)) {
        (segment.source_port, segment.destination_port) = (theirs.destination_port, theirs.source_port);
        segment.seq = theirs.ack;
        segment.ack = theirs.seq + theirs.sequence_len(their_len);
        if let Some(timestamps) = theirs.options.timestamps {
            let value = timestamps.echo.wrapping_add(input.byte().into());
            segment.options.timestamps = Some(Timestamps { value, echo: timestamps.value });
        }
    }
    match input.below(16) {
        0 => segment.seq = SeqNumber(input.u32()),
        1 => segment.ack = SeqNumber(input.u32()),
        2 => segment.seq += input.below(5000),
        3 => segment.ack = segment.ack - input.below(5000),
        4 => segment.flags = Flags(input.byte()),
        5 => segment.flags = Flags::ACK.with(Flags::FIN),
        6 => {
            segment.flags =
                input.pick(&[Flags::RST, Flags::RST.with(Flags::ACK), Flags::SYN.with(Flags::ACK)])
        }
        7 => segment.options = Options::parse(input.bytes(20)),
        8 => segment.destination_port = input.pick(&[SERVER_PORT, 8080, 1, 0]),
        9 => segment.options.sack.push(segment.ack + 100, segment.ack + input.below(3000)),
        10 => segment.seq = segment.seq - 1,
        _ => {}
    }
    if segment.syn() {
        segment.options.mss = input.pick(&[Some(1460), None, Some(0), Some(48)]);
        segment.options.window_scale = input.pick(&[Some(7), None, Some(14)]);
        segment.options.sack_permitted = input.one_in(2);
        let timestamps = Timestamps { value: input.byte().into(), echo: 0 };
        segment.options.timestamps = input.one_in(2).then_some(timestamps);
    }
    emit(&segment, len)
}

fn emit(segment: &Segment, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; segment.header_len().min(60)];
    bytes.resize(bytes.len() + len, 0x55);
    segment.emit(NEIGHBOUR.into(), OURS.into(), len, &mut bytes);
    bytes
}

/// A segment that the stack sent, to whom, and the length of its payload.
fn parse(said: &[u8]) -> Option<(Ipv4Addr, Segment, usize)> {
    let (ip, payload) = ipv4::Header::parse(said).ok()?;
    let payload = said.get(payload).filter(|_| ip.protocol == protocol::TCP)?;
    let (source, destination) = (IpAddr::V4(ip.source), IpAddr::V4(ip.destination));
    let (segment, at) = Segment::parse(source, destination, payload).ok()?;
    Some((ip.destination, segment, payload.len() - at))
}

/// What a peer that keeps to the rules says to a segment, so that handshakes come about and data flows.
pub(crate) fn honest_answer(said: &[u8], now: Instant) -> Option<Vec<u8>> {
    let (peer, answer) = answer_to(parse(said)?, now)?;
    Some(segment_frame(peer, &answer, 0))
}

/// The segment of an honest answer, and who sends it.
fn answer_to((peer, theirs, len): (Ipv4Addr, Segment, usize), now: Instant) -> Option<(Ipv4Addr, Segment)> {
    if theirs.rst() {
        return None;
    }
    let opens = theirs.syn() && theirs.acknowledges().is_none();
    let value = now.as_millis() as u32;
    let timestamps = theirs.options.timestamps.map(|ts| Timestamps { value, echo: ts.value });
    let answer = Segment {
        source_port: theirs.destination_port,
        destination_port: theirs.source_port,
        seq: if opens { SeqNumber(77_000) } else { theirs.ack },
        ack: theirs.seq + theirs.sequence_len(len),
        flags: if opens { Flags::SYN.with(Flags::ACK) } else { Flags::ACK },
        window: 65_535,
        ce: false,
        urgent: 0,
        options: Options {
            mss: opens.then_some(1460),
            window_scale: if opens { theirs.options.window_scale } else { None },
            sack_permitted: opens && theirs.options.sack_permitted,
            timestamps,
            ..Options::default()
        },
    };
    Some((peer, answer))
}

/// What a sender with much to send has on the wire at once: segments of one flow that follow each other, full ones for the most part. Three
/// in four are exactly the next one; what is wrong with the others is what may end a train, or must.
pub(crate) fn burst(input: &mut Input<'_>, said: &[Vec<u8>], now: Instant) -> Vec<Vec<u8>> {
    let count = 1 + input.below(MAX_BURST);
    let known = said.iter().rev().filter_map(|said| parse(said)).nth(input.below(4));
    let Some((peer, mut next)) = known.and_then(|theirs| answer_to(theirs, now)) else {
        return (0..count).map(|_| frame(input, said)).collect();
    };
    let full = 1460 - next.options.len();
    let len = input.pick(&[full, full, 536, 300, 100, 40]);
    let mut frames = Vec::new();
    for _ in 0..count {
        let frame = match input.byte() {
            deviation @ 192.. => deviate(input, deviation % 16, (peer, &mut next, len), said),
            _ => segment_frame(peer, &next, len),
        };
        frames.push(frame);
        next.seq += len;
    }
    frames
}

/// A segment of a burst that is not what the one before lets expect; or `next`, from now on.
fn deviate(
    input: &mut Input<'_>,
    deviation: u8,
    (peer, next, len): (Ipv4Addr, &mut Segment, usize),
    said: &[Vec<u8>],
) -> Vec<u8> {
    let tcp = ethernet::LEN + ipv4::LEN;
    let with = |flags: Flags| segment_frame(peer, &Segment { flags, ..*next }, len);
    match deviation {
        0 => {
            next.seq += 1 + input.below(3000);
            segment_frame(peer, next, len)
        }
        1 => {
            // What was there before, once more; or some of it.
            next.seq = next.seq - input.pick(&[len, len, 1]);
            segment_frame(peer, next, len)
        }
        2 => with(Flags::ACK.with(Flags::FIN)),
        3 => with(Flags::ACK.with(Flags::PSH)),
        4 => with(Flags(input.byte())),
        5 => {
            // Something else in between: of another flow, or no segment at all.
            next.seq = next.seq - len;
            frame(input, said)
        }
        6 => {
            let shorter = input.below(len);
            let frame = segment_frame(peer, next, shorter);
            next.seq = next.seq + shorter - len;
            frame
        }
        7 => {
            next.window = input.u16();
            segment_frame(peer, next, len)
        }
        8 => {
            let ack = next.ack + input.below(5000) - 2500;
            segment_frame(peer, &Segment { ack, ..*next }, len)
        }
        9 => {
            let mut other = *next;
            let (value, echo) = (input.byte().into(), input.byte().into());
            other.options.timestamps = input.one_in(2).then_some(Timestamps { value, echo });
            segment_frame(peer, &other, len)
        }
        10 => {
            next.options.sack.push(next.ack + 100, next.ack + 100 + input.below(3000));
            // With that option, a full one would be longer than the link carries.
            let shorter = len.min(1400);
            let frame = segment_frame(peer, next, shorter);
            next.options.sack = Options::default().sack;
            next.seq = next.seq + shorter - len;
            frame
        }
        11 => {
            // Behind its own end: a sender of short frames has to.
            let mut frame = segment_frame(peer, next, len);
            frame.extend(input_bytes(1 + input.below(20))(input));
            frame
        }
        12 => {
            let mut frame = segment_frame(peer, next, len);
            frame.truncate(frame.len() - input.below(200).min(len));
            frame
        }
        13 => {
            // A mark of congestion, or anything else in the IP header, with the right checksum.
            let mut frame = segment_frame(peer, next, len);
            let at = ethernet::LEN + input.pick(&[1, 1, 4, 6, 8, 9, 12, 0]);
            frame[at] ^= input.pick(&[3, 1, 2, 0x40, 0x20, 0xff]);
            frame[ethernet::LEN + 10..][..2].fill(0);
            let sum = checksum(&frame[ethernet::LEN..tcp]);
            frame[ethernet::LEN + 10..][..2].copy_from_slice(&sum.to_be_bytes());
            frame
        }
        // A bit that fell over: in the payload, in the segment's header, or in those before it.
        14 => {
            let mut frame = segment_frame(peer, next, len);
            let at = frame.len() - 1 - input.below(len);
            frame[at] ^= 0x10;
            frame
        }
        _ => {
            let mut frame = segment_frame(peer, next, len);
            let at = input.below(tcp + next.header_len());
            frame[at] ^= 1 << input.below(8);
            frame
        }
    }
}

/// A segment in its frame, from the station that speaks for all. Each byte of the payload is told by its number.
fn segment_frame(peer: Ipv4Addr, segment: &Segment, len: usize) -> Vec<u8> {
    let mut payload = vec![0; segment.header_len().min(60)];
    payload.extend(pattern(segment.seq.0, len));
    segment.emit(peer.into(), OURS.into(), len, &mut payload);
    fix_checksum(peer, OURS, protocol::TCP, &mut payload);
    let mut frame = vec![0; ethernet::LEN + ipv4::LEN];
    let header =
        ethernet::Header { destination: OUR_MAC, source: THEIR_MAC, vlan: None, ethertype: ethertype::IPV4 };
    header.emit(&mut frame);
    ipv4::Header::new(peer, OURS, protocol::TCP, payload.len() as u16).emit(&mut frame[ethernet::LEN..]);
    frame.extend(payload);
    frame
}
