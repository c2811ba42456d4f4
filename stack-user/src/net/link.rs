//! Headers of a frame to send.
//!
//! A frame's bytes start at a fixed place in its chunk, so nothing can be put in front later: whoever fills in
//! the payload leaves [`Link::header_room`] bytes free, and the headers are written into them: the IP header
//! as soon as the destination is known, the Ethernet header once the next hop's link-layer address is.

use std::net::IpAddr;

use crate::{
    frame::{FramePool, TxFrame},
    wire::{
        IpFields, MacAddr, arp,
        ethernet::{self, ethertype},
        ipv4,
    },
};

/// Bytes of an IPv6 header (RFC 8200 §3).
const IPV6_LEN: usize = 40;

/// The near end of an Ethernet link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Our link-layer address.
    pub mac: MacAddr,
    /// The VLAN whose tag our frames carry.
    pub vlan: Option<u16>,
}

impl Link {
    /// Bytes of the Ethernet header.
    pub const fn ethernet_len(&self) -> usize {
        if self.vlan.is_some() { ethernet::LEN + ethernet::VLAN_LEN } else { ethernet::LEN }
    }

    /// Bytes in front of an IP payload to or from `address`: Ethernet's header and IP's.
    pub fn header_room(&self, address: IpAddr) -> usize {
        self.ethernet_len() + ip_header_len(address)
    }

    /// Writes the IP header in front of the payload that is in `frame`; `false` when there is no payload, it is
    /// longer than IP can say, or the addresses are not both IPv4.
    pub fn write_ip<P: FramePool>(
        &self,
        pool: &mut P,
        frame: &mut TxFrame,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        fields: IpFields,
    ) -> bool {
        let room = self.header_room(source);
        let payload_len = frame.len().checked_sub(room).and_then(|len| u16::try_from(len).ok());
        let (IpAddr::V4(source), IpAddr::V4(destination), Some(payload_len)) =
            (source, destination, payload_len)
        else {
            return false;
        };
        let header = ipv4::Header {
            ttl: fields.hop_limit,
            tos: fields.traffic_class,
            ..ipv4::Header::new(source, destination, protocol, payload_len)
        };
        match pool.tx_buffer(frame).get_mut(self.ethernet_len()..room) {
            Some(out) => header.emit(out),
            None => return false,
        }
        true
    }

    /// Writes the Ethernet header of a frame that carries `ethertype` to `destination`.
    pub fn write_ethernet<P: FramePool>(
        &self,
        pool: &mut P,
        frame: &mut TxFrame,
        destination: MacAddr,
        ethertype: u16,
    ) {
        let header = ethernet::Header { destination, source: self.mac, vlan: self.vlan, ethertype };
        if let Some(out) = pool.tx_buffer(frame).get_mut(..header.len()) {
            header.emit(out);
        }
    }

    /// A whole frame with an ARP packet; `None` when no chunk is left.
    pub fn arp_frame<P: FramePool>(
        &self,
        pool: &mut P,
        packet: &arp::Packet,
        destination: MacAddr,
    ) -> Option<TxFrame> {
        let mut frame = pool.allocate()?.into_tx();
        let end = self.ethernet_len() + arp::LEN;
        frame.set_len(end);
        self.write_ethernet(pool, &mut frame, destination, ethertype::ARP);
        if let Some(out) = pool.tx_buffer(&mut frame).get_mut(self.ethernet_len()..end) {
            packet.emit(out);
        }
        Some(frame)
    }
}

/// Bytes of the IP header in front of a payload to or from `address`.
pub(super) fn ip_header_len(address: IpAddr) -> usize {
    if address.is_ipv4() { ipv4::LEN } else { IPV6_LEN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::Umem, wire::protocol};

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// RFC 8899 §3 (2): what we send is not to be fragmented.
    #[test]
    fn headers_are_written_in_front_of_the_payload() {
        for vlan in [None, Some(7)] {
            let mut pool = Umem::on_heap(1).expect("memory");
            let link = Link { mac: MacAddr([2, 0, 0, 0, 0, 1]), vlan };
            let room = link.header_room(A);
            let mut frame = pool.allocate().expect("a chunk").into_tx();
            frame.set_len(room + 4);
            pool.tx_buffer(&mut frame)[room..room + 4].copy_from_slice(b"data");
            assert!(link.write_ip(&mut pool, &mut frame, A, B, protocol::UDP, IpFields::default()));
            link.write_ethernet(&mut pool, &mut frame, MacAddr::BROADCAST, ethertype::IPV4);

            let bytes = pool.tx_bytes(&frame);
            let (ethernet, at) = ethernet::Header::parse(bytes).expect("Ethernet");
            assert_eq!(
                (ethernet.vlan, ethernet.source, ethernet.ethertype),
                (vlan, link.mac, ethertype::IPV4)
            );
            let (header, payload) = ipv4::Header::parse(&bytes[at..]).expect("IPv4");
            assert_eq!((IpAddr::V4(header.source), IpAddr::V4(header.destination)), (A, B));
            assert!(header.dont_fragment && header.ttl == 64);
            assert_eq!(&bytes[at..][payload], b"data");
            pool.release_tx(frame);
        }
    }

    #[test]
    fn a_frame_without_room_for_headers_is_refused() {
        let mut pool = Umem::on_heap(1).expect("memory");
        let link = Link { mac: MacAddr([2, 0, 0, 0, 0, 1]), vlan: None };
        let mut frame = pool.allocate().expect("a chunk").into_tx();
        frame.set_len(33);
        assert!(!link.write_ip(&mut pool, &mut frame, A, B, protocol::UDP, IpFields::default()));
        pool.release_tx(frame);
    }
}
