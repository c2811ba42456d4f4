//! What losses say of the path (draft-ietf-ccwg-bbr §5.5.10).
//!
//! While more is tried (Startup, REFILL, UP), more than 2 % lost say that so much is not to be in flight: the long-term
//! bound. At other times nothing new is tried, so a loss says that the path has become worse: once per round trip what
//! was really delivered in it becomes a short-term bound, which the next REFILL lifts.

use super::{
    super::{Delivered, Lost},
    BETA_PERCENT, Bbr, LOSS_THRESHOLD_PERCENT, output::USED_PERCENT, percent_of, state::State,
};
use crate::time::Instant;

/// The upper bounds of the model; the largest number is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// BBR.bw_shortterm in bytes per second.
    pub(super) bw_short: u64,
    /// BBR.inflight_shortterm.
    pub(super) inflight_short: usize,
    /// BBR.inflight_longterm.
    pub(super) inflight_long: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bw_short: u64::MAX, inflight_short: usize::MAX, inflight_long: usize::MAX }
    }
}

impl Bounds {
    /// ResetShortTermModel.
    pub(super) fn forget_short_term(&mut self) {
        (self.bw_short, self.inflight_short) = (u64::MAX, usize::MAX);
    }
}

/// What the last round trip has delivered, and whether anything of it was lost (§5.5.10.3). It is a round trip of its
/// own: it begins with the first loss.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest {
    /// BBR.bw_latest.
    pub(super) bw: u64,
    /// BBR.inflight_latest.
    pub(super) inflight: usize,
    /// BBR.is_loss_in_round.
    lost: bool,
    /// BBR.loss_round_start: the present ACK begins one.
    start: bool,
    /// BBR.loss_round_delivered.
    round_delivered: u64,
    /// C.delivered.
    pub(super) total: u64,
    /// ACKs that told of losses, in this one and in the one that is over with this ACK.
    events: u32,
    ended_events: u32,
    /// So many per cent of the bandwidth had been sent of what is delivered until that round trip.
    slower: Option<(u64, u64)>,
}

/// What is sent is acknowledged in the next round trip, and is all of a sample in the one after it.
const ROUNDS_UNTIL_MEASURED: u64 = 2;

impl Latest {
    /// Near the start of an ACK.
    pub(super) fn update(&mut self, delivered: &Delivered) {
        self.start = false;
        self.total = delivered.total;
        let Some(sample) = delivered.sample else { return };
        self.bw = self.bw.max(sample.rate());
        self.inflight = self.inflight.max(sample.delivered as usize);
        if sample.prior_delivered >= self.round_delivered {
            self.round_delivered = delivered.total;
            self.start = true;
            self.ended_events = core::mem::take(&mut self.events);
        }
    }

    /// Until now, `round`, only so many per cent of the bandwidth were sent.
    pub(super) fn note_slower(&mut self, percent: u64, round: u64) {
        self.slower = Some((percent, round + ROUNDS_UNTIL_MEASURED));
    }

    /// How many per cent of the bandwidth had been sent that is delivered in `round`.
    fn sent_percent(&self, round: u64) -> u64 {
        self.slower.filter(|&(_, until)| round <= until).map_or(100, |(percent, _)| percent)
    }

    /// Near its end.
    pub(super) fn advance(&mut self, delivered: &Delivered) {
        if let Some(sample) = delivered.sample.filter(|_| self.start) {
            (self.bw, self.inflight) = (sample.rate(), sample.delivered as usize);
        }
    }

    /// NoteLoss.
    pub(super) fn note_loss(&mut self) {
        if !self.lost {
            self.round_delivered = self.total;
        }
        self.lost = true;
    }

    /// ResetCongestionSignals.
    pub(super) fn forget(&mut self) {
        (self.lost, self.bw, self.inflight) = (false, 0, 0);
    }

    pub(super) fn forget_loss(&mut self) {
        self.lost = false;
    }

    pub(super) fn is_round_start(&self) -> bool {
        self.start
    }

