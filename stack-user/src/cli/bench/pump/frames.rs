//! The frames of the pump: UDP datagrams to its port, each with a number.

use std::net::Ipv4Addr;

use crate::wire::{MacAddr, ethernet, ethernet::ethertype, ipv4, protocol, udp};

/// By which a pump knows the frames of another, and what they are. Another magic for what an echo has sent back: were they the
/// same, two echos would have a frame go to and fro for ever, and anybody could send one in the name of the other.
const MAGIC: [(Kind, [u8; MAGIC_LEN]); 2] = [(Kind::Sent, *b"xspu"), (Kind::SentBack, *b"xspb")];

const MAGIC_LEN: usize = 4;

/// The magic and the number.
const PAYLOAD: usize = MAGIC_LEN + size_of::<u64>();

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody's own.
    Sent,
    /// It has come, and went back.
    SentBack,
}

impl Kind {
    fn magic(self) -> [u8; MAGIC_LEN] {
        MAGIC[self as usize].1
    }
}

/// Bytes of the shortest frame, without its check sequence.
pub(super) const MIN: usize = 60;

/// Bytes of headers in a full TCP segment's frame: Ethernet, IPv4, TCP with timestamps.
pub(super) const TCP_HEADERS: usize = 66;

/// Where a pump is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Station {
    pub(super) mac: MacAddr,
    pub(super) ip: Ipv4Addr,
}

/// What all frames of a pump have in common.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    number_at: usize,
}

impl Template {
    /// Frames of so many bytes, [`MIN`] or more.
    pub(super) fn new(from: Station, to: Station, vlan: Option<u16>, port: u16, size: usize) -> Self {
        let ethernet =
            ethernet::Header { destination: to.mac, source: from.mac, vlan, ethertype: ethertype::IPV4 };
        let mut bytes = vec![0; size.max(MIN)];
        ethernet.emit(&mut bytes);
        let packet = &mut bytes[ethernet.len()..];
        let datagram_len = packet.len() - ipv4::LEN;
        let len = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX);
        ipv4::Header::new(from.ip, to.ip, protocol::UDP, len(datagram_len)).emit(packet);
        let datagram = &mut packet[ipv4::LEN..];
        let [p0, p1] = port.to_be_bytes();
        let [l0, l1] = len(datagram_len).to_be_bytes();
        // A checksum of zero is none (RFC 768): the numbers change, and summing is not what is measured.
        datagram[..udp::LEN].copy_from_slice(&[p0, p1, p0, p1, l0, l1, 0, 0]);
        datagram[udp::LEN..][..MAGIC_LEN].copy_from_slice(&Kind::Sent.magic());
        Self { bytes, number_at: ethernet.len() + ipv4::LEN + udp::LEN + MAGIC_LEN }
    }

    /// All bytes of a frame; its number is zero.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes a frame's number into its first bytes.
    pub(super) fn set_number(&self, frame: &mut [u8], number: u64) {
        if let Some(place) = frame.get_mut(self.number_at..self.number_at + size_of::<u64>()) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }
}

/// What a frame is that a pump has sent to this port, and its number; none if it is anything else, or not from one station to one.
pub(super) fn read(frame: &[u8], port: u16) -> Option<(Kind, u64)> {
    let payload = payload(frame, port)?.get(..PAYLOAD)?;
    let (magic, number) = payload.split_first_chunk()?;
    let (kind, _) = MAGIC.into_iter().find(|(_, known)| known == magic)?;
    Some((kind, u64::from_be_bytes(number.try_into().ok()?)))
}

/// Sends a frame back to where it came from, as one that is: its ports are the same.
pub(super) fn turn_round(frame: &mut [u8]) {
    let Ok((_, ip)) = ethernet::Header::parse(frame) else { return };
    let (destination, source) = (0, 6);
    swap(frame, destination, source, 6);
    // The checksum of the header is a sum, which does not mind their order.
    swap(frame, ip + 12, ip + 16, 4);
    let magic = ip + ipv4::LEN + udp::LEN;
    if let Some(place) = frame.get_mut(magic..magic + MAGIC_LEN) {
        place.copy_from_slice(&Kind::SentBack.magic());
    }
}

fn swap(bytes: &mut [u8], one: usize, other: usize, len: usize) {
    if bytes.len() >= other + len {
        (0..len).for_each(|at| bytes.swap(one + at, other + at));
    }
}

