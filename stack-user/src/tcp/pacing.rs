//! Pacing: a window of data leaves spread over the round trip, and not as one burst that some queue has to swallow
//! (RFC 7661 §4.4.2 and RFC 9937 §6.4 ask for it where windows open at once).
//!
//! A leaky bucket: what is sent fills it, time empties it at the pacing rate, and while it is full nothing more is sent.
//! Its size is what may leave at once. Whoever drives us wakes up a millisecond late or two, and what was not sent then
//! would be lost; so the bucket holds that long a time's worth. On a LAN this is more than the window, and pacing is no
//! matter there. Neither ACKs nor what must go at once (probes, the first retransmission) wait; what they send counts.

use super::{Connection, congestion::initial_window, timer::Timer};
use crate::time::{Duration, Instant};

/// How long a time's worth may leave at once. Timers of the runtime are a millisecond coarse, and it takes up to another
/// until a task runs. Less, and a fast path is not filled; more, and short queues overflow.
const BURST: Duration = Duration::from_millis(2);

/// As much may leave at once on the slowest path, in segments: a peer acknowledges every second one.
const MIN_BURST: u64 = 2;

/// Per cent of a window per round trip while slow start may still double it (as in Linux): each ACK sets two segments free.
const SLOW_START_PERCENT: u64 = 200;

/// The same later (as in Linux): more than 100, or what comes late could never be caught up with, and the window would
/// not be filled and so not grow.
const AVOIDANCE_PERCENT: u64 = 120;

/// A speed: so many bytes in so long a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    bytes: u64,
    per: Duration,
}

impl Rate {
    /// `percent` of `window` per round trip; none if there is no round trip to speak of.
    fn of_window(window: usize, percent: u64, srtt: Duration) -> Option<Self> {
        let bytes = (window as u64).saturating_mul(percent) / 100;
        (bytes > 0 && !srtt.is_zero()).then_some(Self { bytes, per: srtt })
    }

    fn per_second(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Self { bytes, per: Duration::from_secs(1) })
    }

    /// What it makes in `time`.
    fn in_time(self, time: Duration) -> u64 {
        let (time, per) = (time.as_nanos(), self.per.as_nanos().max(1));
        // Most products have 64 bits, whose quotient the CPU knows.
        let product = u64::try_from(time).ok().and_then(|time| self.bytes.checked_mul(time));
        if let (Some(product), Ok(per)) = (product, u64::try_from(per)) {
            return product / per;
        }
        u64::try_from(u128::from(self.bytes).saturating_mul(time) / per).unwrap_or(u64::MAX)
    }

    /// How long `bytes` take.
    fn time_for(self, bytes: u64) -> Duration {
        let nanos =
            u128::from(bytes).saturating_mul(self.per.as_nanos()).div_ceil(u128::from(self.bytes.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The size of the bucket.
    fn burst(self, mss: usize) -> u64 {
        self.in_time(BURST).max(MIN_BURST * mss as u64)
    }
}

/// The bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pacer {
    /// Bytes in it, at that time.
    level: u64,
    at: Instant,
    /// Bytes that may leave without being paced.
    free: u64,
    /// Nothing leaves before.
    held_until: Option<Instant>,
}

impl Pacer {
    /// The next bytes are sent at once: the initial window is what RFC 6928 §2 says may be, and a short answer should not
    /// take a round trip to leave.
    fn allow_burst(&mut self, bytes: usize) {
        self.free = bytes as u64;
    }

    /// How long to wait before anything is sent. So long that half a bucket can leave then, not a single segment: a
    /// wake-up has its price. And never for much more than a round trip: what had been sent when the path was faster, or a
    /// repair was on, must not be paid for at the rate of a path that has become slow.
    fn wait(&mut self, now: Instant, rate: Rate, mss: usize) -> Option<Duration> {
        let burst = self.drain(now, rate, mss);
        let full = self.free == 0 && self.level >= burst;
        full.then(|| rate.time_for(self.level - burst / 2))
    }

    /// Lets out what time empties. Returns the size of the bucket.
    fn drain(&mut self, now: Instant, rate: Rate, mss: usize) -> u64 {
        self.level = self.level.saturating_sub(rate.in_time(now.since(self.at)));
        self.at = now;
        let burst = rate.burst(mss);
        self.level = self.level.min(burst.saturating_add(rate.bytes));
        burst
    }

    /// How long nothing may leave at all.
    fn held_for(&mut self, now: Instant) -> Option<Duration> {
        self.held_until = self.held_until.filter(|&until| now < until);
        self.held_until.map(|until| until.since(now))
    }

    fn on_sent(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let free = self.free.min(bytes);
        self.free -= free;
        self.level = self.level.saturating_add(bytes - free);
    }
}

/// A bucket that nobody has poured into for longer than RTO.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    level: u64,
    at: Instant,
}

