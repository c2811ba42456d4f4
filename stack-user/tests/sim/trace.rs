//! A frame in a line, for whoever replays a seed.

use stack_user::{
    tcp::Segment,
    wire::{arp, ethernet, ethernet::ethertype, icmpv4::Message, ipv4, protocol, tcp::Flags},
};

/// A frame in words.
pub(crate) fn describe(frame: &[u8]) -> String {
    let Ok((header, at)) = ethernet::Header::parse(frame) else { return "no Ethernet".into() };
    let payload = &frame[at..];
    match header.ethertype {
        ethertype::ARP => match arp::Packet::parse(payload) {
            Ok(packet) => format!("ARP {:?} {} → {}", packet.operation, packet.sender_ip, packet.target_ip),
            Err(_) => "ARP, malformed".into(),
        },
        ethertype::IPV4 => datagram(payload),
        other => format!("type {other:#06x}"),
    }
}

fn datagram(bytes: &[u8]) -> String {
    let Ok((header, payload)) = ipv4::Header::parse(bytes) else { return "IPv4, damaged".into() };
    let bytes = &bytes[payload];
    let (source, destination) = (header.source, header.destination);
    match header.protocol {
        protocol::TCP => match Segment::parse(source.into(), destination.into(), bytes) {
            Ok((segment, at)) => {
                let ports =
                    format!("{source}:{} → {destination}:{}", segment.source_port, segment.destination_port);
                format!("{ports} {}", tcp(&segment, bytes.len() - at, header.tos))
            }
            Err(reason) => format!("{source} → {destination} TCP, {}", reason.name()),
        },
        protocol::ICMPV4 => match Message::parse(bytes) {
            Ok(message) => format!("{source} → {destination} {message:?}"),
            Err(_) => format!("{source} → {destination} ICMP, damaged"),
        },
        other => format!("{source} → {destination} protocol {other}"),
    }
}

fn tcp(segment: &Segment, len: usize, tos: u8) -> String {
    let names = [
        (Flags::SYN, 'S'),
        (Flags::FIN, 'F'),
        (Flags::RST, 'R'),
        (Flags::PSH, 'P'),
        (Flags::URG, 'U'),
        (Flags::ACK, '.'),
    ];
    let flags: String =
        names.iter().filter(|(flag, _)| segment.flags.contains(*flag)).map(|&(_, name)| name).collect();
    let mut text = format!("[{flags}] seq {} len {len} win {}", segment.seq.0, segment.window);
    if let Some(ack) = segment.acknowledges() {
        text += &format!(" ack {}", ack.0);
    }
    if tos & 3 != 0 {
        text += &format!(" ecn {}", tos & 3);
    }
    if segment.syn() || segment.options.sack.iter().next().is_some() {
        text += &format!(" {:?}", segment.options);
    }
    text
}
