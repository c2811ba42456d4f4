//! What the tests of all algorithms share.

use super::Acked;
use crate::time::Instant;

/// An ACK of so many bytes, of a window that was full.
pub(in crate::tcp) fn ack(bytes: usize) -> Acked {
    Acked {
        now: Instant::ZERO,
        bytes,
        in_flight: 10_000,
        rtt: None,
        srtt: None,
        round_start: false,
        cwnd_limited: true,
        paced: false,
    }
}
