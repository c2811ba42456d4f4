//! IPv4 headers (RFC 791).

use std::{net::Ipv4Addr, ops::Range};

// What we write has no options.
pub use stack_common::numbers::IPV4_LEN as LEN;

use super::checksum::checksum;
use crate::telemetry::DropReason;

/// The TTL of what we send (RFC 1122 §3.2.1.7; IANA's current recommendation).
pub const DEFAULT_TTL: u8 = 64;

/// The longest datagram there is.
pub const MAX_TOTAL_LEN: usize = 65_535;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Options (RFC 791 §3.1): the two that are one byte long, and the two that route (loose and strict).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// An IPv4 header. Options are not kept: none of them is for a host that refuses source routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// What the datagram carries; see [`protocol`](super::protocol).
    pub protocol: u8,
    /// Routers that the datagram may still pass.
    pub ttl: u8,
    /// Differentiated services (upper six bits) and congestion notification (lower two; RFC 3168).
    pub tos: u8,
    /// Tells a datagram's fragments from another's. Means nothing in a datagram that is whole and must stay so
    /// (RFC 6864 §4.1).
    pub identification: u16,
    /// Routers must not cut the datagram.
    pub dont_fragment: bool,
    /// This is a fragment, and not the last one.
    pub more_fragments: bool,
    /// Where the fragment belongs in its datagram, in bytes: a multiple of eight.
    pub fragment_offset: u16,
    /// Bytes after the header.
    pub payload_len: u16,
}

impl Header {
    /// The header of a datagram that we send: whole, not to be fragmented (RFC 8899 §3 (2)).
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload_len: u16) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: DEFAULT_TTL,
            tos: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            payload_len,
        }
    }

    /// The header of a datagram, and where its payload lies: behind the options, which nobody reads (RFC 9293 §3.9.2,
    /// MUST-50; RFC 1122 §3.2.1.8), and without the padding that
    /// Ethernet adds to short frames.
    ///
    /// # Errors
    /// [`DropReason::Ipv4Malformed`], [`DropReason::Ipv4BadChecksum`] (RFC 1122 §3.2.1.2), [`DropReason::Ipv4Truncated`], or
    /// [`DropReason::Ipv4SourceRoute`] (RFC 7126 §4.3 and §4.4: drop them).
    pub fn parse(bytes: &[u8]) -> Result<(Self, Range<usize>), DropReason> {
        Self::parse_front(bytes, bytes.len())
    }

    /// The same of what begins with `bytes` and has `len` in all: of a frame in several chunks, the first one is enough, as the
    /// header must be in it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_front(bytes: &[u8], len: usize) -> Result<(Self, Range<usize>), DropReason> {
        let malformed = DropReason::Ipv4Malformed;
        let fixed = bytes.first_chunk::<LEN>().ok_or(malformed)?;
        let header_len = header_len(fixed[0]).ok_or(malformed)?;
        let header = bytes.get(..header_len).ok_or(malformed)?;
        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if total_len < header_len {
            return Err(malformed);
        }
        if checksum(header) != 0 {
            return Err(DropReason::Ipv4BadChecksum);
        }
        // Some drivers cut a frame to their buffer without a word, so what is there is no datagram.
        if total_len > len {
            return Err(DropReason::Ipv4Truncated);
        }
        if has_source_route(header.get(LEN..).unwrap_or_default())? {
            return Err(DropReason::Ipv4SourceRoute);
        }
        Ok((Self::from_fixed(fixed, (total_len - header_len) as u16), header_len..total_len))
    }

    /// Writes the header with its checksum.
    ///
    /// # Panics
    /// When `out` is shorter than [`LEN`].
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..LEN];
        let total_len = self.payload_len.saturating_add(LEN as u16);
        let mut fragment = (self.fragment_offset / 8) & OFFSET_MASK;
        fragment |= if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        fragment |= if self.more_fragments { MORE_FRAGMENTS } else { 0 };
        out[0] = 0x45;
        out[1] = self.tos;
        out[2..4].copy_from_slice(&total_len.to_be_bytes());
        out[4..6].copy_from_slice(&self.identification.to_be_bytes());
        out[6..8].copy_from_slice(&fragment.to_be_bytes());
        out[8] = self.ttl;
        out[9] = self.protocol;
        out[10..12].copy_from_slice(&[0, 0]);
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
        let sum = checksum(out);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Whether this is a part of a datagram, not a whole one.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// The fields of the fixed part, whatever its version, length and checksum say.
    pub(super) fn from_fixed(fixed: &[u8; LEN], payload_len: u16) -> Self {
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        Self {
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            protocol: fixed[9],
            ttl: fixed[8],
            tos: fixed[1],
            identification: u16::from_be_bytes([fixed[4], fixed[5]]),
            dont_fragment: fragment & DONT_FRAGMENT != 0,
            more_fragments: fragment & MORE_FRAGMENTS != 0,
            fragment_offset: (fragment & OFFSET_MASK) * 8,
            payload_len,
        }
    }
}

