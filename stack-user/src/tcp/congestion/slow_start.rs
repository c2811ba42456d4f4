//! Slow start (RFC 5681 §3.1), as all window-based algorithms here have it.

use super::{
    Acked,
    hystart::{HyStart, Verdict},
};
use crate::time::{Duration, Nanos};

/// How many segments one ACK may open the window by, in the first slow start: L of RFC 9406 §4.3. With pacing there is
/// no bound, since what the ACK sets free does not leave at once.
const FIRST_LIMIT: usize = 8;

/// The same in a slow start after a pause (RFC 3465 §2.2, L): a peer that acknowledges every second segment does not
/// slow us, and a stretched ACK does not cause a burst.
const LATER_LIMIT: usize = 2;

/// The same after a time-out (RFC 3465 §2.3): an ACK may then cover what had left the network long before.
const LIMIT_AFTER_TIMEOUT: usize = 1;

/// Slow start: how fast the window grows below ssthresh, and when to stop before a loss.
#[derive(Clone, Debug, Default)]
pub(super) struct SlowStart {
    hystart: HyStart,
    after_timeout: bool,
}

/// What an ACK does in slow start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// By how many bytes the window grows.
    pub(super) bytes: usize,
    /// Slow start is over, although there was no congestion.
    pub(super) done: bool,
}

impl SlowStart {
    /// New data was acknowledged while the window is below `ssthresh`.
    pub(super) fn on_ack(&mut self, acked: &Acked, mss: usize, ssthresh: usize) -> Growth {
        // RFC 9406 §4.3: HyStart++ is for the first slow start only.
        let verdict = match ssthresh {
            usize::MAX => self.hystart.on_ack(acked),
            _ => Verdict::SlowStart,
        };
        if !acked.cwnd_limited {
            return Growth { bytes: 0, done: verdict == Verdict::Done };
        }
        let full = acked.bytes.min(self.limit(acked, ssthresh).saturating_mul(mss));
        match verdict {
            Verdict::SlowStart => Growth { bytes: full, done: false },
            Verdict::Conservative { divisor } => Growth { bytes: full / divisor, done: false },
            Verdict::Done => Growth { bytes: 0, done: true },
        }
    }

    /// What [`HyStart::rest`] says, if a next slow start would be a usual one.
    pub(super) fn rest(&self) -> Option<Option<Nanos>> {
        let round_min_rtt = self.hystart.rest().filter(|_| !self.after_timeout)?;
        Some(round_min_rtt.map(Nanos::from))
    }

    /// Goes on after a rest.
    pub(super) fn resume(round_min_rtt: Option<Nanos>) -> Self {
        Self { hystart: HyStart::resume(round_min_rtt.map(Duration::from)), after_timeout: false }
    }

    fn limit(&self, acked: &Acked, ssthresh: usize) -> usize {
        if self.after_timeout {
            LIMIT_AFTER_TIMEOUT
        } else if acked.paced {
            usize::MAX
        } else if ssthresh == usize::MAX {
            FIRST_LIMIT
        } else {
            LATER_LIMIT
        }
    }

    /// The retransmission timer expired.
    pub(super) fn on_timeout(&mut self) {
        self.after_timeout = true;
    }

    /// The window has reached ssthresh: the next slow start has another cause.
    pub(super) fn on_end(&mut self) {
        self.after_timeout = false;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::ack, *};

    const MSS: usize = 1000;

    #[test]
    fn the_window_grows_by_what_was_acknowledged_up_to_l_rfc9406_4_2() {
        let mut slow_start = SlowStart::default();
        let mut grow =
            |bytes, paced, ssthresh| slow_start.on_ack(&Acked { paced, ..ack(bytes) }, MSS, ssthresh).bytes;
        assert_eq!(grow(1, false, usize::MAX), 1);
        assert_eq!(grow(20 * MSS, false, usize::MAX), 8 * MSS);
        assert_eq!(grow(20 * MSS, true, usize::MAX), 20 * MSS, "pacing spreads what follows");
        assert_eq!(grow(20 * MSS, false, 100 * MSS), 2 * MSS, "a later slow start, RFC 3465 §2.2");
    }

    #[test]
    fn after_a_timeout_an_ack_opens_by_one_segment_rfc3465_2_3() {
        let mut slow_start = SlowStart::default();
        slow_start.on_timeout();
        let acked = Acked { paced: true, ..ack(20 * MSS) };
        assert_eq!(slow_start.on_ack(&acked, MSS, 100 * MSS).bytes, MSS);
        slow_start.on_end();
        assert_eq!(slow_start.on_ack(&acked, MSS, 100 * MSS).bytes, 20 * MSS);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow_rfc7661_4_4() {
        let acked = Acked { cwnd_limited: false, ..ack(MSS) };
        assert_eq!(SlowStart::default().on_ack(&acked, MSS, usize::MAX), Growth::default());
    }
}
