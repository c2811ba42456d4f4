//! ACKs that come in clumps (draft-ietf-ccwg-bbr §5.5.9): between them more has to be in flight than the path holds, or
//! the sender would fall silent.

use super::{super::Delivered, filter::RecentMax};
use crate::time::{Duration, Instant};

/// A period of the filter in round trips. It remembers two, so between five and ten: BBR.ExtraAckedFilterLen.
const PERIOD: u64 = 5;

/// BBR.extra_acked.
#[derive(Clone, Debug, Default)]
pub(super) struct Aggregation {
    since: Instant,
    acked: u64,
    extra: RecentMax,
    period_began: u64,
}

impl Aggregation {
    /// A pause was no clump.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.since, self.acked) = (now, 0);
    }

    /// What `delivered` acknowledges beyond `bw`, of which no more than a window can be. In Startup the window doubles,
    /// and what was two round trips ago says nothing.
    pub(super) fn update(
        &mut self,
        delivered: &Delivered,
        bw: u64,
        cwnd: usize,
        (in_startup, round): (bool, u64),
    ) {
        let mut expected = bytes_in(bw, delivered.now.since(self.since));
        if self.acked <= expected {
            self.restart(delivered.now);
            expected = 0;
        }
        self.acked += delivered.bytes as u64;
        let period = if in_startup { 1 } else { PERIOD };
        if round >= self.period_began + period {
            self.extra.advance();
            self.period_began = round;
        }
        self.extra.update(self.acked.saturating_sub(expected).min(cwnd as u64));
    }

    pub(super) fn extra(&self) -> usize {
        self.extra.get() as usize
    }
}

/// What `rate` bytes per second make in `time`.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate).saturating_mul(time.as_nanos()) / 1_000_000_000).unwrap_or(u64::MAX)
}
