//! Probing a window that is closed, or too small to be worth a segment (RFC 9293 §3.8.6.1).

use crate::time::Duration;

/// The longest time between two probes.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// How many probes went out since the window was last open, and whether one is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Persist {
    probes: u32,
    due: bool,
    /// What was sent again last lies beyond the window.
    asked: bool,
}

impl Persist {
    /// The time to the next probe: first RTO, then twice as long each time (SHLD-29, SHLD-30).
    pub fn interval(&self, rto: Duration) -> Duration {
        rto.saturating_mul(1 << self.probes.min(16)).min(MAX_INTERVAL)
    }

    /// The timer expired.
    pub fn on_timer(&mut self) {
        self.probes += 1;
        self.due = true;
    }

    /// Whether a probe is due.
    pub fn is_due(&self) -> bool {
        self.due
    }

    /// A probe, or data in its place, went out.
    pub fn on_sent(&mut self) {
        self.due = false;
    }

    /// Outstanding data was sent again; that may be the first segment of it, beyond a window that has shrunk.
    pub fn on_repeated(&mut self, beyond_window: bool) {
        self.asked = beyond_window;
    }

    /// Whether the peer was asked by a segment that it had no room for. Answers yes once.
    pub fn take_asked(&mut self) -> bool {
        core::mem::take(&mut self.asked)
    }

    /// Whether nothing has been asked since the window was last open.
    pub(super) fn is_at_rest(&self) -> bool {
        *self == Self::default()
    }

    /// The window opened.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Probes since the window was last open.
    pub fn probes(&self) -> u32 {
        self.probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_a_minute_shld_30() {
        let mut persist = Persist::default();
        let rto = Duration::from_millis(300);
        assert_eq!(persist.interval(rto), rto);
        persist.on_timer();
        assert!(persist.is_due());
        assert_eq!(persist.interval(rto), 2 * rto);
        (0..100).for_each(|_| persist.on_timer());
        assert_eq!(persist.interval(rto), MAX_INTERVAL);
    }
}
