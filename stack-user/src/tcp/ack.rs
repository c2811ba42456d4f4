//! When to acknowledge: delayed ACKs, and the limit of ACKs that an attacker can provoke.

use super::{block::DEFAULT_MSS, config::Config};
use crate::{
    rng::Rng,
    time::{Duration, Instant},
};

/// How long an ACK may wait for data to travel with (RFC 9293 §3.8.6.3, SHLD-18; MUST-40 allows
/// 500 ms). As Linux: long enough
/// for an application's answer, short enough for a peer that waits for each ACK.
pub const DELAY: Duration = Duration::from_millis(40);

/// Full segments that an ACK is held for at most. Fewer, and who looks often answers every second one; more, and the sender's window
/// moves in leaps: Linux, which takes bursts in as one, answers after up to 45.
const HELD_SEGMENTS: usize = 16;

/// Segments at a connection's start that are acknowledged as soon as may be: the peer is in slow start, and each ACK opens its
/// window.
const QUICK_ACKS: u8 = 16;

/// What the peer is still to be told.
#[derive(Debug)]
pub struct AckState {
    due: bool,
    /// It may wait until then, and for that.
    held: Option<(Instant, Hold)>,
    quick_left: u8,
}

/// What an ACK that is due waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// For the others of a burst.
    Burst,
    /// For what the application answers.
    Answer,
}

impl Hold {
    /// How long it is at most, as it is configured, within what an ACK may be [delayed](DELAY) by; zero is not at all. One for a burst is no
    /// longer than one for an answer.
    fn time(self, config: &Config) -> Duration {
        let burst = config.ack_hold.min(DELAY);
        match self {
            Self::Answer if !burst.is_zero() => config.answer_hold.clamp(burst, DELAY),
            Self::Burst | Self::Answer => burst,
        }
    }
}

/// How soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Now.
    Immediate,
    /// Within [`DELAY`].
    Delayed,
}

impl Default for AckState {
    fn default() -> Self {
        Self { due: false, held: None, quick_left: QUICK_ACKS }
    }
}

impl AckState {
    /// Segments that are still acknowledged at once, if nothing is due.
    pub(super) fn rest(&self) -> Option<u8> {
        (!self.due).then_some(self.quick_left)
    }

    /// Goes on after a rest.
    pub(super) fn resume(quick_left: u8) -> Self {
        Self { due: false, held: None, quick_left }
    }

    /// Data came in order, in so many segments at once; `unacknowledged` bytes have not been acknowledged yet. Every second full
    /// segment is (RFC 9293 §3.8.6.3, SHLD-19), or with the others of a burst whose end comes soon, or with the answer to a request:
    /// what is less than a full segment is taken for one.
    pub fn on_data(
        &mut self,
        now: Instant,
        segments: usize,
        unacknowledged: usize,
        mss: usize,
        config: &Config,
    ) -> Urgency {
        let is_quick = self.quick_left > 0;
        self.quick_left = self.quick_left.saturating_sub(segments.try_into().unwrap_or(u8::MAX));
        if is_quick && unacknowledged < mss.max(DEFAULT_MSS.into()) {
            self.require_with_answer(now, config);
        } else if is_quick || unacknowledged >= 2 * mss {
            self.require_within(now, config);
        }
        if unacknowledged >= HELD_SEGMENTS * mss {
            self.held = None;
        }
        if self.due { Urgency::Immediate } else { Urgency::Delayed }
    }

    /// An ACK has to go now.
    pub fn require(&mut self) {
        (self.due, self.held) = (true, None);
    }

    /// An ACK has to go as soon as the burst is over, or with what the application has to say before that.
    pub fn require_within(&mut self, now: Instant, config: &Config) {
        self.hold(now, Hold::Burst, config);
    }

    /// The same, where the application will most likely have something to say.
    pub fn require_with_answer(&mut self, now: Instant, config: &Config) {
        self.hold(now, Hold::Answer, config);
    }

    fn hold(&mut self, now: Instant, what: Hold, config: &Config) {
        // What goes at once can't go sooner. Of those that wait for the same, the first is over first.
        if self.due && self.held.is_none_or(|(_, first)| first <= what) {
            return;
        }
        let time = what.time(config);
        let held = (!time.is_zero()).then_some((now + time, what));
        self.held = if self.due { self.held.min(held) } else { held };
        self.due = true;
    }

