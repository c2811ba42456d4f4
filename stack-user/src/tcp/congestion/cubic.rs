//! CUBIC (RFC 9438): in congestion avoidance, the window is a cubic function of the time since the last congestion.
//!
//! It rises fast back towards the size at which congestion was found (W_max), stays there for a while, and then looks
//! for more, faster and faster. Since time drives it and not round trips, a long path is not at a disadvantage. Where
//! that would be slower than Reno (short paths, small windows), it grows as Reno would.
//!
//! Windows are bytes here, where the RFC counts segments; so C is multiplied by the segment's size. They are kept as
//! `f64` because an ACK may open a large window by less than a byte. Only `+ - * /` are used on them, whose results
//! IEEE 754 fixes, so that a run repeats itself on every machine.

use super::{
    Acked, CongestionControl, Rest, Signal, initial_window, shrink_with_mss,
    slow_start::{Growth, SlowStart},
};
use crate::time::{Duration, Instant};

/// How fast the window grows, in segments per cubic second (RFC 9438 §4.1.1 and §5.1).
const C: f64 = 0.4;

/// What a loss leaves of the window (RFC 9438 §4.1.1, beta_cubic).
const BETA: f64 = 0.7;

/// What a mark of ECN leaves of it, in congestion avoidance (RFC 8511 §3.1): who marks keeps the queue short, so less
/// has to go.
const BETA_ECN: f64 = 0.85;

/// Segments per window and round trip that Reno would have to add, if it reduced by [`BETA`], to get the throughput
/// that it has (RFC 9438 §4.3, alpha_cubic).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The window never aims at more than this part of itself a round trip later (RFC 9438 §4.2).
const MAX_GROWTH: f64 = 1.5;

/// The smallest ssthresh, and what a loss leaves of the window at least, in segments (RFC 9438 §4.6). A mark of ECN may
/// leave one.
const MIN_SSTHRESH: usize = 2;

/// RFC 9438.
#[derive(Clone, Debug)]
pub struct Cubic {
    mss: usize,
    slow_start: SlowStart,
    now: State,
    /// What was before the last congestion.
    before: Option<State>,
}

/// All that a congestion changes, and that RFC 9438 §4.9.2 restores if it was none.
#[derive(Clone, Debug)]
struct State {
    cwnd: f64,
    ssthresh: usize,
    /// W_max: the window at which the last congestion was found, or less (§4.7). 0 when there is none to return to.
    w_max: f64,
    /// cwnd_prior: the window before the last congestion.
    cwnd_prior: f64,
    /// The present congestion avoidance, once its first ACK has come.
    epoch: Option<Epoch>,
}

/// One stage of congestion avoidance.
#[derive(Clone, Debug)]
struct Epoch {
    /// t_epoch, moved on by the time in which the window was not used (§5.8).
    start: Instant,
    /// K: seconds until the window is W_max again.
    k: f64,
    /// W_est: the window that Reno would have.
    w_est: f64,
    /// When the last ACK came, or sending went on after a pause.
    last_ack: Instant,
}

impl Cubic {
    /// A window of IW.
    pub fn new(mss: usize) -> Self {
        let cwnd = initial_window(mss) as f64;
        let now = State { cwnd, ssthresh: usize::MAX, w_max: 0.0, cwnd_prior: 0.0, epoch: None };
        Self { mss, slow_start: SlowStart::default(), now, before: None }
    }

    fn in_slow_start(&self) -> bool {
        self.cwnd() < self.now.ssthresh
    }

    fn grow_in_slow_start(&mut self, acked: &Acked) {
        let Growth { bytes, done } = self.slow_start.on_ack(acked, self.mss, self.now.ssthresh);
        self.now.cwnd += bytes as f64;
        if done {
            // RFC 9438 §4.10: no congestion was found, so there is no W_max to return to.
            self.now.ssthresh = self.cwnd();
            self.now.cwnd_prior = self.now.cwnd;
        }
        if !self.in_slow_start() {
            self.slow_start.on_end();
        }
    }

    fn avoid_congestion(&mut self, acked: &Acked) {
        let mss = self.mss as f64;
        let state = &mut self.now;
        let epoch = state.epoch.get_or_insert_with(|| {
            // RFC 9438 §4.2, and §4.8 and §4.10 where there is no W_max: then K is 0 and the window itself is W_max.
            state.w_max = state.w_max.max(state.cwnd);
            let k = cube_root((state.w_max - state.cwnd) / (C * mss));
            Epoch { start: acked.now, k, w_est: state.cwnd, last_ack: acked.now }
        });
        if !acked.cwnd_limited {
            return epoch.skip_to(acked.now);
        }
        epoch.last_ack = acked.now;
        // An ACK that ends a recovery covers more than what was sent in this window.
        let bytes = (acked.bytes as f64).min(state.cwnd);

        // RFC 9438 §4.3. Above cwnd_prior, Reno's own pace.
        let alpha = if epoch.w_est >= state.cwnd_prior { 1.0 } else { ALPHA };
        epoch.w_est += alpha * mss * bytes / state.cwnd;

        let elapsed = acked.now.since(epoch.start);
        let w_cubic = |t: Duration| {
            let t = t.as_secs_f64() - epoch.k;
            C * mss * t * t * t + state.w_max
        };
        if w_cubic(elapsed) < epoch.w_est {
            state.cwnd = state.cwnd.max(epoch.w_est);
        } else {
            // RFC 9438 §4.4 and §4.5: by the target's distance within a round trip.
            let rtt = acked.srtt.or(acked.rtt).unwrap_or_default();
            let target = w_cubic(elapsed + rtt).clamp(state.cwnd, MAX_GROWTH * state.cwnd);
            state.cwnd += (target - state.cwnd) * bytes / state.cwnd;
        }
    }

