//! How fast the network delivers (draft-ietf-ccwg-bbr §4.1, which was draft-cheng-iccrg-delivery-rate-estimation).
//!
//! Each segment remembers, when it is sent, how much had been delivered by then. The ACK that tells of its arrival then
//! knows how much was delivered meanwhile, and how long that took. ACKs may come in clumps, which makes them look faster
//! than the path is; but nothing is delivered faster than it was sent. So the slower of the two rates is believed.
//!
//! If the application had nothing to send, the rate says how fast the application is, and the path may be faster. Such
//! samples are marked.

use super::send_queue::Entry;
use crate::time::{Duration, Instant};

/// What a segment remembers of the time when it was sent (draft-ietf-ccwg-bbr §4.1.2, the fields `P.*`).
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// P.delivered: what had been delivered.
    delivered: u64,
    /// P.delivered_time: when that was known.
    delivered_at: Instant,
    /// P.first_send_time: when the flight began that this segment belongs to, by its time of sending.
    first_sent_at: Instant,
    /// P.tx_in_flight: what was in flight then, itself included. No window is larger than 1 GiB (RFC 7323 §2.3).
    pub(super) in_flight: u32,
    /// P.lost: what had been lost, modulo 2^32.
    pub(super) lost: u32,
    /// P.is_app_limited: the path was not full then, since the application had no more to send.
    pub(super) app_limited: bool,
}

impl Default for Stamp {
    fn default() -> Self {
        let (delivered_at, first_sent_at) = (Instant::ZERO, Instant::ZERO);
        Self { delivered: 0, delivered_at, first_sent_at, in_flight: 0, lost: 0, app_limited: false }
    }
}

/// How fast data was delivered, as one ACK tells (draft-ietf-ccwg-bbr §4.1.2, the fields `RS.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// RS.delivered: sequence numbers that arrived in the interval.
    pub delivered: u64,
    /// RS.interval: the time in which they were sent, or in which their ACKs came, whichever is longer. Never zero.
    pub interval: Duration,
    /// RS.prior_delivered: what had been delivered when the latest of the segments was sent.
    pub prior_delivered: u64,
    /// RS.tx_in_flight: what was in flight when that segment was sent, itself included.
    pub in_flight: usize,
    /// What had been lost when it was sent, modulo 2^32.
    pub prior_lost: u32,
    /// RS.is_app_limited: the path may be faster.
    pub app_limited: bool,
}

impl Sample {
    /// The rate in bytes per second.
    pub fn rate(&self) -> u64 {
        let rate = u128::from(self.delivered) * NANOS_PER_SECOND / self.interval.as_nanos().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The connection's part (draft-ietf-ccwg-bbr §4.1.2, the fields `C.*`).
#[derive(Debug, Default)]
pub struct DeliveryRate {
    /// What a segment that is sent now remembers; kept up to date. Its mark is set by `app_limited_until`.
    present: Stamp,
    /// C.app_limited: until that much is delivered, samples are the application's rate.
    app_limited_until: Option<u64>,
    /// The segment that was sent last among those that the present ACK tells of.
    latest: Option<Latest>,
    /// RS.rtt: the round trip of that segment, if the present ACK tells.
    rtt: Option<Duration>,
    /// The rate to be shown: the latest that was not limited by the application, or a higher one that was.
    shown: Option<(u64, bool)>,
}

/// All there is to remember while nothing is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// C.delivered.
    pub(super) delivered: u64,
    /// C.app_limited.
    pub(super) app_limited_until: Option<u64>,
    /// The rate to be shown.
    pub(super) shown: Option<(u64, bool)>,
}

/// A segment that was delivered.
#[derive(Clone, Copy, Debug)]
struct Latest {
    /// The number of its last transmission.
    order: u64,
    sent_at: Instant,
    /// It was sent once, so that it is known which transmission arrived.
    once: bool,
    stamp: Stamp,
}

impl DeliveryRate {
    /// C.delivered: sequence numbers that were delivered, in order or not.
    pub fn delivered(&self) -> u64 {
        self.present.delivered
    }

    /// The latest rate in bytes per second, once known, and whether the application limited it.
    pub fn latest(&self) -> Option<(u64, bool)> {
        self.shown
    }

    /// The round trip of the segment that was sent last among those that the latest ACK told of (RS.rtt): unlike that of
    /// the oldest, it has no delay of ACKs in it.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// What is left of it; `None` in the middle of an ACK.
    pub(super) fn rest(&self) -> Option<Rest> {
        let Self { present: Stamp { delivered, .. }, app_limited_until, latest, rtt: _, shown } = *self;
        latest.is_none().then_some(Rest { delivered, app_limited_until, shown })
    }