impl Pacer {
    /// Until when nothing may leave, if that is still to come.
    pub(super) fn held_until(&self) -> Instant {
        self.held_until.unwrap_or_default()
    }

    /// What there is to remember when nothing is held: after a pause longer than RTO, a burst is
    /// [allowed](Self::allow_burst) anew.
    pub(super) fn rest(&self) -> Rest {
        let Self { level, at, free: _, held_until: _ } = *self;
        Rest { level, at }
    }

    /// Goes on after a rest.
    pub(super) fn resume(Rest { level, at }: Rest) -> Self {
        Self { level, at, ..Self::default() }
    }
}

impl Connection {
    /// Whether data may be sent now, as far as pacing is concerned. If not, the timer tells when.
    pub(super) fn pacing_allows(&mut self, now: Instant) -> bool {
        let mss = self.layout().mss;
        let paced = self.pacing_rate().and_then(|rate| self.pacer.wait(now, rate, mss));
        let wait = paced.max(self.pacer.held_for(now));
        match wait {
            Some(wait) => self.timers.set(Timer::Pacing, now + wait),
            None => self.timers.stop(Timer::Pacing),
        }
        wait.is_none()
    }

    /// How many segments may be sent now, without a look at the time between them.
    pub(super) fn paced_segments(&self, mss: usize) -> usize {
        if self.pacer.held_until.is_some() {
            return 0;
        }
        match self.pacing_rate() {
            Some(rate) => (rate.burst(mss).saturating_sub(self.pacer.level) / mss.max(1) as u64) as usize,
            None => usize::MAX,
        }
    }

    /// Data was sent, whether it had to be or was allowed to be.
    pub(super) fn pace(&mut self, now: Instant, bytes: usize) {
        if self.config.pacing {
            // What had to be sent left without a look at the bucket: time has emptied that until now, but none of this.
            if self.pacer.at != now
                && let Some(rate) = self.pacing_rate()
            {
                let mss = self.layout().mss;
                self.pacer.drain(now, rate, mss);
            }
            self.pacer.on_sent(bytes);
        }
    }

    /// The network is congested though one segment is all that we send in a round trip: the next one waits for RTO
    /// (RFC 3168 §6.1.2, RFC 9438 §4.6).
    pub(super) fn hold_for_rto(&mut self, now: Instant) {
        self.pacer.held_until = Some(now + self.rtt.rto());
    }

    /// The path is new, or nothing was sent for so long that it is as good as new.
    pub(super) fn allow_initial_burst(&mut self) {
        self.pacer.allow_burst(initial_window(self.layout().mss));
    }

    /// The rate in bytes per second, if there is a limit to it.
    pub(super) fn bytes_per_second(&self) -> Option<u64> {
        self.pacing_rate().map(|rate| rate.in_time(Duration::from_secs(1)))
    }

