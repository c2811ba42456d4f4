//! ProbeBW (draft-ietf-ccwg-bbr §5.3.3): DOWN, CRUISE, REFILL, UP, and again.

use super::{super::Delivered, Bbr, bounds::is_too_much, state::State};
use crate::time::{Duration, Instant};

/// The shortest time between two searches for bandwidth, and by how much it varies, so that flows don't search in step
/// (§5.3.3.8.3).
const WAIT: Duration = Duration::from_secs(2);
const WAIT_MORE_MICROS: u64 = 1_000_000;

/// The same in round trips, so that a short path is searched as often as Reno would (§5.3.3.8.3).
const MAX_WAIT_ROUNDS: usize = 63;

/// Part of the long-term bound that is left free for others (§2.8, BBR.Headroom).
const HEADROOM_PERCENT: u64 = 15;

/// The bound rises by 2^this segments in a round trip at most.
const MAX_UP_ROUNDS: u32 = 30;

/// What the ACKs tell that come now (§2.14, BBR.ack_phase).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AckPhase {
    /// Nothing of a search.
    #[default]
    Init,
    /// They are of REFILL.
    Refilling,
    /// UP has begun, and they are of what was sent before.
    Starting,
    /// They are of UP.
    Feedback,
    /// UP is over, and they still are of it.
    Stopping,
}

#[derive(Clone, Debug)]
pub(super) struct Cycle {
    ack_phase: AckPhase,
    /// BBR.is_bw_probe_sample: what is acknowledged was sent in REFILL or UP, and was not too much so far.
    is_sample: bool,
    /// BBR.cycle_stamp: when DOWN began.
    began: Instant,
    /// BBR.bw_probe_wait.
    wait: Duration,
    /// The number of the round trip in which the count of BBR.rounds_since_probe_up began.
    up_round: u64,
    drain_round: u64,
    /// BBR.bw_probe_up_rounds.
    up_rounds: u32,
    /// BBR.bw_probe_up_acked, and BBR.probe_up_acked_per_inc.
    up_acked: usize,
    up_acked_per_segment: usize,
    /// BBR.prev_probe_too_high, BBR.prev_probe_precautionary.
    too_high: bool,
    cautious: bool,
}

impl Default for Cycle {
    fn default() -> Self {
        Self {
            ack_phase: AckPhase::Init,
            is_sample: false,
            began: Instant::ZERO,
            wait: Duration::ZERO,
            up_round: 0,
            drain_round: 0,
            up_rounds: 0,
            up_acked: 0,
            up_acked_per_segment: usize::MAX,
            too_high: false,
            cautious: false,
        }
    }
}

impl Cycle {
    pub(super) fn is_sample(&self) -> bool {
        self.is_sample
    }

    pub(super) fn went_too_high(&mut self) {
        self.too_high = true;
        self.is_sample = false;
    }

    pub(super) fn probe_rtt_began(&mut self) {
        self.ack_phase = AckPhase::Stopping;
    }

    pub(super) fn drain_began(&mut self, round: u64) {
        self.drain_round = round;
    }

    pub(super) fn drain_round(&self) -> u64 {
        self.drain_round
    }

    #[cfg(test)]
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// PickProbeWait. Nobody gains by guessing it, so it needs no entropy: it has to differ between flows, and from
    /// time to time.
    fn pick_wait(&mut self, now: Instant, total: u64, round: u64) {
        let mixed = mix(now.as_nanos() ^ total.rotate_left(32));
        self.up_round = round.saturating_sub(mixed >> 63);
        self.wait = WAIT + Duration::from_micros(((mixed & 0xffff_ffff) * WAIT_MORE_MICROS) >> 32);
    }
}

/// Makes all bits of the result depend on all of `x` (the finalizer of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How a state begins.
impl Bbr {
    pub(super) fn start_down(&mut self, now: Instant, total: u64) {
        self.latest.forget();
        self.cycle.up_acked_per_segment = usize::MAX;
        self.cycle.pick_wait(now, total, self.rounds.count());
        self.cycle.began = now;
        self.cycle.ack_phase = AckPhase::Stopping;
        self.rounds.restart(total);
        self.state = State::Down;
    }

    /// What was sent until now was `percent` of the bandwidth.
    pub(super) fn start_cruise(&mut self, percent: u64) {
        self.latest.note_slower(percent, self.rounds.count());
        self.state = State::Cruise;
    }

    pub(super) fn start_refill(&mut self, total: u64) {
        self.bounds.forget_short_term();
        (self.cycle.up_rounds, self.cycle.up_acked) = (0, 0);
        self.cycle.cautious = false;
        self.cycle.ack_phase = AckPhase::Refilling;
        self.rounds.restart(total);
        self.state = State::Refill;
    }

    fn start_up(&mut self, delivered: &Delivered) {
        self.cycle.is_sample = true;
        self.cycle.ack_phase = AckPhase::Starting;
        self.rounds.restart(delivered.total);
        self.full_pipe.restart(delivered.rate());
        self.state = State::Up;
        self.raise_slope();
    }
}

