//! The frames of the pump: UDP datagrams to its port, each with a number.

use std::net::Ipv4Addr;

use crate::wire::{MacAddr, ethernet, ethernet::ethertype, ipv4, protocol, udp};

/// By which a pump knows the frames of another.
const MAGIC: [u8; 4] = *b"xspu";

/// The magic and the number.
const PAYLOAD: usize = MAGIC.len() + size_of::<u64>();

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
        datagram[udp::LEN..][..MAGIC.len()].copy_from_slice(&MAGIC);
        Self { bytes, number_at: ethernet.len() + ipv4::LEN + udp::LEN + MAGIC.len() }
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

/// The number of a frame that a pump has sent to this port; none if it is anything else.
pub(super) fn number(frame: &[u8], port: u16) -> Option<u64> {
    let payload = payload(frame, port)?.get(..PAYLOAD)?;
    let (magic, number) = payload.split_first_chunk()?;
    (*magic == MAGIC).then(|| number.try_into().map(u64::from_be_bytes).ok())?
}

/// Sends a frame back to where it came from: its ports are the same.
pub(super) fn turn_round(frame: &mut [u8]) {
    let Ok((_, ip)) = ethernet::Header::parse(frame) else { return };
    let (destination, source) = (0, 6);
    swap(frame, destination, source, 6);
    // The checksum of the header is a sum, which does not mind their order.
    swap(frame, ip + 12, ip + 16, 4);
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
    is_ours.then_some(payload)
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
            assert_eq!((frame.len(), number(&frame, 9)), (size, Some(1 << 40)));
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
    fn turned_round_it_is_the_others_frame() {
        for vlan in [None, Some(7)] {
            let mut there = frame(ONE, OTHER, vlan, 100, 5);
            turn_round(&mut there);
            assert_eq!(there, frame(OTHER, ONE, vlan, 100, 5));
        }
    }

    #[test]
    fn what_is_for_another_port_or_cut_off_is_not_the_pumps() {
        let whole = frame(ONE, OTHER, None, 60, 5);
        assert_eq!(number(&whole, 10), None);
        for len in 0..54 {
            assert_eq!(number(&whole[..len], 9), None, "{len} bytes");
        }
        for at in [12, 14, 23, 42, 45] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(number(&other, 9), None, "byte {at} is another");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = bytes;
            let _ = number(&bytes, 9);
            turn_round(&mut bytes);
        }
    }
}
