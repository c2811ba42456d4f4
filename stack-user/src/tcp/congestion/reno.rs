//! Slow start and congestion avoidance (RFC 5681), as NewReno uses them (RFC 6582).

use super::{
    Acked, CongestionControl, Rest, Signal, initial_window, shrink_with_mss,
    slow_start::{Growth, SlowStart},
};
use crate::time::{Duration, Instant};

/// The smallest ssthresh, in segments (RFC 5681 §3.1, equation 4).
const MIN_SSTHRESH: usize = 2;

/// RFC 5681.
#[derive(Clone, Debug)]
pub struct Reno {
    mss: usize,
    cwnd: usize,
    ssthresh: usize,
    slow_start: SlowStart,
    /// Bytes acknowledged since the window grew last, in congestion avoidance (RFC 3465 §2.1).
    bytes_acked: usize,
    /// Window and threshold before the last congestion.
    before: Option<(usize, usize)>,
}

impl Reno {
    /// A window of IW.
    pub fn new(mss: usize) -> Self {
        Self {
            mss,
            cwnd: initial_window(mss),
            ssthresh: usize::MAX,
            slow_start: SlowStart::default(),
            bytes_acked: 0,
            before: None,
        }
    }

    fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    fn grow_in_slow_start(&mut self, acked: &Acked) {
        let Growth { bytes, done } = self.slow_start.on_ack(acked, self.mss, self.ssthresh);
        self.cwnd += bytes;
        if done {
            self.ssthresh = self.cwnd;
        }
        if !self.in_slow_start() {
            self.slow_start.on_end();
        }
    }

    /// A segment per window (RFC 5681 §3.1, RFC 3465 §2.1).
    fn avoid_congestion(&mut self, acked: &Acked) {
        if !acked.cwnd_limited {
            return;
        }
        self.bytes_acked += acked.bytes;
        if self.bytes_acked >= self.cwnd {
            self.bytes_acked -= self.cwnd;
            self.cwnd += self.mss;
        }
    }

    /// What a signal leaves of `in_flight`: half of it (RFC 5681 §3.1, equation 4); four fifths after a mark of ECN in
    /// congestion avoidance (RFC 8511 §3.1).
    fn reduced(&self, signal: Signal, in_flight: usize) -> usize {
        if signal == Signal::Ecn && !self.in_slow_start() { in_flight / 5 * 4 } else { in_flight / 2 }
    }
}

impl CongestionControl for Reno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn cwnd(&self) -> usize {
        self.cwnd
    }

    fn ssthresh(&self) -> usize {
        self.ssthresh
    }

    fn on_ack(&mut self, acked: &Acked) {
        if self.in_slow_start() {
            self.grow_in_slow_start(acked);
        } else {
            self.avoid_congestion(acked);
        }
    }

    fn on_congestion(&mut self, _now: Instant, signal: Signal, in_flight: usize) {
        self.before = Some((self.cwnd, self.ssthresh));
        // Limited transmit has more in flight than the window, which must not count (RFC 5681 §3.2).
        let reduced = self.reduced(signal, in_flight.min(self.cwnd));
        self.ssthresh = reduced.max(MIN_SSTHRESH * self.mss);
        self.bytes_acked = 0;
        self.cwnd = match signal {
            Signal::Loss => self.ssthresh,
            // RFC 3168 §6.1.2: marks go on to count until one segment is left.
            Signal::Ecn => reduced.max(self.mss),
            Signal::Timeout => self.mss,
        };
        if signal == Signal::Timeout {
            self.slow_start.on_timeout();
        }
    }

    fn on_spurious(&mut self, _now: Instant) {
        if let Some((cwnd, ssthresh)) = self.before.take() {
            self.cwnd = self.cwnd.max(cwnd);
            self.ssthresh = self.ssthresh.max(ssthresh);
            self.slow_start.on_end();
        }
    }

    /// RFC 7661 §4.4.1.
    fn on_recovered(&mut self, repaired: usize) {
        self.cwnd = self.cwnd.saturating_sub(repaired / 2).max(self.mss).min(self.cwnd);
        self.ssthresh = self.cwnd.max(MIN_SSTHRESH * self.mss);
    }

    fn on_idle(&mut self, _now: Instant, idle: Duration, rto: Duration) {
        if idle > rto {
            self.cwnd = self.cwnd.min(initial_window(self.mss));
        }
    }

    fn on_unused(&mut self) {
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        self.cwnd = (self.cwnd / 2).max(initial_window(self.mss)).min(self.cwnd);
    }

    fn set_mss(&mut self, mss: usize) {
        self.cwnd = shrink_with_mss(self.cwnd, self.mss, mss);
        self.mss = mss;
    }

    fn restart_from_one_segment(&mut self) {
        self.cwnd = self.mss;
        self.slow_start.on_timeout();
    }

    fn rest(&self) -> Option<Rest> {
        let is_plain = self.before.is_none() && self.bytes_acked == 0;
        let round_min_rtt = self.slow_start.rest().filter(|_| is_plain)?;
        Rest::of(self.mss, self.cwnd, self.ssthresh, round_min_rtt)
    }

    fn resume(&mut self, rest: &Rest) {
        self.cwnd = rest.cwnd as usize;
        self.slow_start = SlowStart::resume(rest.round_min_rtt);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::ack, *};

    const MSS: usize = 1000;

    #[test]
    fn slow_start_doubles_and_avoidance_adds_a_segment_a_round_rfc5681_3_1() {
        let mut reno = Reno::new(MSS);
        for _ in 0..10 {
            reno.on_ack(&ack(MSS));
        }
        assert_eq!(reno.cwnd(), 20 * MSS);
        reno.on_congestion(Instant::ZERO, Signal::Loss, 22 * MSS);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (10 * MSS, 10 * MSS), "what is beyond the window does not count");
        for _ in 0..10 {
            reno.on_ack(&ack(MSS));
        }
        assert_eq!(reno.cwnd(), 11 * MSS);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_half_the_flight_as_threshold_rfc5681_3_1() {
        let mut reno = Reno::new(MSS);
        reno.on_congestion(Instant::ZERO, Signal::Timeout, 3 * MSS);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (MSS, 2 * MSS), "never below two segments");
    }

    #[test]
    fn a_mark_leaves_four_fifths_in_avoidance_and_half_in_slow_start_rfc8511_3_1() {
        let mut reno = Reno::new(MSS);
        reno.on_congestion(Instant::ZERO, Signal::Ecn, 10 * MSS);
        assert_eq!(reno.cwnd(), 5 * MSS);
        reno.on_congestion(Instant::ZERO, Signal::Ecn, 5 * MSS);
        assert_eq!(reno.cwnd(), 4 * MSS);
    }

    #[test]
    fn marks_count_until_one_segment_is_left_rfc3168_6_1_2() {
        let mut reno = Reno::new(MSS);
        for left in [1_500, 1_000, 1_000] {
            reno.on_congestion(Instant::ZERO, Signal::Ecn, 3 * MSS);
            assert_eq!((reno.cwnd(), reno.ssthresh()), (left, 2 * MSS));
        }
    }
}
