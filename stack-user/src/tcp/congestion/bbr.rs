//! BBR (draft-ietf-ccwg-bbr, which is BBRv3): the window follows from a model of the path.
//!
//! The path has a bandwidth and a round trip, and their product is what it holds. Both are measured: the bandwidth is the
//! most that was delivered lately ([`rounds`] counts the time, [`filter`] remembers), the round trip the shortest
//! ([`min_rtt`]). What is sent is paced at that bandwidth, a little faster now and then to see whether there is more, and
//! a little slower after that to let the queue go ([`state`], [`cycle`]). A loss says little by itself: only more than
//! 2 % of a round trip, while more is tried, tell that it was too much ([`bounds`]). So a path that loses a packet in a
//! thousand is filled like one that loses none.
//!
//! In two things it differs from the letter of the draft. What we did not send does not count as what the path did not
//! deliver (`Latest::sent_percent` in [`bounds`]); and a round trip that is as short as the shortest, and not only a
//! shorter one, makes that one young again ([`min_rtt`]).
//!
//! It needs pacing. Without it (and it can be turned off) the window, twice of what the path holds, is all there is.
//!
//! What the draft calls `BBR.*`, `C.*` and `RS.*` has its names here, as far as they are good ones. Gains are per cent.

mod aggregation;
mod bounds;
mod cycle;
mod filter;
mod full_pipe;
mod min_rtt;
mod output;
mod rounds;
mod startup;
mod state;
#[cfg(test)]
mod tests;
mod undo;

use aggregation::Aggregation;
use bounds::{Bounds, Latest};
use cycle::Cycle;
use filter::RecentMax;
use full_pipe::FullPipe;
use min_rtt::{MinRtt, ProbeRtt};
use rounds::Rounds;
use state::State;
use undo::Undo;

use super::{Acked, CongestionControl, Delivered, Signal, initial_window, shrink_with_mss};
use crate::time::{Duration, Instant};

/// What a congested round trip leaves at least of the short-term bounds (§2.8, BBR.Beta).
const BETA_PERCENT: u64 = 70;

/// As much of a round trip may be lost while more is tried (§2.8, BBR.LossThresh).
const LOSS_THRESHOLD_PERCENT: u64 = 2;

/// The smallest window, in segments (§2.8, BBR.MinPipeCwnd): a peer acknowledges every second one.
const MIN_PIPE_SEGMENTS: usize = 4;

/// BBRv3.
#[derive(Clone, Debug)]
pub struct Bbr {
    mss: usize,
    cwnd: usize,
    /// C.pacing_rate in bytes per second, once a round trip is known.
    pacing_rate: Option<u64>,
    state: State,
    rounds: Rounds,
    /// BBR.max_bw_filter: delivery rates of this cycle and the last one, in bytes per second.
    max_bw: RecentMax,
    latest: Latest,
    bounds: Bounds,
    aggregation: Aggregation,
    full_pipe: FullPipe,
    cycle: Cycle,
    min_rtt: MinRtt,
    probe_rtt: ProbeRtt,
    /// The window as it was before a recovery or ProbeRTT made it smaller.
    prior_cwnd: usize,
    /// Losses were being repaired when the last ACK came.
    recovering: bool,
    /// BBR.idle_restart: nothing has come back since the last pause.
    idle_restart: bool,
    undo: Option<Undo>,
}

