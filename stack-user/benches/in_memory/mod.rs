//! One bulk stream between two ends in memory, on one core and on virtual time, with checksums on: over our stacks, over a
//! pair of smoltcp's, and as the copies and sums alone that no TCP can do without.

#![allow(dead_code, reason = "each benchmark uses a part")]

pub(crate) mod floor;
pub(crate) mod many;
pub(crate) mod ours;
pub(crate) mod smoltcp;

/// What a link carries in one piece.
pub(crate) const MTU: usize = 1500;

/// Bytes that the application writes, and reads, at a time at most.
pub(crate) const APPLICATION_BUFFER: usize = 64 << 10;

/// Frames that a side hands over before the other one has its turn, as on a ring.
pub(crate) const BURST: usize = 32;

/// A stream that has been opened.
pub(crate) trait Stream {
    /// Carries so many bytes, or a few more, from the writer's application to the reader's.
    fn carry(&mut self, bytes: usize);

    /// Bytes of payload in a full segment.
    fn segment(&self) -> usize;
}

/// What is written: bytes of all values, in no short period.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
