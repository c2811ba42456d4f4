//! Slow start and congestion avoidance (RFC 5681), as NewReno uses them (RFC 6582).

use super::{Acked, CongestionControl, Signal, initial_window};
use crate::time::{Duration, Instant};

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
    /// Window and threshold before the last congestion.
    before: Option<(usize, usize)>,
}

impl Reno {
    /// A window of IW.
    pub fn new(mss: usize) -> Self {
        Self { mss, cwnd: initial_window(mss), ssthresh: usize::MAX, bytes_acked: 0, before: None }
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

    fn on_ack(&mut self, acked: &Acked) {
        if !acked.cwnd_limited {
            return;
        }
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

    fn on_congestion(&mut self, _now: Instant, signal: Signal, in_flight: usize) {
        self.before = Some((self.cwnd, self.ssthresh));
        self.halve(in_flight);
        self.cwnd = if signal == Signal::Timeout { self.mss } else { self.ssthresh };
    }

    fn on_spurious(&mut self, _now: Instant) {
        if let Some((cwnd, ssthresh)) = self.before.take() {
            self.cwnd = self.cwnd.max(cwnd);
            self.ssthresh = self.ssthresh.max(ssthresh);
        }
    }

    fn on_idle(&mut self, _now: Instant, _idle: Duration, _rto: Duration) {
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
        Acked {
            now: Instant::ZERO,
            bytes,
            in_flight: 10 * MSS,
            rtt: None,
            srtt: None,
            round_start: false,
            cwnd_limited: true,
        }
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
            reno.on_ack(&ack(MSS));
        }
        assert_eq!(reno.cwnd(), 20 * MSS);
        reno.on_ack(&ack(50 * MSS));
        assert_eq!(reno.cwnd(), 22 * MSS, "one ACK opens by two segments at most");
        reno.on_congestion(Instant::ZERO, Signal::Loss, 22 * MSS);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (11 * MSS, 11 * MSS));
        for _ in 0..11 {
            reno.on_ack(&ack(MSS));
        }
        assert_eq!(reno.cwnd(), 12 * MSS);
    }

    #[test]
    fn what_was_no_congestion_is_undone_rfc4015() {
        let mut reno = Reno::new(MSS);
        reno.on_congestion(Instant::ZERO, Signal::Timeout, 10 * MSS);
        reno.on_spurious(Instant::ZERO);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (10 * MSS, usize::MAX));
        reno.on_spurious(Instant::ZERO);
        assert_eq!(reno.cwnd(), 10 * MSS, "once");
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_half_the_flight_as_threshold_rfc5681_3_1() {
        let mut reno = Reno::new(MSS);
        reno.on_congestion(Instant::ZERO, Signal::Timeout, 3 * MSS);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (MSS, 2 * MSS), "never below two segments");
    }
}
