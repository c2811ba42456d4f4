//! The Internet checksum (RFC 1071), and the pseudo-headers that TCP and UDP add (RFC 9293 §3.1, RFC 8200 §8.1).

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::net::{IpAddr, Ipv4Addr};

use multiversion::target::match_target;

/// A running one's-complement sum. Parts that are added must start at an even offset of the whole, or say where they do.
///
/// Words are added in the order that the CPU has, and only the result is put in the network's (RFC 1071 §2 (B)); the
/// carry of 64 bits goes round as that of 16 does, since 2^64 - 1 is a multiple of 2^16 - 1 (§2 (C)).
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
                let word = |address: Ipv4Addr| u64::from(u32::from_ne_bytes(address.octets()));
                Self(word(source) + word(destination))
            }
            (source, destination) => Self::new().bytes(&ipv6_octets(source)).bytes(&ipv6_octets(destination)),
        };
        sum.length_and_protocol(length, protocol)
    }

    /// Adds the part of a pseudo-header that is not the addresses.
    #[inline]
    pub fn length_and_protocol(self, length: usize, protocol: u8) -> Self {
        let length = (length as u32).to_be_bytes();
        self.word(u64::from(u16::from(protocol).to_be()) + u64::from(u32::from_ne_bytes(length)))
    }

    /// Adds bytes; an odd last one counts as if a zero followed.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        if bytes.len() < LONG { self.short(bytes) } else { self.word(long(bytes)) }
    }

    /// Adds a number of 32 bits, as it stands in a header.
    #[must_use]
    pub fn u32(self, number: u32) -> Self {
        self.word(number.to_be().into())
    }

    /// Eight bytes at a time: what is quickest for headers.
    fn short(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self = self.word(u64::from_ne_bytes(*word));
        }
        if rest.is_empty() {
            return self;
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_ne_bytes(last))
    }

    /// Adds eight bytes.
    #[inline]
    pub fn eight(self, bytes: [u8; 8]) -> Self {
        self.word(u64::from_ne_bytes(bytes))
    }

    #[inline]
    fn word(self, word: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(word);
        Self(sum + u64::from(carry))
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
        self.add_at(offset, Self::new().bytes(bytes))
    }

    /// Adds the sum of what starts at this offset of the whole, likewise.
    #[must_use]
    pub fn add_at(self, offset: usize, other: Self) -> Self {
        match offset.is_multiple_of(2) {
            true => self.word(other.0),
            false => self.word(u64::from(other.folded().swap_bytes())),
        }
    }

    /// Copies bytes, as many as there is room for, and sums them on the way: that takes hardly longer than to copy them.
    #[inline]
    pub fn of_copy(from: &[u8], to: &mut [u8]) -> Self {
        let n = from.len().min(to.len());
        let (from, to) = (&from[..n], &mut to[..n]);
        if n < LONG {
            to.copy_from_slice(from);
            return Self::new().short(from);
        }
        Self(long_copy(from, to))
    }

    /// The checksum: the complement of the sum, folded to 16 bits. Zero over data that carries a right one.
    pub fn finish(self) -> u16 {
        !u16::from_be(self.folded())
    }

    /// Whether this is a right sum of data that carries its checksum: whether [`finish`](Self::finish) is zero. Folding leaves the
    /// remainder by 2^16 - 1 as it is.
    #[inline]
    pub fn is_right(self) -> bool {
        self.0 != 0 && self.0.is_multiple_of(0xffff)
    }

    /// The sum in 16 bits, as they lie in memory.
    fn folded(self) -> u16 {
        // Two halves of 32 bits have 33, whose quarters of 16 have 18, and so on.
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }
}

/// Bytes from which on vectors are worth their preparation.
const LONG: usize = 128;

/// The sum of many bytes, in 64 bits, by the best vectors that the CPU has. That choice is made at run time, once.
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn long(bytes: &[u8]) -> u64 {
    match_target! {
        "x86_64+avx2" => avx2::sum(bytes),
        _ => widened(bytes),
    }
}

/// By what vectors the compiler knows of.
fn widened(bytes: &[u8]) -> u64 {
    // As wide as four vectors, so that no addition waits for the one before. There is no carry to handle until 2^32 words,
    // far beyond any frame.
    let mut sums = [0u64; 16];
    let (blocks, rest) = bytes.as_chunks::<64>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += u64::from(u32::from_ne_bytes(*word));
        }
    }
    Sum(sums.iter().sum()).short(rest).0
}