    /// Whether an ACK has to go now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due && self.held.is_none_or(|(until, _)| until <= now)
    }

    /// Whether an ACK has to go, now or soon.
    pub fn is_owed(&self) -> bool {
        self.due
    }

    /// Until when one that has to go waits, and for what.
    pub fn held(&self) -> Option<(Instant, Hold)> {
        self.held
    }

    /// A segment with the latest ACK goes out.
    pub fn on_sent(&mut self) {
        (self.due, self.held) = (false, None);
    }
}

/// ACKs in answer to segments that are not acceptable (RFC 5961 §7): without a limit, forged segments would make us
/// send, and two confused peers would answer each other for ever.
#[derive(Debug, Default)]
pub struct ChallengeLimit {
    window_start: Instant,
    count: u32,
}

/// RFC 5961 §7 suggests 10 in 5 s.
const CHALLENGES: u32 = 10;
const CHALLENGE_WINDOW: Duration = Duration::from_secs(5);

impl ChallengeLimit {
    /// When those that were sent do not count any more.
    pub(super) fn ends(&self) -> Instant {
        if self.count == 0 { Instant::ZERO } else { self.window_start + CHALLENGE_WINDOW }
    }

    /// Whether one more may be sent; if so it counts.
    pub fn allow(&mut self, now: Instant) -> bool {
        if now.since(self.window_start) >= CHALLENGE_WINDOW {
            self.window_start = now;
            self.count = 0;
        }
        self.count += 1;
        self.count <= CHALLENGES
    }
}

/// Challenge ACKs of all connections together (RFC 5961 §7).
///
/// A fixed number would tell an attacker, who counts how many of his own segments are answered, whether others were
/// answered for somebody else's connection: CVE-2016-5696. So how many there are in a second is drawn anew each time.
#[derive(Debug)]
pub struct ChallengeBudget {
    rng: Rng,
    ends: Instant,
    left: u32,
}

/// Challenge ACKs in a second: half of it to one and a half. Fewer, and peers that have lost their state wait for long
/// in a flood; more, and the flood takes the TX ring. Linux has the same.
const BUDGET: u32 = 1000;
const BUDGET_WINDOW: Duration = Duration::from_secs(1);

impl ChallengeBudget {
    /// A budget whose size nobody can tell.
    pub fn new(rng: Rng) -> Self {
        Self { rng, ends: Instant::ZERO, left: 0 }
    }

    /// Whether one more may be sent.
    pub fn has(&mut self, now: Instant) -> bool {
        if now >= self.ends {
            self.ends = now + BUDGET_WINDOW;
            self.left = BUDGET / 2 + self.rng.below(BUDGET.into()) as u32;
        }
        self.left > 0
    }

    /// One was sent.
    pub fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let has = self.has(now);
        self.spend();
        has
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    const NOW: Instant = Instant::from_millis(1000);

    /// So many microseconds for a burst, and so many for an answer.
    fn holding(ack_hold: u64, answer_hold: u64) -> Config {
        let [ack_hold, answer_hold] = [ack_hold, answer_hold].map(Duration::from_micros);
        Config { ack_hold, answer_hold, ..Config::default() }
    }

    #[test]
    fn none_is_held_for_longer_than_an_ack_may_be_delayed_must_40() {
        let of = |ack_hold: u64, answer_hold: u64| {
            let config = holding(ack_hold, answer_hold);
            [Hold::Burst, Hold::Answer].map(|hold| hold.time(&config).as_micros() as u64)
        };
        assert_eq!(of(20, 200), [20, 200]);
        assert_eq!(of(20, 0), [20, 20]);
        assert_eq!(of(0, 200), [0, 0], "who does not hold at all");
        assert_eq!(of(u64::MAX, 1), [40_000, 40_000]);
        assert_eq!(of(1, u64::MAX), [1, 40_000]);
    }

    /// RFC 5961 §7, §10: all connections together, and not countable.
    #[test]
    fn challenges_of_all_are_limited_by_a_number_that_varies_rfc5961_7() {
        let mut budget = ChallengeBudget::new(Rng::from_seed(1));
        let second = |s: u64| Instant::from_millis(1000 * s);
        let counts: Vec<_> = (1..50).map(|s| (0..5000).filter(|_| budget.take(second(s))).count()).collect();
        assert!(counts.iter().all(|count| (500..1500).contains(count)), "{counts:?}");
        let different: std::collections::HashSet<_> = counts.iter().collect();
        assert!(different.len() > 40, "{counts:?}");
    }

