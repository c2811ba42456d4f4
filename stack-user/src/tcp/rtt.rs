//! Round-trip time and retransmission time-out (RFC 6298).

use crate::time::{Duration, Nanos};

/// Before the first sample (RFC 6298 §2.1).
const INITIAL_RTO: Duration = Duration::from_secs(1);

/// After a handshake that had to retransmit and gave no sample (RFC 6298 §5.7).
const RTO_AFTER_LOST_SYN: Duration = Duration::from_secs(3);

/// The shortest time-out. RFC 6298 §2.4 says 1 s; every host of today is below, since a loss at the end of a
/// transfer would cost that second. Below 200 ms, peers that delay their ACKs cause spurious time-outs.
const MIN_RTO: Duration = Duration::from_millis(200);

/// What RTO leaves beside SRTT at least. On a steady path RTTVAR goes to nothing, and then a single delayed ACK (40 ms
/// with most peers, more with some) would be a time-out. RFC 6298's least RTO of 1 s hides that; Linux leaves 200 ms.
const MIN_SLACK: Duration = Duration::from_millis(100);

/// The longest time-out (RFC 6298 §2.5 allows any bound of at least 60 s).
const MAX_RTO: Duration = Duration::from_secs(120);

/// The clock's granularity G (RFC 6298 §4). Ours is finer, but peers echo milliseconds.
const GRANULARITY: Duration = Duration::from_millis(1);

/// A round trip of more ACKs than these (a window of 190 MB at 1460 bytes a segment) counts as if it had so many.
const MAX_EXPECTED: usize = 1 << 16;

/// Doublings of RTO at most: the longest is reached long before.
const MAX_BACKOFF: u32 = 16;

/// The longest sample, in nanoseconds: an hour. So sums of the estimator have 64 bits.
const MAX_SAMPLE: u64 = 3_600_000_000_000;

/// SRTT, RTTVAR, RTO and its back-off; times in nanoseconds, since an estimate is made for each ACK.
#[derive(Clone, Debug)]
pub struct RttEstimator {
    smoothed: Option<(u64, u64)>,
    latest: u64,
    min: u64,
    base_rto: u64,
    backoff: u32,
    /// A sample was taken since the last tail loss probe.
    fresh: bool,
}

impl Default for RttEstimator {
    fn default() -> Self {
        Self {
            smoothed: None,
            latest: 0,
            min: u64::MAX,
            base_rto: nanos(INITIAL_RTO),
            backoff: 0,
            fresh: false,
        }
    }
}

impl RttEstimator {
    /// Takes a sample, which must not be of something retransmitted unless a timestamp tells which copy was
    /// answered (Karn's algorithm, RFC 6298 §3, MUST-18). A sample ends the back-off.
    pub fn sample(&mut self, rtt: Duration) {
        self.sample_one_of(rtt, 1);
    }

    /// Takes a sample of which a round trip brings `expected`. Each weighs the less the more there are: a large window's
    /// many ACKs would otherwise have the estimate forget in a fraction of a round trip (RFC 7323 §4.2, appendix G).
    pub fn sample_one_of(&mut self, rtt: Duration, expected: usize) {
        let n = expected.clamp(1, MAX_EXPECTED) as u64;
        let rtt = nanos(rtt).min(MAX_SAMPLE);
        let (srtt, rttvar) = match self.smoothed {
            // RFC 6298 §2.2.
            None => (rtt, rtt / 2),
            // RFC 6298 §2.3: beta is 1/4, alpha is 1/8, for one sample a round trip.
            Some((srtt, rttvar)) => {
                let deviation = srtt.abs_diff(rtt);
                ((srtt * (8 * n - 1) + rtt) / (8 * n), (rttvar * (4 * n - 1) + deviation) / (4 * n))
            }
        };
        self.smoothed = Some((srtt, rttvar));
        self.latest = rtt;
        self.min = self.min.min(rtt);
        self.base_rto = base_rto(srtt, rttvar);
        self.backoff = 0;
        self.fresh = true;
    }

