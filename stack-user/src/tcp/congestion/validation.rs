//! Windows that are not used (RFC 7661): what an application leaves unused for long says nothing about the path.
//!
//! *pipeACK* is what the peer acknowledges in a round trip. While it is less than half of the window, the window is *not
//! validated*: it does not grow; should there be congestion, what was really in flight is reduced; and after five minutes
//! half of it is given up. In return a pause does not throw all of it away, as RFC 5681 §4.1 does, so that an application
//! that sends now and then need not start anew each time. RFC 7661 §4.4.2 asks for pacing then; without that, a pause is
//! what it is in RFC 5681.
//!
//! All of this lies around an algorithm, and no algorithm knows of it.

use super::{Acked, CongestionControl, Delivered, Rest, Signal, rest::Validation};
use crate::time::{Duration, Instant};

/// The non-validated period (RFC 7661 §4.4.3): how long a window is kept that is not used.
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(300);

/// The shortest pipeACK sampling period (RFC 7661 §4.2); else it is three round trips.
const MIN_SAMPLING_PERIOD: Duration = Duration::from_secs(1);
const SAMPLING_ROUNDS: u32 = 3;

/// An algorithm whose window has to be used to grow and to stay.
#[derive(Clone, Debug)]
pub(super) struct Validated {
    inner: Box<dyn CongestionControl>,
    /// What is set free by a window leaves spread over the round trip.
    paced: bool,
    pipe_ack: PipeAck,
    /// The present round trip, if its beginning was seen.
    round: Option<Round>,
    /// Since when the window has not been validated, or was last made smaller for that.
    unused_since: Option<Instant>,
    /// The present recovery is from a loss that came while the window was not validated.
    lost_unvalidated: bool,
    last_ack: Instant,
}

/// A round trip.
#[derive(Clone, Debug)]
struct Round {
    acked: usize,
    /// The window when it began, which is what could have been acknowledged.
    cwnd: usize,
}

/// pipeACK (RFC 7661 §4.2): the most that was acknowledged in any round trip of the sampling period.
#[derive(Clone, Debug, Default)]
struct PipeAck {
    /// The most of the present and of the last period. Between them they cover one period at least, and two at most.
    present: Option<usize>,
    last: Option<usize>,
    started: Instant,
}

impl PipeAck {
    fn sample(&mut self, now: Instant, srtt: Option<Duration>, bytes: usize) {
        let period = MIN_SAMPLING_PERIOD.max(srtt.unwrap_or_default() * SAMPLING_ROUNDS);
        let periods = now.since(self.started).as_nanos() / period.as_nanos().max(1);
        if periods > 0 {
            self.last = self.present.take().filter(|_| periods == 1);
            self.started = now;
        }
        self.present = self.present.max(Some(bytes));
    }

    /// None is *undefined*: nothing is known, and the window is taken for validated.
    fn get(&self) -> Option<usize> {
        self.present.max(self.last)
    }
}

impl Validated {
    /// Validated, and with pipeACK undefined (RFC 7661 §4.1).
    pub(super) fn new(inner: Box<dyn CongestionControl>, paced: bool) -> Self {
        Self {
            inner,
            paced,
            pipe_ack: PipeAck::default(),
            round: None,
            unused_since: None,
            lost_unvalidated: false,
            last_ack: Instant::ZERO,
        }
    }

    /// RFC 7661 §4.3: at the end of a round trip, is half of its window what was acknowledged?
    fn end_round(&mut self, now: Instant, srtt: Option<Duration>) {
        if let Some(round) = &self.round {
            self.pipe_ack.sample(now, srtt, round.acked);
            let validated = self.pipe_ack.get().is_none_or(|pipe_ack| pipe_ack >= round.cwnd / 2);
            self.unused_since = if validated { None } else { self.unused_since.or(Some(now)) };
        }
        self.round = Some(Round { acked: 0, cwnd: self.inner.cwnd() });
    }

    /// RFC 7661 §4.4.3.
    fn expire(&mut self, now: Instant) {
        while let Some(since) = self.unused_since
            && now.since(since) >= NON_VALIDATED_PERIOD
        {
            let before = self.inner.cwnd();
            self.inner.on_unused();
            self.unused_since = (self.inner.cwnd() < before).then(|| since + NON_VALIDATED_PERIOD);
        }
    }

    fn forget(&mut self) {
        self.pipe_ack = PipeAck::default();
        self.unused_since = None;
        self.round = None;
        self.lost_unvalidated = false;
    }
}

impl CongestionControl for Validated {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn cwnd(&self) -> usize {
        self.inner.cwnd()
    }

    fn ssthresh(&self) -> usize {
        self.inner.ssthresh()
    }