    #[test]
    fn after_the_quick_ones_every_second_full_segment_is_acknowledged_shld_19() {
        let (mut acks, config) = (AckState::default(), Config::default());
        for _ in 0..QUICK_ACKS {
            assert_eq!(acks.on_data(NOW, 1, 1000, 1000, &config), Urgency::Immediate);
            acks.on_sent();
        }
        assert_eq!(acks.on_data(NOW, 1, 1000, 1000, &config), Urgency::Delayed);
        assert!(!acks.is_due(NOW));
        assert_eq!(acks.on_data(NOW, 1, 2000, 1000, &config), Urgency::Immediate);
        assert!(acks.is_due(NOW));
    }

    proptest! {
        /// RFC 9293 §3.8.6.3, SHLD-19: what comes at once is acknowledged as soon as any of it is.
        #[test]
        fn segments_that_come_at_once_wait_no_longer_than_one_by_one_shld_19(
            quick in 0..=QUICK_ACKS,
            before in 0usize..3000,
            largest in 1usize..1500,
            lens in proptest::collection::vec(1usize..1500, 1..40),
            holds in (0u64..30, 0u64..300),
        ) {
            let config = holding(holds.0, holds.1);
            let [mut one_by_one, mut at_once] = [(); 2].map(|()| AckState::resume(quick));
            let (mut unacknowledged, mut full) = (before, largest);
            for len in &lens {
                unacknowledged += len;
                full = full.max(*len);
                one_by_one.on_data(NOW, 1, unacknowledged, full, &config);
            }
            at_once.on_data(NOW, lens.len(), unacknowledged, largest, &config);
            prop_assert_eq!(at_once.quick_left, one_by_one.quick_left);
            prop_assert!(at_once.due || !one_by_one.due);
            let until = |acks: &AckState| acks.held.map_or(NOW, |(until, _)| until);
            prop_assert!(!one_by_one.due || until(&at_once) <= until(&one_by_one));
        }
    }

    #[test]
    fn one_that_may_wait_for_a_burst_goes_at_its_end_and_after_so_many_segments_and_with_whatever_is_urgent()
    {
        let (hold, config) = (Duration::from_micros(20), holding(20, 200));
        let held = || {
            let mut acks = AckState::resume(0);
            assert_eq!(acks.on_data(NOW, 1, 1000, 1000, &config), Urgency::Delayed);
            assert_eq!(acks.on_data(NOW, 1, 2000, 1000, &config), Urgency::Immediate);
            assert!(acks.is_owed() && !acks.is_due(NOW));
            acks
        };
        let mut acks = held();
        acks.on_data(NOW + hold / 2, 1, 5000, 1000, &config);
        assert!(!acks.is_due(NOW + hold / 2) && acks.is_due(NOW + hold), "from the first on");
        let mut acks = held();
        acks.on_data(NOW, 1, 16_000, 1000, &config);
        assert!(acks.is_due(NOW));
        let mut acks = held();
        acks.require();
        assert!(acks.is_due(NOW));
        acks.on_sent();
        assert!(!acks.is_owed() && acks.held().is_none());
    }

    #[test]
    fn that_of_a_request_waits_longer_for_the_answer_but_not_if_more_comes() {
        let (hold, config, mut acks) = (Duration::from_micros(20), holding(20, 200), AckState::default());
        acks.on_data(NOW, 1, 84, 84, &config);
        assert!(acks.is_owed() && !acks.is_due(NOW + 9 * hold) && acks.is_due(NOW + 10 * hold));
        acks.require_with_answer(NOW + hold, &config);
        assert!(acks.is_due(NOW + 10 * hold), "from the first on");
        acks.on_data(NOW + hold, 1, 1084, 1000, &config);
        assert!(!acks.is_due(NOW + hold) && acks.is_due(NOW + 2 * hold));
        acks.require();
        assert!(acks.is_due(NOW + hold));
        let mut acks = AckState::default();
        acks.on_data(NOW, 1, 84, 1000, &Config::default());
        assert!(acks.is_due(NOW), "who does not hold answers at once");
    }

    #[test]
    fn challenges_are_limited_rfc5961_7() {
        let mut limit = ChallengeLimit::default();
        let at = |ms: u64| Instant::from_millis(10_000 + ms);
        assert_eq!((0..100).filter(|&ms| limit.allow(at(ms))).count(), 10);
        assert!(limit.allow(at(5_000)));
    }
}