    /// Goes on after a rest.
    pub(super) fn resume(Rest { delivered, app_limited_until, shown }: Rest) -> Self {
        let present = Stamp { delivered, ..Stamp::default() };
        Self { present, app_limited_until, shown, ..Self::default() }
    }

    /// A segment of `len` sequence numbers is sent while `in_flight` are on their way, and `lost` have been lost so far
    /// (draft-ietf-ccwg-bbr §4.1.2.2). Returns what it has to remember.
    pub fn on_transmit(&mut self, now: Instant, in_flight: usize, len: usize, lost: u64) -> Stamp {
        if in_flight == 0 {
            // A new flight: the time without one counts for nothing.
            self.present.first_sent_at = now;
            self.present.delivered_at = now;
        }
        Stamp {
            in_flight: u32::try_from(in_flight.saturating_add(len)).unwrap_or(u32::MAX),
            lost: lost as u32,
            app_limited: self.app_limited_until.is_some(),
            ..self.present
        }
    }

    /// The application has no more to send, though `in_flight` leaves room for more (draft-ietf-ccwg-bbr §4.1.2.4): what is
    /// on its way now does not fill the path.
    pub fn on_app_limited(&mut self, in_flight: usize) {
        self.app_limited_until = Some(self.present.delivered + in_flight as u64);
    }

    /// Segments were delivered, of `len` sequence numbers together, as the ACK at `now` tells (draft-ietf-ccwg-bbr §4.1.2.3).
    /// `entry` is the one that was sent last, as it was then.
    pub fn on_delivered(&mut self, now: Instant, entry: &Entry, len: usize) {
        self.present.delivered += len as u64;
        self.present.delivered_at = now;
        let &Entry { order, sent_at, stamp, transmissions, .. } = entry;
        if self.latest.is_none_or(|latest| latest.order < order) {
            self.latest = Some(Latest { order, sent_at, once: transmissions == 1, stamp });
        }
    }

    /// All segments of an ACK have been told (draft-ietf-ccwg-bbr §4.1.2.3). `min_rtt` is the shortest round trip, once
    /// measured: what seems to have taken less was sent again while its first copy was still on the way.
    pub fn on_ack(&mut self, now: Instant, min_rtt: Option<Duration>) -> Option<Sample> {
        self.rtt = None;
        let Latest { sent_at, once, stamp, .. } = self.latest.take()?;
        self.rtt = once.then(|| now.since(sent_at));
        self.present.first_sent_at = sent_at;
        self.app_limited_until = self.app_limited_until.filter(|&until| self.present.delivered <= until);
        let interval = sent_at.since(stamp.first_sent_at).max(now.since(stamp.delivered_at));
        if interval.is_zero() || min_rtt.is_some_and(|min| interval < min) {
            return None;
        }
        let sample = Sample {
            delivered: self.present.delivered - stamp.delivered,
            interval,
            prior_delivered: stamp.delivered,
            in_flight: stamp.in_flight as usize,
            prior_lost: stamp.lost,
            app_limited: stamp.app_limited,
        };
        self.show(&sample);
        Some(sample)
    }