    /// A tail loss probe goes out. If its ACK gives no sample, since what is sent twice gives none, there is no further
    /// probe before something else does: else SRTT could never follow a path that has become longer (RFC 8985 §7.3 (2)).
    pub fn on_loss_probe(&mut self) {
        self.fresh = false;
    }

    /// Whether there was a sample since the last tail loss probe, or since the connection was opened.
    pub fn allows_loss_probe(&self) -> bool {
        self.fresh
    }

    /// RTO, backed off.
    pub fn rto(&self) -> Duration {
        Duration::from_nanos((self.base_rto << self.backoff.min(MAX_BACKOFF)).min(nanos(MAX_RTO)))
    }

    /// The timer expired: double RTO (RFC 6298 §5.5).
    pub fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
    }

    /// The timer expired though nothing was lost: the path's round trip is at least what was measured last, and RTO must
    /// allow for it at once (RFC 4015 §3.6).
    pub fn on_spurious(&mut self) {
        let Some((srtt, rttvar)) = self.smoothed else { return };
        let (srtt, rttvar) = (srtt.max(self.latest), rttvar.max(self.latest / 2));
        self.smoothed = Some((srtt, rttvar));
        self.base_rto = base_rto(srtt, rttvar);
        self.backoff = 0;
    }

    /// The SYN was retransmitted: what was backed off so far was about the handshake, and without a sample we
    /// start cautiously (RFC 6298 §5.7).
    pub fn handshake_was_retransmitted(&mut self) {
        if self.smoothed.is_none() {
            self.base_rto = nanos(RTO_AFTER_LOST_SYN);
            self.backoff = 0;
        }
    }

    /// How often RTO was doubled since the last sample.
    pub fn backoff(&self) -> u32 {
        self.backoff
    }

    /// SRTT, once there was a sample.
    pub fn srtt(&self) -> Option<Duration> {
        self.smoothed.map(|(srtt, _)| Duration::from_nanos(srtt))
    }

    /// RTTVAR, once there was a sample.
    pub fn rttvar(&self) -> Option<Duration> {
        self.smoothed.map(|(_, rttvar)| Duration::from_nanos(rttvar))
    }

    /// The smallest sample, once there was one.
    pub fn min(&self) -> Option<Duration> {
        self.smoothed.map(|_| Duration::from_nanos(self.min))
    }

    /// The latest sample, once there was one.
    pub fn latest(&self) -> Option<Duration> {
        self.smoothed.map(|_| Duration::from_nanos(self.latest))
    }
}

/// An estimator in less room, for a connection that rests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    samples: Samples,
    backoff: u8,
    fresh: bool,
}

#[derive(Clone, Copy, Debug)]
enum Samples {
    None { base_rto: Nanos },
    Some { srtt: Nanos, rttvar: Nanos, latest: Nanos, min: Nanos },
}

impl RttEstimator {
    /// All that it knows.
    pub(super) fn rest(&self) -> Rest {
        let Self { smoothed, latest, min, base_rto, backoff, fresh } = *self;
        let of = |nanos| Duration::from_nanos(nanos).into();
        let samples = match smoothed {
            None => Samples::None { base_rto: of(base_rto) },
            Some((srtt, rttvar)) => {
                Samples::Some { srtt: of(srtt), rttvar: of(rttvar), latest: of(latest), min: of(min) }
            }
        };
        Rest { samples, backoff: backoff as u8, fresh }
    }

    /// Goes on after a rest.
    pub(super) fn resume(rest: Rest) -> Self {
        let (backoff, fresh) = (rest.backoff.into(), rest.fresh);
        let of = |time: Nanos| nanos(time.into());
        match rest.samples {
            Samples::None { base_rto } => Self { base_rto: of(base_rto), backoff, fresh, ..Self::default() },
            Samples::Some { srtt, rttvar, latest, min } => Self {
                smoothed: Some((of(srtt), of(rttvar))),
                latest: of(latest),
                min: of(min),
                base_rto: base_rto(of(srtt), of(rttvar)),
                backoff,
                fresh,
            },
        }
    }
}

