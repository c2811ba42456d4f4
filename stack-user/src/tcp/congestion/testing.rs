//! What the tests of all algorithms share.

use super::{Acked, Delivered};
use crate::{
    tcp::delivery_rate::Sample,
    time::{Duration, Instant},
};

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

/// An ACK of so many bytes, that nothing is known of but that it came after so long a round trip.
pub(in crate::tcp) fn delivered(now: Instant, bytes: usize, rtt: Duration) -> Delivered {
    Delivered {
        now,
        bytes,
        total: bytes as u64,
        in_flight: 0,
        sample: Some(Sample {
            delivered: bytes as u64,
            interval: rtt,
            prior_delivered: 0,
            in_flight: bytes,
            prior_lost: 0,
            app_limited: false,
        }),
        lost_since_sent: 0,
        rtt: Some(rtt),
        lost: None,
        cwnd_limited: true,
        recovering: false,
        sack: true,
    }
}