/// When it ends.
impl Bbr {
    /// UpdateProbeBWCyclePhase.
    pub(super) fn update_cycle(&mut self, delivered: &Delivered, limited: bool) {
        if !self.full_pipe.reached() || self.adapt_long_term(delivered, limited) {
            return;
        }
        match self.state {
            State::Down | State::Cruise if self.is_time_to_probe(delivered.now) => {
                self.start_refill(delivered.total);
            }
            State::Down if self.is_time_to_cruise(delivered) => self.start_cruise(State::Down.pacing_gain()),
            State::Refill if self.rounds.is_start() => self.start_up(delivered),
            State::Up => self.end_up(delivered),
            _ => {}
        }
    }

    fn end_up(&mut self, delivered: &Delivered) {
        if self.is_time_to_go_down(delivered) {
            self.cycle.too_high = false;
            self.start_down(delivered.now, delivered.total);
        }
    }

    fn is_time_to_probe(&self, now: Instant) -> bool {
        let rounds = self.rounds.count() - self.cycle.up_round;
        let as_reno = self.target_inflight().div_ceil(self.mss.max(1)).min(MAX_WAIT_ROUNDS);
        now.since(self.cycle.began) > self.cycle.wait || rounds >= as_reno as u64
    }

    fn is_time_to_cruise(&self, delivered: &Delivered) -> bool {
        let room = self.inflight_with_headroom().min(self.inflight(self.max_bw.get(), 100));
        delivered.in_flight <= room
    }

    fn is_time_to_go_down(&mut self, delivered: &Delivered) -> bool {
        let long_term = self.bounds.inflight_long;
        if self.cycle.too_high && delivered.in_flight >= long_term {
            // Last time that was too much: once there, we wait for what the ACKs say.
            self.cycle.cautious = true;
            return true;
        }
        if delivered.cwnd_limited && self.cwnd >= long_term {
            // The bound is what limits the rate, so that it does not grow says nothing.
            self.full_pipe.restart(delivered.rate());
            return false;
        }
        self.full_pipe.is_full()
    }
}

/// The long-term bound.
impl Bbr {
    /// InflightWithHeadroom.
    pub(super) fn inflight_with_headroom(&self) -> usize {
        let long_term = self.bounds.inflight_long;
        if long_term == usize::MAX {
            return usize::MAX;
        }
        let headroom = super::percent_of(HEADROOM_PERCENT, long_term as u64) as usize;
        long_term.saturating_sub(headroom.max(self.mss)).max(self.min_pipe())
    }

    /// AdaptLongTermModel; returns whether it has changed the state.
    fn adapt_long_term(&mut self, delivered: &Delivered, limited: bool) -> bool {
        if self.rounds.is_start() && self.cycle.ack_phase == AckPhase::Starting {
            self.cycle.ack_phase = AckPhase::Feedback;
        }
        let over = self.rounds.is_start() && self.cycle.ack_phase == AckPhase::Stopping;
        if over && self.end_of_search(delivered, limited) {
            return true;
        }
        let Some(sample) = delivered.sample else { return false };
        let safe = !is_too_much(delivered.lost_since_sent, sample.in_flight)
            && (delivered.sack || delivered.lost_since_sent == 0);
        if safe && self.bounds.inflight_long < usize::MAX {
            self.bounds.inflight_long = self.bounds.inflight_long.max(sample.in_flight);
            if self.state == State::Up {
                self.raise_long_term(delivered);
            }
        }
        false
    }

    /// All that UP has sent is acknowledged. If it stopped early, and nothing was wrong with it, it goes on.
    fn end_of_search(&mut self, delivered: &Delivered, limited: bool) -> bool {
        self.cycle.is_sample = false;
        self.cycle.ack_phase = AckPhase::Init;
        if !self.state.is_probe_bw() {
            return false;
        }
        if !limited {
            self.max_bw.advance();
        }
        let goes_on = self.cycle.cautious && !self.cycle.too_high;
        if goes_on {
            self.start_refill(delivered.total);
        }
        goes_on
    }

    /// ProbeInflightLongtermUpward: by one segment in the first round trip, two in the next, and so on.
    fn raise_long_term(&mut self, delivered: &Delivered) {
        if !delivered.cwnd_limited || self.cwnd < self.bounds.inflight_long {
            return;
        }
        let Cycle { up_acked, up_acked_per_segment, .. } = &mut self.cycle;
        *up_acked += delivered.bytes;
        let segments = *up_acked / *up_acked_per_segment;
        *up_acked %= *up_acked_per_segment;
        self.bounds.inflight_long = self.bounds.inflight_long.saturating_add(segments * self.mss);
        if self.rounds.is_start() {
            self.raise_slope();
        }
    }

    /// RaiseInflightLongtermSlope.
    fn raise_slope(&mut self) {
        self.cycle.up_acked_per_segment = (self.cwnd >> self.cycle.up_rounds).max(self.mss).max(1);
        self.cycle.up_rounds = (self.cycle.up_rounds + 1).min(MAX_UP_ROUNDS);
    }
}
