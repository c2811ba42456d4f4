//! What the tests of this layer share: a peer that follows a script, and a network that loses what it likes.

mod script;
mod world;

pub(super) use script::{Script, Seg, all_options, pattern, plain_options, sack_options, seg};
pub(super) use world::{Faults, World};

use crate::{
    device::Umem,
    frame::{FramePool, RxFrame},
};

/// A received frame that holds `bytes`.
pub(super) fn rx_frame(pool: &mut Umem, bytes: &[u8]) -> RxFrame {
    let free = pool.allocate().expect("a chunk");
    let mut frame = free.into_rx(256, bytes.len() as u16);
    pool.rx_bytes_mut(&mut frame).copy_from_slice(bytes);
    frame
}