/// `percent` of `amount`.
fn percent_of(percent: u64, amount: u64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

impl Bbr {
    /// A window of IW, and nothing is known (§5.2.1).
    pub fn new(mss: usize) -> Self {
        Self {
            mss,
            cwnd: initial_window(mss),
            pacing_rate: None,
            state: State::Startup,
            rounds: Rounds::default(),
            max_bw: RecentMax::default(),
            latest: Latest::default(),
            bounds: Bounds::default(),
            aggregation: Aggregation::default(),
            full_pipe: FullPipe::default(),
            cycle: Cycle::default(),
            min_rtt: MinRtt::default(),
            probe_rtt: ProbeRtt::default(),
            prior_cwnd: 0,
            recovering: false,
            idle_restart: false,
            undo: None,
        }
    }

    fn min_pipe(&self) -> usize {
        MIN_PIPE_SEGMENTS * self.mss
    }

    /// BBR.bw: the bandwidth that is used, which recent losses may bound.
    fn bw(&self) -> u64 {
        self.max_bw.get().min(self.bounds.bw_short)
    }

    /// Whether the sample says how fast the application is, or ProbeRTT (RS.is_app_limited).
    fn is_limited(&self, delivered: &Delivered) -> bool {
        delivered
            .sample
            .is_some_and(|sample| sample.app_limited || self.probe_rtt.slowed(sample.prior_delivered))
    }

    /// §5.2.3, UpdateModelAndState.
    fn update_model(&mut self, delivered: &Delivered) {
        let limited = self.is_limited(delivered);
        self.latest.update(delivered);
        self.update_max_bw(delivered, limited);
        self.adapt_short_term();
        let (bw, cwnd, in_startup) = (self.bw(), self.cwnd, !self.full_pipe.reached());
        self.aggregation.update(delivered, bw, cwnd, (in_startup, self.rounds.count()));
        if self.rounds.is_start() && !limited {
            self.full_pipe.on_round(delivered.rate());
        }
        self.check_startup_done(delivered);
        self.check_drain_done(delivered);
        self.update_cycle(delivered, limited);
        self.min_rtt.update(delivered.now, delivered.rtt);
        self.check_probe_rtt(delivered);
        self.latest.advance(delivered);
    }

    /// §5.5.5: samples that the application limited count if they are higher than all others.
    fn update_max_bw(&mut self, delivered: &Delivered, limited: bool) {
        self.rounds.update(delivered);
        let rate = delivered.rate();
        if rate > 0 && (!limited || rate >= self.max_bw.get()) {
            self.max_bw.update(rate);
        }
    }
}

impl Delivered {
    /// RS.delivery_rate, 0 if the ACK doesn't tell.
    fn rate(&self) -> u64 {
        self.sample.map_or(0, |sample| sample.rate())
    }
}

impl CongestionControl for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    fn cwnd(&self) -> usize {
        self.cwnd
    }

    /// There is none: the end of Startup is found in another way.
    fn ssthresh(&self) -> usize {
        usize::MAX
    }

    fn on_ack(&mut self, _acked: &Acked) {}

    /// §5.2.3, and §5.2.4 before it.
    fn on_delivered(&mut self, delivered: &Delivered) {
        if core::mem::replace(&mut self.recovering, delivered.recovering) && !delivered.recovering {
            self.restore_cwnd();
        }
        if let Some(lost) = delivered.lost {
            self.on_lost(delivered, lost);
        }
        self.update_model(delivered);
        self.set_pacing_rate(delivered);
        self.set_cwnd(delivered);
    }

    fn is_reduced_by_loss(&self) -> bool {
        false
    }

    /// §5.6.4.4. That a single loss is found is no reason to send less; a timer that expires is. A mark of ECN counts as
    /// more than would have been borne (§3.7: a mark must be treated as congestion).
    fn on_congestion(&mut self, now: Instant, signal: Signal, in_flight: usize) {
        self.save_cwnd();
        self.latest.note_loss();
        match signal {
            Signal::Ecn => return self.on_mark(now, in_flight),
            Signal::Loss => {}
            Signal::Timeout => self.cwnd = self.mss,
        }
        self.save_for_undo();
        self.recovering = true;
    }

    fn on_spurious(&mut self, _now: Instant) {
        self.restore_cwnd();
        self.recovering = false;
        self.undo_losses();
    }

    /// §5.4.1: the window stays, and what follows a pause is paced at the bandwidth that was measured. If it can't be
    /// paced, it is what it is in RFC 5681 §4.1.
    fn on_idle(&mut self, now: Instant, idle: Duration, rto: Duration) {
        self.idle_restart = true;
        self.aggregation.restart(now);
        if self.state.is_probe_bw() {
            self.set_pacing_rate_with_gain(100);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
        if idle > rto {
            self.cwnd = self.cwnd.min(initial_window(self.mss));
        }
    }

    fn set_mss(&mut self, mss: usize) {
        self.cwnd = shrink_with_mss(self.cwnd, self.mss, mss);
        self.prior_cwnd = self.prior_cwnd.min(self.cwnd);
        self.mss = mss;
    }

    fn restart_from_one_segment(&mut self) {
        self.save_cwnd();
        self.cwnd = self.mss;
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.pacing_rate
    }
}