    /// The rate, if there is a limit to it.
    fn pacing_rate(&self) -> Option<Rate> {
        if !self.config.pacing {
            return None;
        }
        if let Some(rate) = self.congestion.pacing_rate() {
            return Rate::per_second(rate);
        }
        let (cwnd, ssthresh) = (self.congestion.cwnd(), self.congestion.ssthresh());
        let percent = if cwnd < ssthresh / 2 { SLOW_START_PERCENT } else { AVOIDANCE_PERCENT };
        Rate::of_window(cwnd.max(self.send.in_flight()), percent, self.rtt.srtt()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1000;

    const fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// 100 kB per 100 ms: a segment per millisecond.
    fn rate() -> Rate {
        Rate::of_window(100_000, 100, Duration::from_millis(100)).expect("a rate")
    }

    /// Sends as long as it may; returns how many segments.
    fn send(pacer: &mut Pacer, now: Instant, rate: Rate) -> usize {
        (0..10_000)
            .take_while(|_| pacer.wait(now, rate, MSS).is_none().then(|| pacer.on_sent(MSS)).is_some())
            .count()
    }

    #[test]
    fn two_milliseconds_leave_at_once_then_half_of_that_again_and_again() {
        let mut pacer = Pacer::default();
        assert_eq!(send(&mut pacer, at(1000), rate()), 2);
        assert_eq!(pacer.wait(at(1000), rate(), MSS), Some(Duration::from_millis(1)));
        assert_eq!(send(&mut pacer, at(1001), rate()), 1);
        assert_eq!(send(&mut pacer, at(9000), rate()), 2, "what was not used is gone");
    }

    #[test]
    fn a_slow_path_gets_two_segments_at_once() {
        let slow = Rate::of_window(2_000, 100, Duration::from_millis(1000)).expect("a rate");
        let mut pacer = Pacer::default();
        assert_eq!(send(&mut pacer, at(0), slow), 2);
        assert_eq!(pacer.wait(at(0), slow, MSS), Some(Duration::from_millis(500)));
    }

    #[test]
    fn on_a_lan_the_bucket_holds_the_window() {
        let lan = Rate::of_window(14_600, 120, Duration::from_micros(50)).expect("a rate");
        assert!(lan.burst(1460) > 10 * 14_600);
        assert_eq!(Rate::of_window(14_600, 120, Duration::ZERO), None);
    }

    #[test]
    fn who_wakes_up_two_milliseconds_late_loses_nothing() {
        let fast = Rate::of_window(1_250_000, 100, Duration::from_millis(100)).expect("100 Mbit/s");
        let mut pacer = Pacer::default();
        let (mut now, mut sent) = (at(0), 0);
        while now < at(1000) {
            sent += send(&mut pacer, now, fast);
            now += Duration::from_millis(2);
        }
        assert!((12_400..12_600).contains(&sent), "{sent} segments of a kilobyte in a second");
    }

    #[test]
    fn the_initial_window_leaves_at_once_rfc6928_2() {
        let mut pacer = Pacer::default();
        pacer.allow_burst(10 * MSS);
        assert_eq!(send(&mut pacer, at(0), rate()), 12, "and a bucket's size");
    }

    /// The route changes, and a round trip takes a thousand times as long.
    #[test]
    fn what_was_sent_at_a_faster_rate_is_not_waited_for_at_a_slower_one() {
        let round_trip = Duration::from_secs(80);
        let slow = Rate::of_window(2 * MSS, 120, round_trip).expect("a rate");
        let mut pacer = Pacer::default();
        pacer.on_sent(100 * MSS);
        let wait = pacer.wait(at(1000), slow, MSS).expect("a wait");
        assert!(wait <= round_trip * 2, "{wait:?}");
        assert_eq!(send(&mut pacer, at(1000) + wait, slow), 1, "as ever");
    }

    #[test]
    fn any_rate_and_any_time_are_fine() {
        let fastest = Rate::per_second(u64::MAX).expect("a rate");
        assert_eq!(fastest.in_time(Duration::MAX), u64::MAX);
        let slowest = Rate { bytes: 1, per: Duration::MAX };
        assert_eq!(slowest.time_for(u64::MAX), Duration::from_nanos(u64::MAX));
        assert_eq!(Rate::per_second(0), None);
    }
}