    fn on_ack(&mut self, acked: &Acked) {
        if let Some(round) = &mut self.round {
            round.acked = round.acked.saturating_add(acked.bytes);
        }
        self.last_ack = acked.now;
        if acked.round_start {
            self.end_round(acked.now, acked.srtt);
        }
        self.expire(acked.now);
        // RFC 7661 §4.4: a window that is not validated does not grow.
        let cwnd_limited = acked.cwnd_limited && self.unused_since.is_none();
        self.inner.on_ack(&Acked { cwnd_limited, ..*acked });
    }

    /// An algorithm that measures the path knows which of its samples the application has limited: nothing is kept from it.
    fn on_delivered(&mut self, delivered: &Delivered) {
        self.inner.on_delivered(delivered);
    }

    fn is_reduced_by_loss(&self) -> bool {
        self.inner.is_reduced_by_loss()
    }

    /// RFC 7661 §4.4.1: what the path has borne is what is reduced, if that is known better than by the window. A time-out
    /// is what it always is (§4.4).
    fn on_congestion(&mut self, now: Instant, signal: Signal, in_flight: usize) {
        let is_unvalidated = self.unused_since.is_some() && signal != Signal::Timeout;
        let borne = self.pipe_ack.get().filter(|_| is_unvalidated).unwrap_or_default();
        self.inner.on_congestion(now, signal, in_flight.max(borne));
        self.forget();
        self.lost_unvalidated = is_unvalidated;
    }

    /// RFC 7661 §4.4.1: the window that was not validated was too large by what was lost, at least.
    fn on_recovered(&mut self, repaired: usize) {
        if core::mem::take(&mut self.lost_unvalidated) {
            self.inner.on_recovered(repaired);
        }
    }

    fn on_spurious(&mut self, now: Instant) {
        self.inner.on_spurious(now);
        self.forget();
    }

    fn on_idle(&mut self, now: Instant, idle: Duration, rto: Duration) {
        if !self.paced || idle <= rto {
            return self.inner.on_idle(now, idle, rto);
        }
        // Nothing was acknowledged in all that time, so the window was not used since the last ACK came.
        self.unused_since.get_or_insert(self.last_ack);
        self.expire(now);
        self.inner.on_idle(now, rto, rto);
    }

    fn on_unused(&mut self) {
        self.inner.on_unused();
    }

    fn set_mss(&mut self, mss: usize) {
        self.inner.set_mss(mss);
    }

    fn restart_from_one_segment(&mut self) {
        self.inner.restart_from_one_segment();
        self.forget();
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.inner.pacing_rate()
    }

    fn rest(&self) -> Option<Rest> {
        let small = |bytes: Option<usize>| bytes.map(u32::try_from).transpose().ok();
        let Self { inner, paced: _, pipe_ack, round, unused_since, lost_unvalidated, last_ack } = self;
        let round = match round {
            Some(round) => Some((round.acked.try_into().ok()?, round.cwnd.try_into().ok()?)),
            None => None,
        };
        let validation = Validation {
            present: small(pipe_ack.present)?,
            last: small(pipe_ack.last)?,
            started: pipe_ack.started,
            round,
            unused_since: *unused_since,
            last_ack: *last_ack,
        };
        let rest = inner.rest().filter(|_| !lost_unvalidated)?;
        Some(Rest { validation, ..rest })
    }

