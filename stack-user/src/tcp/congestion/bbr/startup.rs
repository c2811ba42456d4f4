//! Startup and Drain (draft-ietf-ccwg-bbr §5.3.1 and §5.3.2).

use super::{super::Delivered, Bbr, bounds::is_too_much, state::State};

/// ACKs of a round trip that have to tell of losses before they end Startup (§5.3.1.3, BBRStartupFullLossCnt): one burst
/// is noise.
const FULL_LOSS_COUNT: u32 = 6;

/// Drain ends after so many round trips even if more is in flight than it should (§5.3.2).
const DRAIN_ROUNDS: u64 = 3;

impl Bbr {
    pub(super) fn check_startup_done(&mut self, delivered: &Delivered) {
        if self.state != State::Startup {
            return;
        }
        if self.has_lost_too_much(delivered) {
            self.leave_startup_for_loss();
        }
        if self.full_pipe.reached() {
            self.state = State::Drain;
            self.cycle.drain_began(self.rounds.count());
        }
    }

    /// §5.3.1.3: losses in a whole round trip of recovery. Without SACK there is no more than one to be seen in it.
    fn has_lost_too_much(&mut self, delivered: &Delivered) -> bool {
        if !delivered.recovering || !delivered.sack {
            return delivered.recovering && delivered.lost.is_some();
        }
        let events = self.latest.loss_events();
        self.latest.is_round_start()
            && events >= FULL_LOSS_COUNT
            && delivered.sample.is_some_and(|sample| is_too_much(delivered.lost_since_sent, sample.in_flight))
    }

    pub(super) fn leave_startup_for_loss(&mut self) {
        self.note_undo(State::Startup);
        self.full_pipe.set_reached(true);
        self.bounds.inflight_long = self.bdp(self.bw()).max(self.latest.inflight);
    }

    pub(super) fn check_drain_done(&mut self, delivered: &Delivered) {
        if self.state != State::Drain {
            return;
        }
        let rounds = self.rounds.count() - self.cycle.drain_round();
        if delivered.in_flight <= self.inflight(self.bw(), 100) || rounds > DRAIN_ROUNDS {
            self.start_down(delivered.now, delivered.total);
        }
    }
}
