//! The shortest round trip, and ProbeRTT (draft-ietf-ccwg-bbr §5.3.4 and §5.5.7): if no round trip was as short for five
//! seconds, little is sent for a fifth of one, so that every queue that is ours goes. All BBR flows that share a path see
//! the short round trip that comes of it at the same time, so that they do it together.

use super::{super::Delivered, Bbr, state::State};
use crate::time::{Duration, Instant};

/// BBR.MinRTTFilterLen.
const FILTER: Duration = Duration::from_secs(10);

/// BBR.ProbeRTTInterval.
const INTERVAL: Duration = Duration::from_secs(5);

/// BBR.ProbeRTTDuration.
const DURATION: Duration = Duration::from_millis(200);

/// A round trip, and when it was measured.
#[derive(Clone, Copy, Debug)]
struct Measured {
    rtt: Duration,
    at: Instant,
}

/// BBR.min_rtt and BBR.probe_rtt_min_delay: the shortest round trips of ten and of five seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct MinRtt {
    min: Option<Measured>,
    recent: Option<Measured>,
    expired: bool,
}

impl MinRtt {
    /// UpdateMinRTT. What is as short as the shortest makes that one young again: the queue was empty just now, and
    /// there is nothing to be learned by ProbeRTT.
    pub(super) fn update(&mut self, now: Instant, rtt: Option<Duration>) {
        self.expired = self.recent.is_some_and(|recent| now.since(recent.at) > INTERVAL);
        if let Some(rtt) = rtt
            && (self.expired || self.recent.is_none_or(|recent| rtt <= recent.rtt))
        {
            self.recent = Some(Measured { rtt, at: now });
        }
        let outdated = |min: Measured, recent: Measured| recent.rtt <= min.rtt || now.since(min.at) > FILTER;
        if let Some(recent) = self.recent
            && self.min.is_none_or(|min| outdated(min, recent))
        {
            self.min = Some(recent);
        }
    }

    pub(super) fn get(&self) -> Option<Duration> {
        self.min.map(|min| min.rtt)
    }

    /// The next five seconds begin.
    fn refresh(&mut self, now: Instant) {
        if let Some(recent) = &mut self.recent {
            recent.at = now;
        }
    }
}

/// A stay in ProbeRTT.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeRtt {
    /// BBR.probe_rtt_done_stamp: when it may end, once little enough is in flight.
    done_at: Option<Instant>,
    /// BBR.probe_rtt_round_done.
    round_done: bool,
    /// What was sent in it: while so much was delivered.
    slowed: Option<(u64, u64)>,
}

impl ProbeRtt {
    /// Whether what was sent when so much was delivered says nothing of how fast the path is.
    pub(super) fn slowed(&self, prior_delivered: u64) -> bool {
        self.slowed.is_some_and(|(from, to)| (from..=to).contains(&prior_delivered))
    }
}

impl Bbr {
    pub(super) fn check_probe_rtt(&mut self, delivered: &Delivered) {
        if self.state != State::ProbeRtt && self.min_rtt.expired && !self.idle_restart {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.probe_rtt =
                ProbeRtt { slowed: Some((delivered.total, delivered.total)), ..Default::default() };
            self.cycle.probe_rtt_began();
            self.rounds.restart(delivered.total);
        }
        if self.state == State::ProbeRtt {
            self.stay_in_probe_rtt(delivered);
        }
        if delivered.bytes > 0 {
            self.idle_restart = false;
        }
    }

    /// HandleProbeRTT.
    fn stay_in_probe_rtt(&mut self, delivered: &Delivered) {
        if let Some((_, to)) = &mut self.probe_rtt.slowed {
            *to = delivered.total + delivered.in_flight as u64;
        }
        if self.probe_rtt.done_at.is_some() {
            self.probe_rtt.round_done |= self.rounds.is_start();
            if self.probe_rtt.round_done {
                self.check_probe_rtt_done(delivered.now);
            }
        } else if delivered.in_flight <= self.probe_rtt_cwnd() {
            self.probe_rtt.done_at = Some(delivered.now + DURATION);
            self.rounds.restart(delivered.total);
        }
    }

    /// CheckProbeRTTDone and ExitProbeRTT (§5.3.4.4): the next search for bandwidth is to wait, but what there is of it
    /// can be used, since the queue is gone.
    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.probe_rtt.done_at.is_none_or(|done_at| now <= done_at) {
            return;
        }
        self.probe_rtt.done_at = None;
        self.min_rtt.refresh(now);
        self.restore_cwnd();
        self.bounds.forget_short_term();
        if self.full_pipe.reached() {
            self.start_down(now, self.latest.total);
            self.start_cruise(State::ProbeRtt.cwnd_gain());
        } else {
            self.state = State::Startup;
        }
    }
}
