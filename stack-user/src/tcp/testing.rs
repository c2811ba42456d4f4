//! What the unit tests of this layer share.

use crate::{
    device::Umem,
    frame::{FramePool, RxFrame},
};

/// A received frame that holds `bytes`.
pub(super) fn rx_frame(pool: &mut Umem, bytes: &[u8]) -> RxFrame {
    pool.receive_whole(bytes).expect("chunks")
}