/// What lies behind the headers, which are read as we write them: without options.
fn payload(frame: &[u8], port: u16) -> Option<&[u8]> {
    let (ethernet, at) = ethernet::Header::parse(frame).ok()?;
    let packet = frame.get(at..)?;
    let (ip, datagram) = packet.split_at_checked(ipv4::LEN)?;
    let (header, payload) = datagram.split_at_checked(udp::LEN)?;
    let is_ours = ethernet.ethertype == ethertype::IPV4
        && (ip[0], ip[9]) == (0x45, protocol::UDP)
        && header[2..4] == port.to_be_bytes();
    // What came from a group, or from nobody, would go back to all of the link.
    let is_from_one = ethernet.source.is_unicast() && ethernet.destination.is_unicast();
    (is_ours && is_from_one && is_one(ip, 12) && is_one(ip, 16)).then_some(payload)
}

/// Whether the address in the header at that place can be a single station's.
fn is_one(ip: &[u8], at: usize) -> bool {
    let address = Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    !(address.is_multicast() || address.is_broadcast() || address.is_unspecified() || address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: Station = Station { mac: MacAddr([2, 0, 0, 0, 0, 1]), ip: Ipv4Addr::new(10, 0, 0, 1) };
    const OTHER: Station = Station { mac: MacAddr([2, 0, 0, 0, 0, 2]), ip: Ipv4Addr::new(10, 0, 0, 2) };

    fn frame(from: Station, to: Station, vlan: Option<u16>, size: usize, number: u64) -> Vec<u8> {
        let template = Template::new(from, to, vlan, 9, size);
        let mut frame = template.bytes().to_vec();
        template.set_number(&mut frame, number);
        frame
    }

    #[test]
    fn a_frame_is_a_datagram_that_any_stack_takes() {
        for (vlan, size) in [(None, 60), (Some(7), 64), (None, 1514), (None, 9014)] {
            let frame = frame(ONE, OTHER, vlan, size, 1 << 40);
            assert_eq!((frame.len(), read(&frame, 9)), (size, Some((Kind::Sent, 1 << 40))));
            let (ethernet, at) = ethernet::Header::parse(&frame).expect("a header");
            assert_eq!((ethernet.destination, ethernet.vlan), (OTHER.mac, vlan));
            let (ip, datagram) = ipv4::Header::parse(&frame[at..]).expect("a packet");
            assert_eq!((ip.source, ip.destination), (ONE.ip, OTHER.ip));
            let datagram = &frame[at..][datagram];
            let (header, _) = udp::Header::parse(ONE.ip.into(), OTHER.ip.into(), datagram).expect("whole");
            assert_eq!((header.source_port, header.destination_port), (9, 9));
        }
    }

    #[test]
    fn turned_round_it_is_the_others_frame_and_says_that_it_was_sent_back() {
        for (vlan, magic) in [(None, 42), (Some(7), 46)] {
            let mut there = frame(ONE, OTHER, vlan, 100, 5);
            turn_round(&mut there);
            assert_eq!(read(&there, 9), Some((Kind::SentBack, 5)));
            let mut back = frame(OTHER, ONE, vlan, 100, 5);
            back[magic..magic + MAGIC_LEN].copy_from_slice(b"xspb");
            assert_eq!(there, back);
        }
    }

    #[test]
    fn what_is_not_from_one_station_to_one_is_not_the_pumps() {
        let group = MacAddr([0x01, 0, 0x5e, 0, 0, 1]);
        for mac in [group, MacAddr::BROADCAST, MacAddr::ZERO] {
            assert_eq!(read(&frame(Station { mac, ..ONE }, OTHER, None, 60, 5), 9), None, "from {mac}");
            assert_eq!(read(&frame(ONE, Station { mac, ..OTHER }, None, 60, 5), 9), None, "to {mac}");
        }
        for ip in [[224, 0, 0, 1], [255; 4], [0; 4], [127, 0, 0, 1]].map(Ipv4Addr::from) {
            assert_eq!(read(&frame(Station { ip, ..ONE }, OTHER, None, 60, 5), 9), None, "from {ip}");
            assert_eq!(read(&frame(ONE, Station { ip, ..OTHER }, None, 60, 5), 9), None, "to {ip}");
        }
    }

    #[test]
    fn what_is_for_another_port_or_cut_off_is_not_the_pumps() {
        let whole = frame(ONE, OTHER, None, 60, 5);
        assert_eq!(read(&whole, 10), None);
        for len in 0..54 {
            assert_eq!(read(&whole[..len], 9), None, "{len} bytes");
        }
        for at in [12, 14, 23, 42, 45] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(read(&other, 9), None, "byte {at} is another");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = bytes;
            let _ = read(&bytes, 9);
            turn_round(&mut bytes);
        }
    }
}