    /// What a signal leaves of the window.
    fn beta(&self, signal: Signal) -> f64 {
        // RFC 8511 §3: in slow start a mark means as much as a loss.
        if signal == Signal::Ecn && !self.in_slow_start() { BETA_ECN } else { BETA }
    }
}

impl CongestionControl for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn cwnd(&self) -> usize {
        self.now.cwnd as usize
    }

    fn ssthresh(&self) -> usize {
        self.now.ssthresh
    }

    fn on_ack(&mut self, acked: &Acked) {
        if self.in_slow_start() {
            self.grow_in_slow_start(acked);
        } else {
            self.avoid_congestion(acked);
        }
    }

    /// RFC 9438 §4.6 to §4.8.
    fn on_congestion(&mut self, _now: Instant, signal: Signal, in_flight: usize) {
        let beta = self.beta(signal);
        self.before = Some(self.now.clone());
        let state = &mut self.now;
        state.cwnd_prior = state.cwnd;
        // Fast convergence: less than last time, so somebody else needs room.
        state.w_max = if state.cwnd < state.w_max { state.cwnd * (1.0 + BETA) / 2.0 } else { state.cwnd };
        let reduced = ((in_flight as f64).min(state.cwnd) * beta) as usize;
        state.ssthresh = reduced.max(MIN_SSTHRESH * self.mss);
        state.cwnd = state.ssthresh as f64;
        state.epoch = None;
        match signal {
            Signal::Timeout => {
                state.cwnd = self.mss as f64;
                state.w_max = 0.0;
                self.slow_start.on_timeout();
            }
            Signal::Ecn => state.cwnd = reduced.max(self.mss) as f64,
            Signal::Loss => {}
        }
    }

    /// RFC 9438 §4.9.2: all is as it was, unless the window has grown beyond that by now.
    fn on_spurious(&mut self, _now: Instant) {
        if let Some(before) = self.before.take() {
            if self.now.cwnd < before.cwnd {
                // Seven tenths of a window that had grown are more than what the threshold was.
                let ssthresh = self.now.ssthresh.max(before.ssthresh);
                self.now = State { ssthresh, ..before };
            }
            self.slow_start.on_end();
        }
    }

    /// RFC 7661 §4.4.1.
    fn on_recovered(&mut self, repaired: usize) {
        let window = (self.now.cwnd - BETA * repaired as f64).max(self.mss as f64);
        self.now.cwnd = window.min(self.now.cwnd);
        self.now.ssthresh = self.cwnd().max(MIN_SSTHRESH * self.mss);
    }

    fn on_idle(&mut self, now: Instant, idle: Duration, rto: Duration) {
        if let Some(epoch) = &mut self.now.epoch {
            epoch.skip_to(now);
        }
        if idle > rto {
            // RFC 5681 §4.1.
            self.now.cwnd = self.now.cwnd.min(initial_window(self.mss) as f64);
            self.now.epoch = None;
        }
    }

    fn on_unused(&mut self) {
        let state = &mut self.now;
        state.ssthresh = state.ssthresh.max((state.cwnd * 0.75) as usize);
        state.cwnd = (state.cwnd / 2.0).max(initial_window(self.mss) as f64).min(state.cwnd);
        state.epoch = None;
    }

    fn set_mss(&mut self, mss: usize) {
        self.now.cwnd = shrink_with_mss(self.cwnd(), self.mss, mss) as f64;
        self.now.epoch = None;
        self.mss = mss;
    }

    fn restart_from_one_segment(&mut self) {
        self.now.cwnd = self.mss as f64;
        self.now.epoch = None;
        self.slow_start.on_timeout();
    }

    fn rest(&self) -> Option<Rest> {
        let State { cwnd, ssthresh, w_max, cwnd_prior, ref epoch } = self.now;
        let is_plain = self.before.is_none() && epoch.is_none() && w_max == 0.0 && cwnd_prior == 0.0;
        let rest = Rest::of(self.mss, self.cwnd(), ssthresh, self.slow_start.rest()?)?;
        (is_plain && f64::from(rest.cwnd) == cwnd).then_some(rest)
    }

    fn resume(&mut self, rest: &Rest) {
        self.now.cwnd = rest.cwnd.into();
        self.slow_start = SlowStart::resume(rest.round_min_rtt);
    }
}

impl Epoch {
    /// RFC 9438 §5.8: the time since the last ACK does not count, because the window was not used.
    fn skip_to(&mut self, now: Instant) {
        self.start += now.since(self.last_ack);
        self.last_ack = now;
    }
}

/// The cube root of what is not negative, by Newton's method. Called once per epoch.
fn cube_root(x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    // From above it only falls, by about a third per step as long as it is far off.
    let mut root = x.max(1.0);
    loop {
        let next = (2.0 * root + x / (root * root)) / 3.0;
        if next < root {
            root = next;
        } else {
            return root;
        }
    }
}

#[cfg(test)]
mod tests;
