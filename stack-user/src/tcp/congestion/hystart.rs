//! HyStart++ (RFC 9406): leaves the first slow start when round trips grow, before a queue overflows.
//!
//! A rise of the round trip is a hint that a queue builds up, and may be noise. So the window first grows on slowly for
//! some rounds (Conservative Slow Start, CSS); if the round trip falls again meanwhile, slow start resumes.

use super::Acked;
use crate::time::Duration;

/// The smallest rise that counts (RFC 9406 §4.3). Less is the jitter of a LAN.
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);

/// The largest rise that is waited for (RFC 9406 §4.3). More would let long paths fill long queues.
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);

/// Between these bounds, a rise counts from this part of the round trip on (RFC 9406 §4.3).
const MIN_RTT_DIVISOR: u32 = 8;

/// Samples of a round without which nothing is concluded from it (RFC 9406 §4.3).
const N_RTT_SAMPLE: u32 = 8;

/// CSS grows by this part of what slow start would (RFC 9406 §4.3).
const CSS_GROWTH_DIVISOR: usize = 4;

/// Rounds of CSS after which slow start is over (RFC 9406 §4.3).
const CSS_ROUNDS: u32 = 5;

/// The state of RFC 9406 §4.2.
#[derive(Clone, Debug, Default)]
pub(super) struct HyStart {
    /// lastRoundMinRTT.
    last_round: Option<Duration>,
    /// currentRoundMinRTT.
    this_round: Option<Duration>,
    /// rttSampleCount.
    samples: u32,
    css: Option<Css>,
}

/// Conservative Slow Start.
#[derive(Clone, Debug)]
struct Css {
    /// cssBaselineMinRtt: the round trip that caused this. If it falls below, that was a false alarm.
    baseline: Duration,
    /// Rounds that have ended in CSS; the one in which it began counts as a whole.
    rounds: u32,
}

/// What follows from an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Grow in full.
    SlowStart,
    /// Grow by this divisor less.
    Conservative {
        /// CSS_GROWTH_DIVISOR.
        divisor: usize,
    },
    /// Slow start is over: ssthresh becomes what the window is.
    Done,
}

impl HyStart {
    /// An ACK of new data in the first slow start.
    pub(super) fn on_ack(&mut self, acked: &Acked) -> Verdict {
        if acked.round_start && self.next_round() {
            return Verdict::Done;
        }
        if let Some(rtt) = acked.rtt {
            self.this_round = Some(self.this_round.map_or(rtt, |min| min.min(rtt)));
            self.samples += 1;
        }
        if self.samples >= N_RTT_SAMPLE {
            self.judge();
        }
        match self.css {
            Some(_) => Verdict::Conservative { divisor: CSS_GROWTH_DIVISOR },
            None => Verdict::SlowStart,
        }
    }

    /// currentRoundMinRTT, if the connection rests and that is all there is to remember: the next ACK begins a round.
    pub(super) fn rest(&self) -> Option<Option<Duration>> {
        self.css.is_none().then_some(self.this_round)
    }

    /// Goes on after a rest.
    pub(super) fn resume(round_min_rtt: Option<Duration>) -> Self {
        Self { this_round: round_min_rtt, ..Self::default() }
    }

    /// RFC 9406 §4.2: at the start of each round. Returns whether CSS has lasted long enough.
    fn next_round(&mut self) -> bool {
        self.last_round = self.this_round.take();
        self.samples = 0;
        let Some(css) = &mut self.css else { return false };
        css.rounds += 1;
        css.rounds >= CSS_ROUNDS
    }

    /// RFC 9406 §4.2: enters CSS when the round trip has risen, leaves it when it has fallen.
    fn judge(&mut self) {
        let Some(now) = self.this_round else { return };
        match (&self.css, self.last_round) {
            (Some(css), _) if now < css.baseline => self.css = None,
            (None, Some(last)) => {
                let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if now >= last + threshold {
                    self.css = Some(Css { baseline: now, rounds: 0 });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::ack, *};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A round of `n` ACKs that measure `rtt`; returns the last verdict.
    fn round(hystart: &mut HyStart, n: u32, rtt: Duration) -> Verdict {
        let verdicts =
            (0..n).map(|i| hystart.on_ack(&Acked { rtt: Some(rtt), round_start: i == 0, ..ack(1000) }));
        verdicts.last().expect("a round has ACKs")
    }

    const CONSERVATIVE: Verdict = Verdict::Conservative { divisor: 4 };

    #[test]
    fn a_rise_by_an_eighth_enters_css_rfc9406_4_2() {
        let mut hystart = HyStart::default();
        assert_eq!(round(&mut hystart, 10, ms(80)), Verdict::SlowStart);
        assert_eq!(round(&mut hystart, 10, ms(89)), Verdict::SlowStart);
        assert_eq!(round(&mut hystart, 7, ms(100)), Verdict::SlowStart, "too few samples");
        let mut hystart = HyStart::default();
        round(&mut hystart, 10, ms(80));
        assert_eq!(round(&mut hystart, 8, ms(90)), CONSERVATIVE);
    }

    #[test]
    fn the_threshold_has_bounds_rfc9406_4_3() {
        for (base, below, enough) in [(1, 4, 5), (8, 11, 12), (400, 415, 416)] {
            let enters = |rtt| {
                let mut hystart = HyStart::default();
                round(&mut hystart, 8, ms(base));
                round(&mut hystart, 8, ms(rtt)) == CONSERVATIVE
            };
            assert!(!enters(below) && enters(enough), "from {base} ms");
        }
    }

    #[test]
    fn css_ends_slow_start_after_five_rounds_the_first_included_rfc9406_4_2() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 8, ms(20));
        for _ in 0..5 {
            assert_eq!(round(&mut hystart, 8, ms(30)), CONSERVATIVE);
        }
        let next = Acked { rtt: Some(ms(30)), round_start: true, ..ack(1000) };
        assert_eq!(hystart.on_ack(&next), Verdict::Done);
    }

    #[test]
    fn a_fall_below_the_baseline_resumes_slow_start_rfc9406_4_2() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 8, ms(20));
        assert_eq!(round(&mut hystart, 8, ms(30)), CONSERVATIVE);
        assert_eq!(round(&mut hystart, 8, ms(30)), CONSERVATIVE, "not below");
        assert_eq!(round(&mut hystart, 7, ms(21)), CONSERVATIVE, "too few samples");
        assert_eq!(round(&mut hystart, 8, ms(21)), Verdict::SlowStart);
        assert_eq!(round(&mut hystart, 8, ms(30)), CONSERVATIVE, "and it can begin again");
    }

    #[test]
    fn acks_without_a_sample_conclude_nothing() {
        let mut hystart = HyStart::default();
        for i in 0..100 {
            let acked = Acked { rtt: None, round_start: i % 10 == 0, ..ack(1000) };
            assert_eq!(hystart.on_ack(&acked), Verdict::SlowStart);
        }
    }
}
