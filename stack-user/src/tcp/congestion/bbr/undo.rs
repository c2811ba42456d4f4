//! Losses that were none (draft-ietf-ccwg-bbr §5.5.11).

use super::{Bbr, bounds::Bounds, state::State};

/// What there was before a recovery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo {
    bounds: Bounds,
    /// BBR.undo_state: what the losses have ended.
    ended: Option<State>,
}

impl Bbr {
    pub(super) fn save_for_undo(&mut self) {
        self.undo = Some(Undo { bounds: self.bounds, ended: None });
    }

    /// Losses end `state`.
    pub(super) fn note_undo(&mut self, state: State) {
        if let Some(undo) = &mut self.undo {
            undo.ended = Some(state);
        }
    }

    pub(super) fn undo_losses(&mut self) {
        let Some(Undo { bounds, ended }) = self.undo.take() else { return };
        self.latest.forget_loss();
        self.full_pipe.restart(0);
        let Bounds { bw_short, inflight_short, inflight_long } = self.bounds;
        self.bounds = Bounds {
            bw_short: bw_short.max(bounds.bw_short),
            inflight_short: inflight_short.max(bounds.inflight_short),
            inflight_long: inflight_long.max(bounds.inflight_long),
        };
        match ended {
            Some(State::Startup) if self.state != State::Startup => {
                self.full_pipe.set_reached(false);
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::Up) if !matches!(self.state, State::Up | State::ProbeRtt) => {
                self.start_refill(self.latest.total);
            }
            _ => {}
        }
    }
}
