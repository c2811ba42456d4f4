//! The Internet checksum (RFC 1071), and the pseudo-headers that TCP and UDP add (RFC 9293 §3.1, RFC 8200 §8.1).

use std::net::IpAddr;

/// A running one's-complement sum. Parts that are added must start at an even offset of the whole, or say where they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const fn new() -> Self {
        Self(0)
    }

    /// The sum of the pseudo-header of a segment of `length` bytes.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Self {
        let sum = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::new().bytes(&source.octets()).bytes(&destination.octets())
            }
            (source, destination) => Self::new().bytes(&ipv6_octets(source)).bytes(&ipv6_octets(destination)),
        };
        Self(sum.0 + u64::from(protocol) + (length as u64 & 0xffff) + (length as u64 >> 16))
    }

    /// Adds bytes; an odd last one counts as if a zero followed.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Four bytes at a time into 64 bits: no carry to handle until 2^32 words, far beyond any frame.
        let mut sum = self.0;
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            sum += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        }
        let mut last = [0; 4];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        Self(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// Adds what lies in several pieces, of which the first starts at an even offset and the others where the one before
    /// ends.
    pub fn pieces<'a>(self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let add = |(sum, at): (Self, usize), piece: &[u8]| (sum.bytes_at(at, piece), at + piece.len());
        pieces.into_iter().fold((self, 0), add).0
    }

    /// Adds bytes that start at this offset of the whole. At an odd one, each counts in the other half of its word, and so
    /// does their sum (RFC 1071 §2 (B)).
    pub fn bytes_at(self, offset: usize, bytes: &[u8]) -> Self {
        if offset.is_multiple_of(2) {
            return self.bytes(bytes);
        }
        let sum = !Self::new().bytes(bytes).finish();
        Self(self.0 + u64::from(sum.swap_bytes()))
    }

    /// The checksum: the complement of the sum, folded to 16 bits. Zero over data that carries a right one.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// The checksum of `bytes` alone.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).finish()
}

fn ipv6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §1, as it is written there: add 16-bit words, fold the carries.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc1071_example() {
        // RFC 1071 §3: these words sum to ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn data_with_its_checksum_sums_to_zero() {
        let mut header = *b"\x45\x00\x00\x54\x00\x00\x40\x00\x40\x01\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02";
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&header), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn rfc1071_2_b_pieces_sum_to_the_same_wherever_they_are_cut(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
        ) {
            let sum = Sum::new().pieces(pieces.iter().map(Vec::as_slice));
            prop_assert_eq!(sum.finish(), naive(&pieces.concat()));
        }
    }
}
