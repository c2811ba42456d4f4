//! ARP packets for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use super::{MacAddr, ethernet::ethertype};
use crate::telemetry::DropReason;

/// Bytes of a packet.
pub const LEN: usize = 28;

/// Hardware type Ethernet.
const ETHERNET: u16 = 1;

/// What a packet asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it asks or says.
    pub operation: Operation,
    /// The sender's link-layer address.
    pub sender_mac: MacAddr,
    /// The sender's address; 0.0.0.0 in a probe (RFC 5227 §1.1).
    pub sender_ip: Ipv4Addr,
    /// The target's link-layer address; means nothing in a request.
    pub target_mac: MacAddr,
    /// The address that is asked for.
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// The packet in an Ethernet payload; padding after it is ignored.
    ///
    /// # Errors
    /// [`DropReason::ArpMalformed`] when it is cut off, is not about IPv4 over Ethernet, or neither asks nor
    /// answers.
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let malformed = DropReason::ArpMalformed;
        let (&fixed, rest) = bytes.split_first_chunk::<8>().ok_or(malformed)?;
        let [h0, h1, p0, p1, hardware_len, protocol_len, o0, o1] = fixed;
        let types = (u16::from_be_bytes([h0, h1]), u16::from_be_bytes([p0, p1]));
        if types != (ETHERNET, ethertype::IPV4) || (hardware_len, protocol_len) != (6, 4) {
            return Err(malformed);
        }
        let operation = match u16::from_be_bytes([o0, o1]) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(malformed),
        };
        let (&sender_mac, rest) = rest.split_first_chunk::<6>().ok_or(malformed)?;
        let (&sender_ip, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let (&target_mac, rest) = rest.split_first_chunk::<6>().ok_or(malformed)?;
        let &target_ip = rest.first_chunk::<4>().ok_or(malformed)?;
        Ok(Self {
            operation,
            sender_mac: MacAddr(sender_mac),
            sender_ip: sender_ip.into(),
            target_mac: MacAddr(target_mac),
            target_ip: target_ip.into(),
        })
    }

    /// Writes the packet.
    ///
    /// # Panics
    /// When `out` is shorter than [`LEN`].
    pub fn emit(&self, out: &mut [u8]) {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        out[..2].copy_from_slice(&ETHERNET.to_be_bytes());
        out[2..4].copy_from_slice(&ethertype::IPV4.to_be_bytes());
        out[4..6].copy_from_slice(&[6, 4]);
        out[6..8].copy_from_slice(&operation.to_be_bytes());
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender_ip.octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..28].copy_from_slice(&self.target_ip.octets());
    }

    /// A question whether anybody uses the target address, by somebody who has no address yet (RFC 5227 §1.1).
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender_ip.is_unspecified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_packet() -> impl Strategy<Value = Packet> {
        (any::<bool>(), any::<[u8; 6]>(), any::<Ipv4Addr>(), any::<[u8; 6]>(), any::<Ipv4Addr>()).prop_map(
            |(request, sender_mac, sender_ip, target_mac, target_ip)| Packet {
                operation: if request { Operation::Request } else { Operation::Reply },
                sender_mac: MacAddr(sender_mac),
                sender_ip,
                target_mac: MacAddr(target_mac),
                target_ip,
            },
        )
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(packet in any_packet(), padding in 0usize..20) {
            let mut bytes = vec![0xee; LEN + padding];
            packet.emit(&mut bytes);
            prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
            prop_assert_eq!(Packet::parse(&bytes[..LEN - 1]), Err(DropReason::ArpMalformed));
        }

        /// RFC 826: hardware type, protocol type, both lengths and the operation are looked at.
        #[test]
        fn another_kind_of_arp_is_refused(packet in any_packet(), at in 0usize..8, flip in 1u8..) {
            let mut bytes = [0; LEN];
            packet.emit(&mut bytes);
            bytes[at] ^= flip;
            let still_an_operation = at == 7 && matches!(bytes[7], 1 | 2);
            prop_assert_eq!(Packet::parse(&bytes).is_ok(), still_an_operation);
        }
    }
}