/// The same, and copies them to where there is as much room.
///
/// What is read has to be written, too, so it is not widened on the way: words of 64 bits are added whatever overflows, and their
/// upper halves once more by themselves. What these have added is known, so what is left of the first sum is the lower halves'.
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn long_copy(from: &[u8], to: &mut [u8]) -> u64 {
    let (mut sums, mut uppers) = ([0u64; 8], [0u64; 8]);
    let (blocks, rest) = from.as_chunks::<128>();
    let (rooms, rest_room) = to.as_chunks_mut::<128>();
    for (block, room) in blocks.iter().zip(rooms) {
        // Read once, for both.
        let block = *block;
        let (words, _) = block.as_chunks::<8>();
        let (rows, _) = words.as_chunks::<8>();
        for row in rows {
            for ((sum, upper), word) in sums.iter_mut().zip(&mut uppers).zip(row) {
                let word = u64::from_ne_bytes(*word);
                *sum = sum.wrapping_add(word);
                *upper += word >> 32;
            }
        }
        *room = block;
    }
    rest_room.copy_from_slice(rest);
    let lower = sums.iter().zip(&uppers).fold(0, |all, (sum, upper)| all + sum.wrapping_sub(upper << 32));
    Sum(lower).word(uppers.iter().sum()).short(rest).0
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

    /// Of all lengths and places, and where each addition has as much to carry as it can.
    #[test]
    fn a_sum_on_the_way_is_that_of_what_arrives() {
        let varied: Vec<u8> = (0..600u32).map(|at| (at * at / 7) as u8).collect();
        for data in [varied, vec![0xff; 600], vec![0; 600]] {
            for (start, place) in [(0, 0), (1, 0), (0, 1), (3, 5), (8, 4), (31, 33)] {
                for len in 0..500 {
                    let mut copy = vec![0xaa; 600];
                    let sum = Sum::of_copy(&data[start..start + len], &mut copy[place..place + len]);
                    assert_eq!(sum.finish(), naive(&data[start..start + len]));
                    assert_eq!(copy[place..place + len], data[start..start + len]);
                    let around = copy[..place].iter().chain(&copy[place + len..]);
                    assert!(around.into_iter().all(|&byte| byte == 0xaa), "not a byte more");
                }
            }
        }
        let full = vec![0xff; 65_536];
        assert_eq!(Sum::of_copy(&full, &mut vec![0; full.len()]).finish(), naive(&full));
    }

    #[test]
    fn the_longest_frames_of_the_least_and_the_greatest_words_overflow_nothing() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            for len in [65_535, 65_536, 65_536 + 63] {
                let bytes = vec![byte; len];
                assert_eq!(checksum(&bytes), naive(&bytes), "{len} times {byte}");
                assert_eq!(Sum(widened(&bytes)).finish(), naive(&bytes), "{len} times {byte}");
            }
        }
    }

    #[test]
    fn of_nothing_and_of_zeros_no_sum_is_right() {
        assert!(!Sum::new().is_right() && !Sum::new().bytes(&[0; 200]).is_right());
        assert!(Sum(0xffff).is_right() && Sum(u64::MAX).is_right());
    }

    proptest! {
        #[test]
        fn a_sum_is_right_if_the_checksum_of_all_is_zero(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..300),
            damage in proptest::option::of((any::<usize>(), 1u8..=255)),
            sum in prop_oneof![any::<u64>(), any::<u64>().prop_map(|n| n / 0xffff * 0xffff)],
        ) {
            prop_assert_eq!(Sum(sum).is_right(), Sum(sum).finish() == 0);
            bytes[..2].fill(0);
            let right = checksum(&bytes);
            bytes[..2].copy_from_slice(&right.to_be_bytes());
            if let Some((at, change)) = damage {
                let at = at % bytes.len();
                bytes[at] ^= change;
            }
            let sum = Sum::new().bytes(&bytes);
            prop_assert_eq!(sum.is_right(), naive(&bytes) == 0);
            prop_assert_eq!(damage.is_none() && bytes.iter().any(|&byte| byte != 0), sum.is_right());
        }

        #[test]
        fn without_the_newest_vectors_it_is_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(Sum(widened(&bytes)).finish(), naive(&bytes));
        }

        #[test]
        fn eight_bytes_are_eight_bytes(bytes in any::<[u8; 8]>()) {
            prop_assert_eq!(Sum::new().eight(bytes).finish(), naive(&bytes));
        }

        #[test]
        fn agrees_with_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn a_copy_is_one_and_has_the_same_sum(bytes in proptest::collection::vec(any::<u8>(), 0..3000), room in 0usize..3000) {
            let mut copy = vec![0; room];
            let n = room.min(bytes.len());
            prop_assert_eq!(Sum::of_copy(&bytes, &mut copy).finish(), naive(&bytes[..n]));
            prop_assert_eq!(&copy[..n], &bytes[..n]);
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
