//! The timers of one connection: a small table of points in time.

use crate::time::Instant;

/// What waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Something sent has not been acknowledged: SYN, data or FIN (RFC 6298). Runs exactly while something is
    /// outstanding.
    Retransmit,
    /// A segment that later ones have overtaken gets until then to arrive (RFC 8985 §6.2, step 5). Runs only while
    /// something is outstanding.
    Reorder,
    /// No ACK has come for so long that the end of the flight may be lost: PTO (RFC 8985 §7.2). Runs only beside
    /// `Retransmit`, and expires no later. RFC 8985 §8 has one timer that is one of the three at a time; that is the same,
    /// since the probe puts `Retransmit` off, and what is sent for `Reorder` does.
    LossProbe,
    /// Received data waits for its ACK (RFC 9293 §3.8.6.3).
    DelayedAck,
    /// Data waits for a window that is closed or too small (RFC 9293 §3.8.6.1). Never runs beside `Retransmit`.
    Persist,
    /// The SYN must be acknowledged by then (RFC 9293 §3.8.3, R2 for SYN).
    Connect,
    /// The peer must have shown progress by then (RFC 9293 §3.8.3, R2).
    User,
    /// In FIN-WAIT-2 after `close`: nobody would read what the peer may still send, so we don't wait for ever.
    FinWait2,
    /// 2 MSL in TIME-WAIT (RFC 9293 §3.3.2).
    TimeWait,
    /// The peer has been silent for long (RFC 9293 §3.8.4).
    KeepAlive,
    /// Data waits for its turn, so that it does not leave in a burst.
    Pacing,
    /// No chunk was left to send with; the pool may have some again.
    FrameRetry,
}

impl Timer {
    /// All timers, in the order in which those that are due at once are served: an end comes before a try.
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::User,
        Self::FinWait2,
        Self::TimeWait,
        Self::Reorder,
        // Before `Retransmit`, which a probe puts off (RFC 8985 §7.3).
        Self::LossProbe,
        Self::Retransmit,
        Self::Persist,
        Self::DelayedAck,
        Self::KeepAlive,
        Self::Pacing,
        Self::FrameRetry,
    ];
}

/// When each timer expires.
#[derive(Clone, Debug, Default)]
pub struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    /// Starts a timer, or moves it.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Starts a timer, or leaves it if it would expire sooner.
    pub fn set_if_earlier(&mut self, timer: Timer, at: Instant) {
        let current = &mut self.0[timer as usize];
        *current = Some(current.map_or(at, |current| current.min(at)));
    }

    /// Stops a timer.
    pub fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Stops all timers.
    pub fn stop_all(&mut self) {
        *self = Self::default();
    }

    /// When a timer expires, if it runs.
    pub fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// Whether a timer runs.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// The timers that run, and when each expires.
    pub fn iter(&self) -> impl Iterator<Item = (Timer, Instant)> + '_ {
        Timer::ALL.into_iter().filter_map(|timer| self.0[timer as usize].map(|at| (timer, at)))
    }

    /// When the next one expires.
    pub fn next(&self) -> Option<Instant> {
        let nanos = |at: &Option<Instant>| at.map_or(u64::MAX, Instant::as_nanos);
        let first = self.0.iter().map(nanos).min().unwrap_or(u64::MAX);
        (first != u64::MAX).then(|| Instant::from_nanos(first))
    }

    /// Stops one timer that has expired and tells which.
    pub fn take_expired(&mut self, now: Instant) -> Option<Timer> {
        let due = |timer: &Timer| self.0[*timer as usize].is_some_and(|at| at <= now);
        let timer = Timer::ALL.into_iter().find(due)?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_timers_come_out_once_and_ends_before_tries() {
        let mut timers = Timers::default();
        let at = Instant::from_millis;
        timers.set(Timer::Retransmit, at(10));
        timers.set(Timer::User, at(10));
        timers.set(Timer::DelayedAck, at(20));
        timers.set_if_earlier(Timer::DelayedAck, at(30));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.take_expired(at(9)), None);
        assert_eq!(timers.take_expired(at(15)), Some(Timer::User));
        assert_eq!(timers.take_expired(at(15)), Some(Timer::Retransmit));
        assert_eq!(timers.take_expired(at(15)), None);
        assert_eq!(timers.next(), Some(at(20)));
    }
}
