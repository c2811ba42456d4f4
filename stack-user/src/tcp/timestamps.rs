//! Timestamps of one connection: our clock, TS.Recent and PAWS (RFC 7323 §3 to §5).

use super::{options::Timestamps, seq::SeqNumber};
use crate::time::{Duration, Instant};

/// A TS.Recent that is older than this proves nothing: the peer's clock may have gone half around (RFC 7323 §5.5,
/// for a clock of 1 ms).
const RECENT_IS_STALE: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// What the clock counts. RFC 7323 §5.4 allows 1 ms to 1 s.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// The state of the timestamps option.
#[derive(Clone, Debug)]
pub struct TimestampState {
    /// Both sides sent the option on their SYNs.
    pub enabled: bool,
    offset: u32,
    recent: u32,
    recent_at: Instant,
}

impl TimestampState {
    /// A clock that is `offset` away from ours (RFC 7323 §7.1: it does not tell how long we have been up).
    pub fn new(offset: u32) -> Self {
        Self { enabled: false, offset, recent: 0, recent_at: Instant::ZERO }
    }

    /// The peer's SYN has the option.
    pub fn enable(&mut self, now: Instant, peer: Timestamps) {
        self.enabled = true;
        self.recent = peer.value;
        self.recent_at = now;
    }

    /// TSval, in [ticks](TICK).
    pub fn clock(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.offset)
    }

    /// The option of a segment that we send.
    pub fn option(&self, now: Instant) -> Timestamps {
        Timestamps { value: self.clock(now), echo: self.recent }
    }

    /// Whether PAWS rejects a segment (RFC 7323 §5.3, R1): its timestamp is older than TS.Recent, which is not stale.
    pub fn is_old(&self, now: Instant, peer: Timestamps) -> bool {
        self.enabled
            && SeqNumber(peer.value).before(SeqNumber(self.recent))
            && now.since(self.recent_at) < RECENT_IS_STALE
    }

    /// An acceptable segment came: keep its timestamp to echo it (RFC 7323 §4.3, rule 2), if the segment covers the
    /// last ACK that we sent. So of several segments that one ACK answers, the earliest is echoed, and the peer
    /// measures our delay as part of the round trip.
    pub fn update(&mut self, now: Instant, peer: Timestamps, seq: SeqNumber, last_ack_sent: SeqNumber) {
        let not_older = SeqNumber(peer.value).at_or_after(SeqNumber(self.recent));
        let stale = now.since(self.recent_at) >= RECENT_IS_STALE;
        if self.enabled && (not_older || stale) && seq.at_or_before(last_ack_sent) {
            self.recent = peer.value;
            self.recent_at = now;
        }
    }

    /// When the segment that an ACK answers was sent at the latest, as the echo tells: the end of our clock's tick. What
    /// was sent after that is not what was answered (RFC 3522 §3.2). `None` where `round_trip` has none.
    pub fn answered_at(&self, now: Instant, peer: Timestamps) -> Option<Instant> {
        self.round_trip(now, peer)?;
        let ticks = u64::from(self.clock(now).wrapping_sub(peer.echo));
        let tick = now.as_millis().checked_sub(ticks)?;
        Some(Instant::from_nanos(Instant::from_millis(tick + 1).as_nanos() - 1))
    }

    /// The round trip that an echoed timestamp tells (RFC 7323 §4.1), unless it can't have come from us.
    pub fn round_trip(&self, now: Instant, peer: Timestamps) -> Option<Duration> {
        let ticks = SeqNumber(self.clock(now)).distance(SeqNumber(peer.echo));
        // An echo of 0 stands for none in many stacks; one that lies minutes back is broken or a trick.
        let plausible = self.enabled && peer.echo != 0 && (0..=300_000).contains(&ticks);
        // Half a tick would be the mean; a whole one never underestimates.
        plausible.then(|| Duration::from_millis(ticks.unsigned_abs().max(1).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(value: u32, echo: u32) -> Timestamps {
        Timestamps { value, echo }
    }

    fn state() -> TimestampState {
        let mut state = TimestampState::new(u32::MAX - 10);
        state.enable(Instant::ZERO, ts(1000, 0));
        state
    }

    #[test]
    fn paws_rejects_older_until_24_days_have_passed_rfc7323_5() {
        let state = state();
        let day = Duration::from_secs(86_400);
        assert!(state.is_old(Instant::ZERO, ts(999, 0)));
        assert!(!state.is_old(Instant::ZERO, ts(1000, 0)));
        assert!(state.is_old(Instant::ZERO + 23 * day, ts(999, 0)));
        assert!(!state.is_old(Instant::ZERO + 25 * day, ts(999, 0)));
    }

    #[test]
    fn only_a_segment_that_covers_the_last_ack_sent_is_echoed_rfc7323_4_3() {
        let mut state = state();
        let last_ack_sent = SeqNumber(500);
        state.update(Instant::ZERO, ts(1100, 0), SeqNumber(501), last_ack_sent);
        assert_eq!(state.option(Instant::ZERO).echo, 1000);
        state.update(Instant::ZERO, ts(1100, 0), SeqNumber(500), last_ack_sent);
        assert_eq!(state.option(Instant::ZERO).echo, 1100);
        state.update(Instant::ZERO, ts(1050, 0), SeqNumber(500), last_ack_sent);
        assert_eq!(state.option(Instant::ZERO).echo, 1100, "an older one is not");
    }

    #[test]
    fn round_trips_survive_the_wrap_and_nonsense() {
        let state = state();
        let echo = state.clock(Instant::from_millis(5));
        let now = Instant::from_millis(45);
        assert_eq!(state.round_trip(now, ts(0, echo)), Some(Duration::from_millis(40)));
        assert_eq!(state.round_trip(now, ts(0, echo.wrapping_add(1000))), None, "from the future");
        assert_eq!(state.round_trip(now, ts(0, 0)), None);
    }
}
