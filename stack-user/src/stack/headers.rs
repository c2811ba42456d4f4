//! The headers in front of a connection's segment, kept for those that follow it.
//!
//! What a connection sends at one time goes one way, and says the same to IP: for a segment that is as long as the one before,
//! the bytes of both headers are the same. They are copied instead of being made again.

use super::TcpId;
use crate::{
    frame::{FramePool, TxFrame},
    time::Instant,
    wire::{IpFields, ethernet, ipv4},
};

/// Bytes of the longest that is kept.
const MAX_LEN: usize = ethernet::LEN + ethernet::VLAN_LEN + ipv4::LEN;

/// What the bytes follow from. As long as all of it is the same, so are they.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) id: TcpId,
    /// Also what a look-up of the neighbour is good for.
    pub(super) now: Instant,
    pub(super) fields: IpFields,
    /// Bytes of the frame.
    pub(super) len: usize,
    /// How often addresses and neighbours have changed.
    pub(super) changes: (u64, u64),
}

/// The last headers.
#[derive(Debug)]
pub(super) struct Headers {
    cause: Cause,
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Headers {
    /// Those of a frame: its first `len` bytes. `None` if they are longer than any that we know.
    pub(super) fn of<P: FramePool>(cause: Cause, pool: &P, frame: &TxFrame, len: usize) -> Option<Self> {
        let mut bytes = [0; MAX_LEN];
        bytes.get_mut(..len)?.copy_from_slice(pool.tx_bytes(frame).get(..len)?);
        Some(Self { cause, bytes, len })
    }

    /// Writes them into a frame that has the same.
    pub(super) fn write<P: FramePool>(&self, cause: &Cause, pool: &mut P, frame: &mut TxFrame) -> bool {
        if self.cause != *cause {
            return false;
        }
        let (Some(room), Some(bytes)) =
            (pool.tx_buffer(frame).get_mut(..self.len), self.bytes.get(..self.len))
        else {
            return false;
        };
        room.copy_from_slice(bytes);
        true
    }
}
