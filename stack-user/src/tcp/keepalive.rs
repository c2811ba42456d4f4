//! Keep-alives: whether a peer that says nothing is still there (RFC 9293 §3.8.4).

use super::{Connection, error::Error, output::Reset, state::State, timer::Timer};
use crate::{
    frame::FramePool,
    time::{Duration, Instant},
};

/// How a connection is kept alive, if at all: without an application's wish, it isn't (RFC 9293 §3.8.4, MUST-24, MUST-25).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long nothing must have come before the peer is asked (MUST-27). Default: two hours, and nobody needs less
    /// unless something on the way forgets connections (MUST-28).
    pub idle: Duration,
    /// The time between two probes. Default: 75 s, as in Linux.
    pub interval: Duration,
    /// Probes that may stay without an answer: ACKs are not delivered reliably, so one says nothing (MUST-29).
    /// Default: 9.
    pub probes: u32,
}

/// By how much keep-alives wait longer than the user time-out: the option's unit.
const MARGIN: Duration = Duration::from_secs(1);

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), probes: 9 }
    }
}

/// How long the peer has been silent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    heard: Instant,
    /// Probes since.
    unanswered: u32,
    /// A probe is due.
    due: bool,
}

impl Silence {
    /// The peer has sent something.
    pub(super) fn ends(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = 0;
    }

    /// A probe goes out.
    pub(super) fn on_sent(&mut self) {
        self.due = false;
    }

    pub(super) fn probe_is_due(&self) -> bool {
        self.due
    }

    /// When the peer was last heard of.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// The same, if it has not been asked since.
    pub(super) fn rest(&self) -> Option<Instant> {
        (self.unanswered == 0 && !self.due).then_some(self.heard)
    }

    /// Goes on after a rest.
    pub(super) fn resume(heard: Instant) -> Self {
        Self { heard, ..Self::default() }
    }
}

impl Connection {
    /// Whether and how a silent peer is asked.
    pub fn keepalive(&self) -> Option<KeepAlive> {
        self.config.keepalive
    }

    /// Asks a silent peer from time to time whether it is there, or not any more (RFC 9293 §3.8.4, MUST-24).
    pub fn set_keepalive(&mut self, now: Instant, keepalive: Option<KeepAlive>) {
        self.config.keepalive = keepalive;
        self.watch_silence(now);
    }

    /// Starts to watch, if that is wanted and there is a peer.
    pub(super) fn watch_silence(&mut self, now: Instant) {
        match self.config.keepalive {
            Some(KeepAlive { idle, .. }) if self.state.is_synchronized() && self.state != State::TimeWait => {
                self.silence = Silence { heard: now, ..Silence::default() };
                self.timers.set(Timer::KeepAlive, now + self.patience(idle));
            }
            _ => {
                self.silence.due = false;
                self.timers.stop(Timer::KeepAlive);
            }
        }
    }

    /// With the user time-out option, a peer that may be gone for that long is not asked sooner (RFC 5482 §4.2).
    fn patience(&self, idle: Duration) -> Duration {
        let longer = self.config.user_timeout_option.map(|_| self.user_timeout().saturating_add(MARGIN));
        longer.map_or(idle, |longer| idle.max(longer))
    }

    /// The timer is not moved with each segment that comes, so it may find that the silence is young.
    pub(super) fn on_keepalive_timeout<P: FramePool>(&mut self, now: Instant, pool: &mut P) {
        let Some(KeepAlive { idle, interval, probes }) = self.config.keepalive else { return };
        let idle = self.patience(idle);
        let since = self.silence.heard + idle;
        // Data that is on its way asks the peer as well, and has a time-out of its own (MUST-26).
        let asks_already = self.send.has_outstanding() || self.send.unsent().is_some();
        if asks_already || now < since {
            self.silence.unanswered = 0;
            let next = if asks_already { now + idle } else { since };
            return self.timers.set(Timer::KeepAlive, next);
        }
        if self.silence.unanswered >= probes {
            // In case that the peer hears us, and only we don't hear it.
            self.reset_due = Some(Reset { seq: self.snd.nxt, ack: Some(self.rcv.nxt) });
            return self.fail(now, pool, self.timeout_error(Error::TimedOut));
        }
        self.silence.unanswered += 1;
        self.silence.due = true;
        self.timers.set(Timer::KeepAlive, now + interval);
    }
}
