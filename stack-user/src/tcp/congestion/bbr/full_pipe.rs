//! Is the pipe full (draft-ietf-ccwg-bbr §5.3.1.2)? It is when three round trips in a row, each faster than the last,
//! deliver no more than they did.

/// Per cent of the last rate that are growth.
const GROWTH_PERCENT: u64 = 125;

/// So many round trips without growth: fewer might be the peer's window that grows late.
const ROUNDS: u32 = 3;

#[derive(Clone, Debug, Default)]
pub(super) struct FullPipe {
    /// BBR.full_bw_reached: it was full once.
    reached: bool,
    /// BBR.full_bw_now: it is, since this was last asked.
    now: bool,
    bw: u64,
    count: u32,
}

impl FullPipe {
    /// Begins to look, from `bw` on.
    pub(super) fn restart(&mut self, bw: u64) {
        *self = Self { reached: self.reached, bw, ..Self::default() };
    }

    /// A round trip that the application did not limit has delivered at `rate`.
    pub(super) fn on_round(&mut self, rate: u64) {
        if self.now {
            return;
        }
        if rate >= super::percent_of(GROWTH_PERCENT, self.bw) {
            return self.restart(rate);
        }
        self.count += 1;
        self.now = self.count >= ROUNDS;
        self.reached |= self.now;
    }

    pub(super) fn is_full(&self) -> bool {
        self.now
    }

    pub(super) fn reached(&self) -> bool {
        self.reached
    }

    /// It was full, or was taken for it: losses told.
    pub(super) fn set_reached(&mut self, reached: bool) {
        self.reached = reached;
    }
}