/// The header's length by its first byte; `None` when that is not version 4 (RFC 1122 §3.2.1.1) or shorter than the fixed part.
pub(super) fn header_len(first: u8) -> Option<usize> {
    let len = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && len >= LEN).then_some(len)
}

fn has_source_route(mut options: &[u8]) -> Result<bool, DropReason> {
    while let [kind, rest @ ..] = options {
        options = match *kind {
            END_OF_OPTIONS => break,
            NO_OPERATION => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Ok(true),
            // The length counts the kind and itself, so it is at least 2: else we would stand still.
            _ => match rest.first() {
                Some(&len) if len >= 2 => options.get(usize::from(len)..).ok_or(DropReason::Ipv4Malformed)?,
                _ => return Err(DropReason::Ipv4Malformed),
            },
        };
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_options(options: &[u8]) -> Vec<u8> {
        let header = Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, 4);
        let mut bytes = vec![0; LEN];
        header.emit(&mut bytes);
        bytes.extend_from_slice(options);
        bytes[0] = 0x40 | (bytes.len() / 4) as u8;
        let total_len = (bytes.len() + 4) as u16;
        bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
        bytes[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(b"data");
        bytes
    }

    #[test]
    fn rfc791_options_are_skipped() {
        // Router alert, padded.
        let bytes = with_options(&[148, 4, 0, 0, 1, 1, 0, 0]);
        let (header, payload) = Header::parse(&bytes).expect("well formed");
        assert_eq!((header.payload_len, payload), (4, 28..32));
    }

    #[test]
    fn rfc7126_4_3_source_routes_are_refused() {
        for kind in [131, 137] {
            let bytes = with_options(&[1, kind, 7, 4, 10, 0, 0, 3]);
            assert_eq!(Header::parse(&bytes), Err(DropReason::Ipv4SourceRoute));
        }
    }

    #[test]
    fn an_option_of_length_0_or_beyond_the_header_is_malformed() {
        for options in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
            assert_eq!(Header::parse(&with_options(&options)), Err(DropReason::Ipv4Malformed), "{options:?}");
        }
    }

    #[test]
    fn rfc1122_3_2_1_1_another_version_is_refused() {
        for version in (0..16).filter(|&version| version != 4) {
            let mut bytes = with_options(&[]);
            bytes[0] = version << 4 | 5;
            assert_eq!(Header::parse(&bytes), Err(DropReason::Ipv4Malformed), "{version}");
        }
    }

    #[test]
    fn rfc1122_3_2_1_2_a_wrong_checksum_is_refused() {
        let mut bytes = with_options(&[]);
        bytes[8] -= 1;
        assert_eq!(Header::parse(&bytes), Err(DropReason::Ipv4BadChecksum));
    }

    #[test]
    fn padding_is_trimmed_and_a_cut_datagram_refused() {
        let mut bytes = with_options(&[]);
        bytes.extend_from_slice(&[0; 22]);
        assert_eq!(Header::parse(&bytes).map(|(_, payload)| payload), Ok(20..24));
        for len in 0..24 {
            let reason = if len < LEN { DropReason::Ipv4Malformed } else { DropReason::Ipv4Truncated };
            assert_eq!(Header::parse(&bytes[..len]), Err(reason), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..96),
            likely in any::<bool>(),
        ) {
            if let ([first, _, _, len, ..], true) = (&mut bytes[..], likely) {
                *first = 0x45 + (*first & 3);
                *len &= 0x3f;
            }
            if let Ok((header, payload)) = Header::parse(&bytes) {
                prop_assert_eq!(bytes[payload].len(), usize::from(header.payload_len));
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            (source, destination) in any::<(Ipv4Addr, Ipv4Addr)>(),
            (protocol, ttl, tos, identification) in any::<(u8, u8, u8, u16)>(),
            (dont_fragment, more_fragments) in any::<(bool, bool)>(),
            offset in 0u16..8192,
            payload_len in 0u16..1500,
        ) {
            let fragment_offset = offset * 8;
            let header = Header {
                source, destination, protocol, ttl, tos, identification, dont_fragment, more_fragments,
                fragment_offset, payload_len,
            };
            let mut bytes = vec![0; LEN + usize::from(payload_len)];
            header.emit(&mut bytes);
            prop_assert_eq!(Header::parse(&bytes), Ok((header, LEN..bytes.len())));
        }
    }
}
