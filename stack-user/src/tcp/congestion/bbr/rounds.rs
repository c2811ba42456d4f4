//! Round trips, counted by packets (draft-ietf-ccwg-bbr §5.5.1): one is over when something arrives that was sent after
//! it began. Pauses and time-outs don't make them more.

use super::super::Delivered;

#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    count: u64,
    /// The present ACK begins one.
    start: bool,
    /// BBR.next_round_delivered: what is sent when so much is delivered belongs to the next one.
    next_delivered: u64,
}

impl Rounds {
    pub(super) fn update(&mut self, delivered: &Delivered) {
        self.start = delivered.sample.is_some_and(|sample| sample.prior_delivered >= self.next_delivered);
        if self.start {
            self.restart(delivered.total);
            self.count += 1;
        }
    }

    /// One begins now, whatever was before (StartRound).
    pub(super) fn restart(&mut self, total: u64) {
        self.next_delivered = total;
    }

    pub(super) fn is_start(&self) -> bool {
        self.start
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}
