//! The user time-out: how long what we send may stay without an acknowledgement (RFC 9293 §3.8.3, R2), and the option by
//! which two ends tell each other theirs (RFC 5482), so that neither gives up long before the other.
//!
//! The option is advice, and whoever follows it lets the peer decide how long it holds memory here. So it is neither sent
//! nor believed unless the configuration says so, and then within limits.

use core::num::NonZeroU16;

use super::{Connection, config::Config, timer::Timer};
use crate::time::{Duration, Instant};

/// The value of the option: seconds or minutes in 15 bits, and a bit that says which (RFC 5482 §3.3). Zero is reserved
/// (§3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserTimeout(NonZeroU16);

/// The granularity bit: minutes.
const MINUTES: u16 = 1 << 15;

impl UserTimeout {
    /// The option for a time: rounded down, since nobody shall count on more than we give; a second at least, and 22 days
    /// at most.
    pub fn new(time: Duration) -> Self {
        let seconds = time.as_secs().max(1);
        let value = match u16::try_from(seconds) {
            Ok(seconds) if seconds < MINUTES => seconds,
            _ => MINUTES | (seconds / 60).min(u64::from(MINUTES - 1)) as u16,
        };
        Self(NonZeroU16::new(value).unwrap_or(NonZeroU16::MIN))
    }

    /// What the option says on the wire, if that means anything: a value of zero is ignored (RFC 5482 §3.4).
    pub fn from_bits(bits: u16) -> Option<Self> {
        if bits & !MINUTES == 0 { None } else { NonZeroU16::new(bits).map(Self) }
    }

    /// As on the wire.
    pub fn bits(self) -> u16 {
        self.0.get()
    }

    /// The time.
    pub fn duration(self) -> Duration {
        let value = u64::from(self.bits() & !MINUTES);
        Duration::from_secs(if self.bits() & MINUTES == 0 { value } else { 60 * value })
    }
}

/// What a peer may make of our user time-out (RFC 5482 §3.1: L_LIMIT and U_LIMIT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserTimeoutLimits {
    /// It is never made shorter than this. Default: 100 s, which RFC 9293 §3.8.3 asks for (SHLD-11); less, and a peer has
    /// connections end that a short outage interrupts.
    pub lower: Duration,
    /// Nor longer than this. Default: an hour; more, and a peer that has gone makes us hold what we wrote for that long.
    pub upper: Duration,
}

impl Default for UserTimeoutLimits {
    fn default() -> Self {
        Self { lower: Duration::from_secs(100), upper: Duration::from_secs(3600) }
    }
}

/// What a connection has agreed on.
#[derive(Clone, Debug, Default)]
pub(super) struct UserTimeoutState {
    /// The application has chosen, so the peer has no say: CHANGEABLE is false (RFC 5482 §3.1).
    pub(super) is_chosen: bool,
    /// REMOTE_UTO: what the peer has told.
    pub(super) remote: Option<UserTimeout>,
    /// The peer is still to be told ours.
    pub(super) is_due: bool,
}

impl Config {
    /// ADV_UTO, if the option is ENABLED (RFC 5482 §3).
    pub(super) fn advertised_user_timeout(&self) -> Option<UserTimeout> {
        self.user_timeout_option.map(|_| UserTimeout::new(self.user_timeout))
    }
}

impl Connection {
    /// USER_TIMEOUT: ours, or the peer's if that is longer, within the limits (RFC 5482 §3.1).
    pub fn user_timeout(&self) -> Duration {
        let ours = self.config.user_timeout;
        match (self.config.user_timeout_option, self.user_timeout_state.remote) {
            (Some(UserTimeoutLimits { lower, upper }), Some(remote))
                if !self.user_timeout_state.is_chosen =>
            {
                // Time for one retransmission, at least: L_LIMIT must be more than RTO.
                let lower = lower.max(self.rtt.rto().saturating_mul(2));
                ours.max(remote.duration()).max(lower).min(upper)
            }
            _ => ours,
        }
    }

    /// How long the peer may leave data unacknowledged: R2 (RFC 9293 §3.8.3, MUST-21). It holds from now on also for what
    /// is on its way. If the [option](Config::user_timeout_option) is used, the peer is told (RFC 5482 §3), and can't
    /// change it any more.
    pub fn set_user_timeout(&mut self, now: Instant, timeout: Duration) {
        self.change_user_timeout(now, |connection| {
            connection.config.user_timeout = timeout;
            connection.user_timeout_state.is_chosen = true;
        });
        if self.config.user_timeout_option.is_some() {
            self.user_timeout_state.is_due = true;
            if self.state.is_synchronized() {
                self.acks.require();
            }
        }
    }

    /// The peer may have told its user time-out.
    pub(super) fn take_user_timeout(&mut self, now: Instant, told: Option<UserTimeout>) {
        if told.is_some() && self.config.user_timeout_option.is_some() {
            self.change_user_timeout(now, |connection| connection.user_timeout_state.remote = told);
        }
    }

    /// The time that has passed already counts: who changes it again and again puts no end off.
    fn change_user_timeout(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        let before = self.user_timeout();
        change(self);
        if let Some(at) = self.timers.at(Timer::User) {
            let began = at.since(Instant::ZERO).checked_sub(before);
            let began = began.map_or(now, |began| Instant::ZERO + began);
            self.timers.set(Timer::User, began + self.user_timeout());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_minutes_rfc5482_3_3() {
        let there_and_back = |s| UserTimeout::new(Duration::from_secs(s)).duration().as_secs();
        for exact in [1, 100, 300, 32_767, 32_820, 60 * 32_767] {
            assert_eq!(there_and_back(exact), exact);
        }
        assert_eq!(there_and_back(32_768), 60 * 546, "minutes, rounded down");
        assert_eq!(there_and_back(0), 1, "zero is reserved (§3.4)");
        assert_eq!(UserTimeout::new(Duration::MAX).duration().as_secs(), 60 * 32_767);
        assert_eq!(UserTimeout::new(Duration::from_secs(300)).bits(), 300);
        assert_eq!(UserTimeout::new(Duration::from_secs(36_000)).bits(), 0x8000 | 600);
    }

    #[test]
    fn zero_says_nothing_rfc5482_3_4() {
        assert_eq!(UserTimeout::from_bits(0), None);
        assert_eq!(UserTimeout::from_bits(MINUTES), None);
        assert_eq!(
            UserTimeout::from_bits(MINUTES | 2).map(UserTimeout::duration),
            Some(Duration::from_secs(120))
        );
    }
}