    /// How many ACKs told of losses in the round trip that is over with this ACK.
    pub(super) fn loss_events(&self) -> u32 {
        self.ended_events
    }
}

/// IsInflightTooHigh.
pub(super) fn is_too_much(lost: usize, in_flight: usize) -> bool {
    lost as u64 > percent_of(LOSS_THRESHOLD_PERCENT, in_flight as u64)
}

/// What would have been delivered if not so many per cent had been sent, but all.
fn whole_of(percent: u64, delivered: u64) -> u64 {
    u64::try_from(u128::from(delivered) * 100 / u128::from(percent.max(1))).unwrap_or(u64::MAX)
}

/// At how much in flight the losses became too many (§5.5.10.2, InflightAtLoss): what an ACK tells to be lost is taken
/// for one burst, and somewhere in it the threshold lies.
fn inflight_at_loss(lost: Lost) -> usize {
    let (in_flight, before) = (
        lost.in_flight.saturating_sub(lost.bytes) as u64,
        lost.since_sent.saturating_sub(lost.bytes) as u64,
    );
    let borne = percent_of(LOSS_THRESHOLD_PERCENT, in_flight).saturating_sub(before);
    (in_flight + borne * 100 / (100 - LOSS_THRESHOLD_PERCENT)) as usize
}

impl Bbr {
    /// HandleLostPacket, for all that one ACK tells.
    pub(super) fn on_lost(&mut self, delivered: &Delivered, lost: Lost) {
        self.latest.total = delivered.total;
        self.latest.note_loss();
        self.latest.events += 1;
        let too_much = is_too_much(lost.since_sent, lost.in_flight) || !delivered.sack;
        if too_much && self.cycle.is_sample() {
            let in_flight = (!lost.app_limited).then(|| inflight_at_loss(lost));
            self.on_too_much(delivered.now, in_flight);
        }
    }

    /// HandleInflightTooHigh: what was tried was too much, once per attempt. `in_flight` is how much that was, if the
    /// application did not limit it.
    pub(super) fn on_too_much(&mut self, now: Instant, in_flight: Option<usize>) {
        self.cycle.went_too_high();
        if let Some(in_flight) = in_flight {
            let least = percent_of(BETA_PERCENT, self.target_inflight() as u64);
            self.bounds.inflight_long = in_flight.max(least as usize);
        }
        if self.state == State::Up {
            self.note_undo(State::Up);
            self.start_down(now, self.latest.total);
        }
    }

    /// The peer echoes a mark while `in_flight` were on their way: no queue is to become longer than that, and what
    /// would have been a loss is one.
    pub(super) fn on_mark(&mut self, now: Instant, in_flight: usize) {
        if self.state == State::Startup {
            self.leave_startup_for_loss();
        } else if self.cycle.is_sample() {
            self.on_too_much(now, Some(in_flight));
        }
    }

    /// AdaptLowerBoundsFromCongestion: once per round trip, unless more is tried.
    pub(super) fn adapt_short_term(&mut self) {
        if !self.latest.start {
            return;
        }
        if self.latest.lost && !self.state.is_probing() {
            let sent = percent_of(USED_PERCENT, self.latest.sent_percent(self.rounds.count()));
            let Bounds { bw_short, inflight_short, .. } = &mut self.bounds;
            if *bw_short == u64::MAX {
                *bw_short = self.max_bw.get();
            }
            if *inflight_short == usize::MAX {
                *inflight_short = self.cwnd;
            }
            // A loss of x % is to cost x % (§5.3.3.8.3). But less than the bandwidth was sent, 99 %, and after DOWN 90 %:
            // that is our doing, and not what the path has lost. Else a single loss would cost that much each time.
            let (bw, inflight) = (whole_of(sent, self.latest.bw), whole_of(sent, self.latest.inflight as u64));
            *bw_short = bw.max(percent_of(BETA_PERCENT, *bw_short));
            *inflight_short = inflight.max(percent_of(BETA_PERCENT, *inflight_short as u64)) as usize;
        }
        self.latest.lost = false;
    }
}