    fn show(&mut self, sample: &Sample) {
        let rate = sample.rate();
        if !sample.app_limited || self.shown.is_none_or(|(shown, _)| rate >= shown) {
            self.shown = Some((rate, sample.app_limited));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::Umem,
        tcp::send_queue::{Layout, SendQueue, Transmission},
    };

    const MSS: usize = 1000;

    /// Segments that are sent and delivered, all by hand.
    struct Path {
        pool: Umem,
        queue: SendQueue,
        rate: DeliveryRate,
        sent: u64,
        una: u64,
    }

    impl Path {
        fn new(segments: usize) -> Self {
            let mut pool = Umem::on_heap(64).expect("memory");
            let mut queue = SendQueue::default();
            let layout = Layout { payload_at: 0, mss: MSS };
            assert_eq!(queue.write(&mut pool, layout, &vec![0; segments * MSS]), segments * MSS);
            Self { pool, queue, rate: DeliveryRate::default(), sent: 0, una: 0 }
        }

        fn transmit(&mut self, ms: u64, index: usize) {
            let (now, start) = (Instant::from_millis(ms), self.queue.get(index).expect("an entry").start);
            let stamp = self.rate.on_transmit(now, self.queue.in_flight(), MSS, 7);
            self.sent += 1;
            let sent = Transmission { order: self.sent, stamp };
            let frame = self.queue.take_for_transmission(index, now, sent).expect("its frame");
            self.queue.complete(&mut self.pool, frame.into_completed(), start);
        }

        fn send(&mut self, ms: u64) {
            self.transmit(ms, self.queue.sent_entries());
        }

        /// The next `segments` are acknowledged; `min_rtt` is in milliseconds.
        fn ack(&mut self, ms: u64, segments: usize, min_rtt: u64) -> Option<Sample> {
            let now = Instant::from_millis(ms);
            self.una += (segments * MSS) as u64;
            let Self { pool, queue, rate, una, .. } = self;
            queue.acknowledge(pool, *una, |entry, len| rate.on_delivered(now, entry, len));
            rate.on_ack(now, Some(Duration::from_millis(min_rtt)))
        }
    }

    #[test]
    fn a_flight_is_measured_from_its_first_segment_draft_ccwg_bbr_4_1_2_3() {
        let mut path = Path::new(4);
        (0..4).for_each(|i| path.send(i * 10));
        let sample = path.ack(100, 1, 100).expect("a sample");
        assert_eq!((sample.delivered, sample.interval.as_millis(), sample.rate()), (1000, 100, 10_000));
        assert_eq!((sample.in_flight, sample.prior_lost), (MSS, 7), "itself included");
        assert_eq!(path.rate.rtt(), Some(Duration::from_millis(100)));
        let sample = path.ack(110, 1, 100).expect("a sample");
        assert_eq!((sample.delivered, sample.interval.as_millis()), (2000, 110));
        // Sent when nothing was delivered, 30 ms after the first.
        let sample = path.ack(130, 2, 100).expect("a sample");
        assert_eq!((sample.delivered, sample.interval.as_millis(), sample.prior_delivered), (4000, 130, 0));
        assert_eq!(path.rate.latest(), Some((30_769, false)));
    }

    /// ACKs that come at once don't make the path faster than the sender was.
    #[test]
    fn the_slower_of_both_rates_counts_draft_ccwg_bbr_4_1_1() {
        let mut path = Path::new(8);
        (0..4).for_each(|i| path.send(i * 50));
        path.ack(200, 1, 10);
        path.send(200);
        path.send(250);
        // All that was on the way is acknowledged in the same instant as what was sent last: 6 segments in 250 ms.
        let sample = path.ack(260, 5, 10).expect("a sample");
        assert_eq!((sample.delivered, sample.prior_delivered), (5000, 1000));
        assert_eq!(sample.interval.as_millis(), 250, "from the first to the last of the flight, sent");
    }

    #[test]
    fn nothing_arrives_sooner_than_a_round_trip_draft_ccwg_bbr_4_1_2_3() {
        let mut path = Path::new(2);
        path.send(0);
        path.queue.set_mark(0, crate::tcp::send_queue::Mark::Lost);
        path.transmit(95, 0);
        assert_eq!(path.ack(100, 1, 100), None, "the first copy arrived, and the second is 5 ms old");
        assert_eq!(path.rate.rtt(), None, "nor is it known which arrived");
        path.send(200);
        assert_eq!(path.ack(200, 1, 0), None, "no time has passed");
    }

    #[test]
    fn time_without_anything_in_flight_counts_for_nothing_draft_ccwg_bbr_4_1_2_2() {
        let mut path = Path::new(2);
        path.send(0);
        path.ack(100, 1, 100);
        path.send(5_000);
        let sample = path.ack(5_100, 1, 100).expect("a sample");
        assert_eq!((sample.delivered, sample.interval.as_millis()), (1000, 100));
    }

    /// draft-ietf-ccwg-bbr §4.1.2.4: what is sent until all that was in flight is delivered is the application's.
    #[test]
    fn what_the_application_limits_is_marked_draft_ccwg_bbr_4_1_2_4() {
        let mut path = Path::new(7);
        (0..2).for_each(|_| path.send(0));
        path.rate.on_app_limited(path.queue.in_flight());
        assert!(!path.ack(100, 1, 100).expect("a sample").app_limited, "sent before");
        path.send(100);
        path.send(100);
        path.ack(101, 1, 100);
        assert!(path.ack(200, 1, 100).expect("a sample").app_limited);
        path.send(200);
        path.send(200);
        path.ack(201, 1, 100);
        assert!(!path.ack(300, 1, 100).expect("a sample").app_limited, "sent when the mark was gone");
        // What is shown is not lowered by an application that writes little, but raised if that is faster.
        let shown = path.rate.latest().expect("a rate");
        let slow = Sample {
            delivered: 1,
            interval: Duration::from_secs(1),
            prior_delivered: 0,
            in_flight: 1,
            prior_lost: 0,
            app_limited: true,
        };
        path.rate.show(&slow);
        assert_eq!(path.rate.latest(), Some(shown));
        path.rate.show(&Sample { delivered: 1 << 30, ..slow });
        assert_eq!(path.rate.latest(), Some((1 << 30, true)));
    }
}
