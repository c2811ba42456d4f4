//! Received bytes: in the frame that brought them, or copied to the heap.

use crate::frame::{FramePool, RxFrame};

/// A payload of up to this size is copied to the heap when it would wait behind others. A chunk holds 4096 bytes:
/// with a lower bound a peer that sends small segments pins many times the memory that the window allows; with a
/// higher one we copy what a full segment of a small-MSS path could keep in place.
pub const COMPACT_LEN: usize = 512;

/// When less than this part of the pool's chunks is free, whatever has to wait is copied, so that the NIC always
/// has chunks to receive into.
const PRESSURE_SHARE: usize = 4;

/// Bytes that wait, in order or out of order.
#[derive(Debug)]
pub enum Payload {
    /// In their frame.
    Frame(RxFrame),
    /// Copied.
    Heap(Vec<u8>),
}

impl Payload {
    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Heap(bytes) => bytes.len(),
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts `n` bytes off the front.
    pub fn trim_front(&mut self, n: usize) {
        match self {
            Self::Frame(frame) => frame.trim_front(n),
            Self::Heap(bytes) => drop(bytes.drain(..n.min(bytes.len()))),
        }
    }

    /// Keeps at most the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Self::Frame(frame) => frame.truncate(len),
            Self::Heap(bytes) => bytes.truncate(len),
        }
    }

    /// The bytes.
    pub fn bytes<'a, P: FramePool>(&'a self, pool: &'a P) -> &'a [u8] {
        match self {
            Self::Frame(frame) => pool.rx_bytes(frame),
            Self::Heap(bytes) => bytes,
        }
    }

    /// Done with the bytes.
    pub fn release<P: FramePool>(self, pool: &mut P) {
        if let Self::Frame(frame) = self {
            pool.release_rx(frame);
        }
    }
}

/// Whether chunks are so scarce that waiting data must not hold any.
pub fn under_pressure<P: FramePool>(pool: &P) -> bool {
    pool.available() < pool.chunks() / PRESSURE_SHARE
}