/// RFC 6298 §2.3 to §2.5.
fn base_rto(srtt: u64, rttvar: u64) -> u64 {
    let slack = (4 * rttvar).max(const { nanos(GRANULARITY) }).max(const { nanos(MIN_SLACK) });
    (srtt + slack).clamp(const { nanos(MIN_RTO) }, const { nanos(MAX_RTO) })
}

/// Whole nanoseconds, without the 128 bits of [`Duration::as_nanos`].
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// RFC 7323 §4.2, appendix G: however many samples a round trip brings, it forgets as one would have it forget.
    #[test]
    fn many_samples_a_round_trip_forget_no_faster_rfc7323_4_2() {
        let after_a_round = |samples: usize| {
            let mut rtt = RttEstimator::default();
            rtt.sample(ms(100));
            (0..samples).for_each(|_| rtt.sample_one_of(ms(200), samples));
            rtt.srtt().expect("measured").as_micros()
        };
        assert_eq!(after_a_round(1), 112_500);
        assert!((111_000..=112_500).contains(&after_a_round(100)), "{}", after_a_round(100));
        assert!((111_000..=112_500).contains(&after_a_round(10_000)), "{}", after_a_round(10_000));
    }

    /// RFC 6298 §2.2 and §2.3; §4: by a clock that is finer than it asks for.
    #[test]
    fn estimates_follow_rfc6298_2() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.rto(), ms(1000));
        rtt.sample(ms(100));
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(ms(100)), Some(ms(50))));
        assert_eq!(rtt.rto(), ms(300));
        rtt.sample(ms(180));
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(ms(110)), Some(Duration::from_micros(57_500))));
        assert_eq!((rtt.min(), rtt.latest()), (Some(ms(100)), Some(ms(180))));
    }

    /// RFC 6298 §2.4 asks for a bound below; §2.5 allows one above.
    #[test]
    fn a_steady_path_leaves_room_for_a_delayed_ack_rfc6298_2_4() {
        let mut rtt = RttEstimator::default();
        (0..100).for_each(|_| rtt.sample(ms(150)));
        assert_eq!(rtt.rto(), ms(250));
        (0..100).for_each(|_| rtt.sample(ms(1)));
        assert_eq!(rtt.rto(), ms(200));
        (0..100).for_each(|_| rtt.sample(ms(500_000)));
        assert_eq!(rtt.rto(), MAX_RTO);
    }

    /// RFC 4015 §3.6: at once, not by an eighth at a time.
    #[test]
    fn a_spurious_timeout_raises_rto_rfc4015_3_6() {
        let mut rtt = RttEstimator::default();
        (0..100).for_each(|_| rtt.sample(ms(50)));
        rtt.back_off();
        rtt.sample(ms(600));
        rtt.on_spurious();
        assert_eq!((rtt.srtt(), rtt.rto()), (Some(ms(600)), ms(1800)));
    }

    #[test]
    fn rto_doubles_up_to_its_bound_and_a_sample_ends_that() {
        let mut rtt = RttEstimator::default();
        for _ in 0..100 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), MAX_RTO);
        rtt.sample(ms(1));
        assert_eq!(rtt.rto(), MIN_RTO);
        rtt.back_off();
        assert_eq!(rtt.rto(), 2 * MIN_RTO);
    }

    #[test]
    fn a_lost_syn_leaves_three_seconds_rfc6298_5_7() {
        let mut rtt = RttEstimator::default();
        rtt.back_off();
        rtt.back_off();
        rtt.handshake_was_retransmitted();
        assert_eq!(rtt.rto(), ms(3000));
    }
}
