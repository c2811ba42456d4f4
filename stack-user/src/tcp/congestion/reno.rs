//! Slow start and congestion avoidance (RFC 5681), as NewReno uses them (RFC 6582).

use super::{Acked, CongestionControl, initial_window};
use crate::time::Instant;

/// In slow start, one ACK opens the window by at most this many segments (RFC 3465 §2.3, L): a peer that acknowledges
/// every second segment does not slow us, and a stretched ACK does not cause a burst.
const SEGMENTS_PER_ACK: usize = 2;

/// RFC 5681.
#[derive(Debug)]
pub struct Reno {
    mss: usize,
    cwnd: usize,
    ssthresh: usize,
    /// Bytes acknowledged since the window grew last, in congestion avoidance (RFC 3465 §2.1).
    bytes_acked: usize,
}

impl Reno {
    /// A window of IW.
    pub fn new(mss: usize) -> Self {
        Self { mss, cwnd: initial_window(mss), ssthresh: usize::MAX, bytes_acked: 0 }
    }

    /// RFC 5681 §3.1, equation 4.
    fn halve(&mut self, in_flight: usize) {
        self.ssthresh = (in_flight / 2).max(2 * self.mss);
        self.bytes_acked = 0;
    }
}

impl CongestionControl for Reno {
    fn name(&self) -> &'static str {
        "newreno"
    }

    fn cwnd(&self) -> usize {
        self.cwnd
    }

    fn ssthresh(&self) -> usize {
        self.ssthresh
    }

    fn on_ack(&mut self, acked: Acked) {
        if self.cwnd < self.ssthresh {
            self.cwnd += acked.bytes.min(SEGMENTS_PER_ACK * self.mss);
            return;
        }
        self.bytes_acked += acked.bytes;
        if self.bytes_acked >= self.cwnd {
            self.bytes_acked -= self.cwnd;
            self.cwnd += self.mss;
        }
    }

    fn on_congestion(&mut self, _now: Instant, in_flight: usize) {
        self.halve(in_flight);
        self.cwnd = self.ssthresh;
    }

    fn on_timeout(&mut self, _now: Instant, in_flight: usize) {
        self.halve(in_flight);
        self.cwnd = self.mss;
    }

    fn on_idle(&mut self) {
        self.cwnd = self.cwnd.min(initial_window(self.mss));
    }

    fn set_mss(&mut self, mss: usize) {
        // A window of as many segments as before, so that smaller ones don't stall it.
        self.cwnd = (self.cwnd / self.mss.max(1)).max(1) * mss;
        self.mss = mss;
    }

    fn restart_from_one_segment(&mut self) {
        self.cwnd = self.mss;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1000;

    fn ack(bytes: usize) -> Acked {
        Acked { now: Instant::ZERO, bytes, in_flight: 10 * MSS, srtt: None }
    }

    #[test]
    fn initial_window_rfc6928() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(9_000), 18_000);
    }

    #[test]
    fn slow_start_doubles_and_avoidance_adds_a_segment_a_round_rfc5681_3_1() {
        let mut reno = Reno::new(MSS);
        for _ in 0..10 {
            reno.on_ack(ack(MSS));
        }
        assert_eq!(reno.cwnd(), 20 * MSS);
        reno.on_ack(ack(50 * MSS));
        assert_eq!(reno.cwnd(), 22 * MSS, "one ACK opens by two segments at most");
        reno.on_congestion(Instant::ZERO, 22 * MSS);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (11 * MSS, 11 * MSS));
        for _ in 0..11 {
            reno.on_ack(ack(MSS));
        }
        assert_eq!(reno.cwnd(), 12 * MSS);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_half_the_flight_as_threshold_rfc5681_3_1() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(Instant::ZERO, 3 * MSS);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (MSS, 2 * MSS), "never below two segments");
    }
}
