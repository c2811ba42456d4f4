//! What is kept of a controller while its connection rests: a few numbers, as long as no congestion was ever found.

use super::{Algorithm, CongestionControl};
use crate::time::{Instant, Nanos};

/// A controller in its first slow start. All else that it would remember is out of date when data is sent again, or is
/// what it was at first.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    pub(super) mss: u16,
    pub(super) cwnd: u32,
    /// The smallest round trip of the latest round (RFC 9406 §4.2, currentRoundMinRTT), if there was any.
    pub(super) round_min_rtt: Option<Nanos>,
    pub(super) validation: Validation,
}

/// How much of the window has been used (RFC 7661).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Validation {
    pub(super) present: Option<u32>,
    pub(super) last: Option<u32>,
    pub(super) started: Instant,
    /// What was acknowledged in the present round trip, and the window when it began.
    pub(super) round: Option<(u32, u32)>,
    pub(super) unused_since: Option<Instant>,
    pub(super) last_ack: Instant,
}

impl Rest {
    /// The numbers of a window and a threshold, if they are those of a first slow start.
    pub(super) fn of(mss: usize, cwnd: usize, ssthresh: usize, round_min_rtt: Option<Nanos>) -> Option<Self> {
        let is_first = ssthresh == usize::MAX;
        let (mss, cwnd) = (mss.try_into().ok()?, cwnd.try_into().ok()?);
        is_first.then(|| Self { mss, cwnd, round_min_rtt, validation: Validation::default() })
    }
}

impl Algorithm {
    /// A controller as [`build_validated`](Self::build_validated) makes it, that goes on where another has come to rest.
    pub fn resume(self, paced: bool, rest: &Rest) -> Box<dyn CongestionControl> {
        let mut controller = self.build_validated(rest.mss.into(), paced);
        controller.resume(rest);
        controller
    }
}
