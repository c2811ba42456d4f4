//! What follows from the model (draft-ietf-ccwg-bbr §5.6): the rate and the window.

use super::{
    super::{Delivered, initial_window},
    Bbr,
    aggregation::bytes_in,
    percent_of,
    state::State,
};
use crate::time::Duration;

/// Per cent of the bandwidth that is used of it, so that queues become shorter (§5.6.2, BBR.PacingMarginPercent).
pub(super) const USED_PERCENT: u64 = 99;

/// What may leave at once (§5.6.3, C.send_quantum).
const QUANTUM: Duration = Duration::from_millis(1);
const MAX_QUANTUM: usize = 64 << 10;
const MIN_QUANTUM_SEGMENTS: usize = 2;

/// Quanta that are somewhere in the hosts and not on the path (§5.5.8, BBR.offload_budget).
const QUANTA: usize = 3;

/// What UP may have in flight beyond the multiple of what the path holds (§5.6.4.2), in segments.
const UP_SEGMENTS: usize = 2;

/// How fast.
impl Bbr {
    /// §5.6.2. Until the pipe was full, the rate only grows: the application may not have asked for more.
    pub(super) fn set_pacing_rate_with_gain(&mut self, gain: u64) {
        let rate = percent_of(USED_PERCENT, percent_of(gain, self.bw())).max(1);
        if let Some(present) = self.pacing_rate
            && (self.full_pipe.reached() || rate > present)
        {
            self.pacing_rate = Some(rate);
        }
    }

    /// The first rate is IW in the first round trip that is known, and faster by Startup's gain.
    pub(super) fn set_pacing_rate(&mut self, delivered: &Delivered) {
        if self.pacing_rate.is_none()
            && let Some(rtt) = delivered.rtt.filter(|rtt| !rtt.is_zero())
        {
            let per_second = initial_window(self.mss) as u128 * 1_000_000_000 / rtt.as_nanos();
            let rate = u64::try_from(per_second).unwrap_or(u64::MAX);
            self.pacing_rate = Some(percent_of(State::Startup.pacing_gain(), rate).max(1));
        }
        self.set_pacing_rate_with_gain(self.state.pacing_gain());
    }
}

/// How much.
impl Bbr {
    /// BBR.bdp: what the path holds at a bandwidth of `bw`; IW while its round trip is not known.
    pub(super) fn bdp(&self, bw: u64) -> usize {
        match self.min_rtt.get() {
            Some(rtt) => usize::try_from(bytes_in(bw, rtt)).unwrap_or(usize::MAX),
            None => initial_window(self.mss),
        }
    }

    fn bdp_multiple(&self, bw: u64, gain: u64) -> usize {
        percent_of(gain, self.bdp(bw) as u64) as usize
    }

    /// Inflight: so much has to be in flight to use `gain` per cent of `bw` (§5.6.4.2).
    pub(super) fn inflight(&self, bw: u64, gain: u64) -> usize {
        self.with_quanta(self.bdp_multiple(bw, gain))
    }

    /// TargetInflight.
    pub(super) fn target_inflight(&self) -> usize {
        self.bdp(self.bw()).min(self.cwnd)
    }

    fn quantum(&self) -> usize {
        let quantum = bytes_in(self.pacing_rate.unwrap_or(0), QUANTUM);
        usize::try_from(quantum).unwrap_or(usize::MAX).min(MAX_QUANTUM).max(MIN_QUANTUM_SEGMENTS * self.mss)
    }

    /// QuantizationBudget.
    fn with_quanta(&self, in_flight: usize) -> usize {
        let least = in_flight.max(QUANTA * self.quantum()).max(self.min_pipe());
        least.saturating_add(if self.state == State::Up { UP_SEGMENTS * self.mss } else { 0 })
    }

    /// BBR.max_inflight.
    fn max_inflight(&self) -> usize {
        let multiple = self.bdp_multiple(self.bw(), self.state.cwnd_gain());
        self.with_quanta(multiple.saturating_add(self.aggregation.extra()))
    }

    pub(super) fn probe_rtt_cwnd(&self) -> usize {
        self.bdp_multiple(self.bw(), State::ProbeRtt.cwnd_gain()).max(self.min_pipe())
    }

    /// §5.6.4.6: down to the model at once, up by no more than is delivered.
    pub(super) fn set_cwnd(&mut self, delivered: &Delivered) {
        let most = self.max_inflight();
        let grown = self.cwnd.saturating_add(delivered.bytes);
        if self.full_pipe.reached() {
            self.cwnd = grown.min(most);
        } else if self.cwnd < most || delivered.total < initial_window(self.mss) as u64 {
            self.cwnd = grown;
        }
        self.cwnd = self.cwnd.max(self.min_pipe());
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        self.cwnd = self.cwnd.min(self.cap());
    }

    /// §5.6.4.7. What is left free for others is so while nothing is tried.
    fn cap(&self) -> usize {
        let long_term = match self.state {
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
            state if state.is_probe_bw() => self.bounds.inflight_long,
            _ => usize::MAX,
        };
        long_term.min(self.bounds.inflight_short).max(self.min_pipe())
    }

    /// The last window that was good, before it is made smaller for a while (§5.6.4.4).
    pub(super) fn save_cwnd(&mut self) {
        let modulated = self.recovering || self.state == State::ProbeRtt;
        self.prior_cwnd = if modulated { self.prior_cwnd.max(self.cwnd) } else { self.cwnd };
    }

    pub(super) fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }
}
