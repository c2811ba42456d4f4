//! UDP headers (RFC 768).

use std::{net::IpAddr, ops::Range};

use super::{checksum::Sum, protocol};
use crate::telemetry::DropReason;

/// Bytes of the header.
pub const LEN: usize = 8;

/// A UDP header. Length and checksum follow from the bytes around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
}

impl Header {
    /// The header in an IP payload, and where the datagram's data lies.
    ///
    /// # Errors
    /// [`DropReason::UdpMalformed`] when the length is shorter than the header or longer than the packet;
    /// [`DropReason::UdpBadChecksum`]. Without a checksum it may come over IPv4 only (RFC 768, RFC 8200 §8.1).
    pub fn parse(
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
    ) -> Result<(Self, Range<usize>), DropReason> {
        Self::parse_pieces(source, destination, bytes.len(), std::iter::once(bytes))
    }

    /// The same of an IP payload that lies in several pieces, of `total` bytes; the first has the header.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_pieces<'a>(
        source: IpAddr,
        destination: IpAddr,
        total: usize,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<(Self, Range<usize>), DropReason> {
        let malformed = DropReason::UdpMalformed;
        let bytes = pieces.clone().next().unwrap_or_default();
        let &[s0, s1, d0, d1, l0, l1, c0, c1] = bytes.first_chunk::<LEN>().ok_or(malformed)?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if len < LEN || len > total {
            return Err(malformed);
        }
        let unchecked = [c0, c1] == [0, 0];
        if unchecked && source.is_ipv6() {
            return Err(DropReason::UdpBadChecksum);
        }
        let mut left = len;
        let datagram = pieces.map(|piece| {
            let part = &piece[..piece.len().min(left)];
            left -= part.len();
            part
        });
        let sum = Sum::pseudo_header(source, destination, protocol::UDP, len);
        if !unchecked && sum.pieces(datagram).finish() != 0 {
            return Err(DropReason::UdpBadChecksum);
        }
        let source_port = u16::from_be_bytes([s0, s1]);
        let destination_port = u16::from_be_bytes([d0, d1]);
        Ok((Self { source_port, destination_port }, LEN..len))
    }

    /// The header in front of `data`, with the checksum over both.
    pub fn in_front_of(&self, source: IpAddr, destination: IpAddr, data: &[u8]) -> [u8; LEN] {
        // No datagram of ours is longer than a frame, so the length fits.
        let len = u16::try_from(LEN + data.len()).unwrap_or(u16::MAX);
        let ([s0, s1], [d0, d1]) = (self.source_port.to_be_bytes(), self.destination_port.to_be_bytes());
        let [l0, l1] = len.to_be_bytes();
        let header = [s0, s1, d0, d1, l0, l1, 0, 0];
        let sum = Sum::pseudo_header(source, destination, protocol::UDP, LEN + data.len());
        let sum = sum.bytes(&header).bytes(data).finish();
        // A checksum of zero would say "none"; all ones is the same number (RFC 768).
        let [c0, c1] = if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() };
        [s0, s1, d0, d1, l0, l1, c0, c1]
    }

    /// Writes the header at the front of `out`, whose other bytes already are the data, with the checksum over
    /// both (RFC 1122 §4.1.3.4: always).
    ///
    /// # Panics
    /// When `out` is shorter than [`LEN`].
    pub fn emit(&self, source: IpAddr, destination: IpAddr, out: &mut [u8]) {
        let (header, data) = out.split_at_mut(LEN);
        header.copy_from_slice(&self.in_front_of(source, destination, data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const HEADER: Header = Header { source_port: 53, destination_port: 49_152 };

    fn datagram(data: &[u8]) -> Vec<u8> {
        let mut bytes = [&[0; LEN][..], data].concat();
        HEADER.emit(A, B, &mut bytes);
        bytes
    }

    #[test]
    fn rfc768_no_checksum_is_right_over_ipv4_and_wrong_over_ipv6() {
        let mut bytes = datagram(b"data");
        bytes[6..8].copy_from_slice(&[0, 0]);
        assert_eq!(Header::parse(A, B, &bytes), Ok((HEADER, 8..12)));
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(Header::parse(v6, v6, &bytes), Err(DropReason::UdpBadChecksum));
    }

    #[test]
    fn rfc768_a_computed_checksum_of_zero_is_sent_as_all_ones() {
        // Choose the data so that the sum comes out as zero: first measure, then fill in the complement.
        let bytes = datagram(&[0, 0]);
        let data = [bytes[6], bytes[7]];
        let bytes = datagram(&data);
        assert_eq!(bytes[6..8], [0xff, 0xff]);
        assert_eq!(Header::parse(A, B, &bytes), Ok((HEADER, 8..10)));
    }

    #[test]
    fn a_length_that_the_packet_does_not_have_is_malformed() {
        let mut bytes = datagram(b"data");
        for len in [0, 7, 13] {
            bytes[5] = len;
            assert_eq!(Header::parse(A, B, &bytes), Err(DropReason::UdpMalformed), "length {len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, data)) = Header::parse(A, B, &bytes) {
                prop_assert!(data.end <= bytes.len());
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            (source_port, destination_port) in any::<(u16, u16)>(),
            data in proptest::collection::vec(any::<u8>(), 0..64),
            trailer in 0usize..8,
            flip in 0usize..8,
        ) {
            let header = Header { source_port, destination_port };
            let mut bytes = [&[0; LEN][..], &data].concat();
            header.emit(A, B, &mut bytes);
            bytes.resize(bytes.len() + trailer, 0);
            prop_assert_eq!(Header::parse(A, B, &bytes), Ok((header, LEN..LEN + data.len())));
            bytes[flip] ^= 0x10;
            prop_assert!(Header::parse(A, B, &bytes).is_err());
        }
    }
}