    fn resume(&mut self, rest: &Rest) {
        let Validation { present, last, started, round, unused_since, last_ack } = rest.validation;
        let large = |bytes: u32| bytes as usize;
        self.inner.resume(rest);
        self.pipe_ack = PipeAck { present: present.map(large), last: last.map(large), started };
        self.round = round.map(|(acked, cwnd)| Round { acked: large(acked), cwnd: large(cwnd) });
        (self.unused_since, self.last_ack) = (unused_since, last_ack);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Algorithm, testing::ack},
        *,
    };

    const MSS: usize = 1000;
    const RTT: Duration = Duration::from_millis(100);

    struct Path {
        controller: Validated,
        now: Instant,
    }

    /// Those whose window ACKs open. A model of the path has its own answer to an application that sends little.
    fn window_based() -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.iter().copied().filter(|algorithm| algorithm.build(MSS).is_reduced_by_loss())
    }

    fn path(algorithm: Algorithm, paced: bool) -> Path {
        let controller = Validated::new(algorithm.build(MSS), paced);
        Path { controller, now: Instant::from_millis(1_000) }
    }

    impl Path {
        /// A round trip in which so many segments are acknowledged.
        fn round(&mut self, segments: usize, cwnd_limited: bool) {
            for i in 0..segments {
                self.now += RTT / segments as u32;
                self.controller.on_ack(&Acked {
                    now: self.now,
                    srtt: Some(RTT),
                    // The last ACK of a flight begins the next round trip.
                    round_start: i + 1 == segments,
                    cwnd_limited,
                    ..ack(MSS)
                });
            }
        }

        /// Round trips that use all of the window.
        fn fill(&mut self, rounds: usize) {
            for _ in 0..rounds {
                self.round(self.controller.cwnd() / MSS, true);
            }
        }
    }

    #[test]
    fn slow_start_is_use_enough_rfc7661_4_3() {
        for algorithm in window_based() {
            let mut path = path(algorithm, true);
            path.fill(4);
            assert_eq!(path.controller.cwnd(), 160 * MSS, "{algorithm}");
            assert_eq!(path.controller.unused_since, None);
        }
    }

    /// RFC 7661 §4.1, §4.2: from undefined, and the most of the last seconds counts.
    #[test]
    fn a_window_that_is_not_used_neither_grows_nor_shrinks_for_five_minutes_rfc7661_4_4() {
        for algorithm in window_based() {
            let mut path = path(algorithm, true);
            path.fill(4);
            let start = path.now;
            // As long as the last full round trip is remembered, the window counts as used.
            (0..30).for_each(|_| path.round(4, false));
            while path.now.since(start) < Duration::from_secs(299) {
                path.round(4, true);
            }
            assert_eq!(path.controller.cwnd(), 160 * MSS, "{algorithm}");
            assert!(path.controller.unused_since.is_some());
            while path.now.since(start) < Duration::from_secs(310) {
                path.round(4, true);
            }
            assert_eq!(path.controller.cwnd(), 80 * MSS, "RFC 7661 §4.4.3");
            path.fill(1);
            assert_eq!(path.controller.unused_since, None, "used again, so validated");
        }
    }

    #[test]
    fn congestion_reduces_what_was_borne_rfc7661_4_4_1() {
        let mut path = path(Algorithm::NewReno, true);
        path.fill(4);
        for _ in 0..30 {
            path.round(20, false);
        }
        path.controller.on_congestion(path.now, Signal::Loss, 5 * MSS);
        assert_eq!(path.controller.cwnd(), 10 * MSS, "half of the 20 of a round trip, not of 160, nor of 5");
        assert_eq!(path.controller.pipe_ack.get(), None, "and nothing is known any more");
        path.controller.on_recovered(4 * MSS);
        assert_eq!(path.controller.cwnd(), 8 * MSS, "half of 20 - 4");
        assert_eq!(path.controller.ssthresh(), 8 * MSS);
        path.controller.on_recovered(4 * MSS);
        assert_eq!(path.controller.cwnd(), 8 * MSS, "once");
    }

    #[test]
    fn what_was_repaired_counts_only_for_a_window_that_was_not_used_rfc7661_4_4_1() {
        for algorithm in window_based() {
            let mut path = path(algorithm, true);
            path.fill(4);
            path.controller.on_congestion(path.now, Signal::Loss, 160 * MSS);
            let window = path.controller.cwnd();
            path.controller.on_recovered(50 * MSS);
            assert_eq!(path.controller.cwnd(), window, "{algorithm}: validated");

            (0..30).for_each(|_| path.round(4, false));
            path.controller.on_congestion(path.now, Signal::Loss, 4 * MSS);
            path.controller.on_recovered(50 * MSS);
            assert_eq!((path.controller.cwnd(), path.controller.ssthresh()), (MSS, 2 * MSS), "{algorithm}");
        }
    }

    /// RFC 7661 §4.4: after a time-out, all is as RFC 5681 has it.
    #[test]
    fn a_timeout_is_as_it_is_with_a_window_that_was_used_rfc7661_4_4() {
        let mut path = path(Algorithm::NewReno, true);
        path.fill(4);
        (0..30).for_each(|_| path.round(20, false));
        path.controller.on_congestion(path.now, Signal::Timeout, 6 * MSS);
        assert_eq!((path.controller.cwnd(), path.controller.ssthresh()), (MSS, 3 * MSS));
        path.controller.on_recovered(4 * MSS);
        assert_eq!(path.controller.cwnd(), MSS);
    }

    #[test]
    fn a_pause_keeps_the_window_if_what_follows_is_paced_rfc7661_4_4_2() {
        for algorithm in window_based() {
            for (pause, paced, left) in [(60, true, 160), (400, true, 80), (700, true, 40), (60, false, 10)] {
                let mut path = path(algorithm, paced);
                path.fill(4);
                let pause = Duration::from_secs(pause);
                path.now += pause;
                path.controller.on_idle(path.now, pause, Duration::from_millis(300));
                assert_eq!(path.controller.cwnd(), left * MSS, "{algorithm}, {pause:?}, paced: {paced}");
            }
            let mut path = path(algorithm, true);
            path.fill(4);
            path.now += Duration::from_secs(1_000_000);
            path.controller.on_idle(path.now, Duration::from_secs(1_000_000), Duration::from_millis(300));
            assert_eq!(path.controller.cwnd(), 10 * MSS, "never below IW");
        }
    }
}
