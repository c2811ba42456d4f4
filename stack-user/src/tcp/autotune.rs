//! How large the buffers are: they follow the bandwidth-delay product, within a bound.
//!
//! No RFC says how; this is dynamic right-sizing, as Linux does it. The receiver measures how much its application takes
//! in a round trip, and keeps the window at twice that, so that it is never what limits the sender. The sender keeps
//! twice the congestion window, since what a recovery has to send again waits beside what is new. Both only grow: what
//! a connection needed once it may need again, and a window must not shrink (RFC 9293 §3.8.6, SHLD-14).

use core::{mem, num::NonZeroU32};

use super::{Connection, config::Config, seq::SeqNumber, timestamps::TICK, window};
use crate::{
    frame::FramePool,
    tcp::payload::under_pressure,
    time::{Duration, Instant},
};

/// The receive window never promises more than this part of the pool's chunks. A peer that fills its window while a
/// gap is open, or nobody reads, holds at most that, and less when others need chunks: below a quarter of free ones
/// data waits on the heap. More parts, and with the default pool one transfer doesn't fill 100 Mbit/s over 100 ms,
/// which takes 2.5 MB of window; fewer, and the promises of one connection are the whole pool.
pub(super) const WINDOW_POOL_SHARE: usize = 2;

/// Segments that the first round trip of a transfer brings (RFC 6928): what the first measurement is compared with.
const INITIAL_SEGMENTS: usize = 10;

/// Segments beyond what is measured, so that short measurements on fast links don't make crumbs of a window.
const SPARE_SEGMENTS: usize = 16;

/// A round trip is taken to be this long at least. Within it, the ends take as long as the way does: they work in bursts, of some
/// tens of segments. Less, and a window is no longer a few bursts; more, and what waits lies in no cache, and behind more of its own.
const LEAST_ROUND_TRIP: Duration = Duration::from_micros(100);

/// From such a round trip on, each is measured alone.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(1);

/// Shorter ones are measured as the mean of so many: how much comes in one of them is chance, and more than the way holds where an
/// end had no core for a while. They are over before a sender that doubles its window each time has used the first one up.
const ROUNDS_OF_SHORT: u32 = 16;

/// The sizes of both buffers, and what the receive buffer's is measured by.
#[derive(Clone, Debug)]
pub struct Autotune {
    receive: Bounded,
    send: Bounded,
    /// Bytes that the application has taken since `since`.
    copied: usize,
    since: Option<Instant>,
    /// Before `since`, it had been away for much longer than is measured.
    was_away: bool,
    /// Bytes that it took in the best round trip so far.
    space: usize,
    rtt: ReceiverRtt,
}

/// A size that grows up to a bound.
#[derive(Clone, Copy, Debug)]
struct Bounded {
    size: usize,
    max: usize,
}

impl Bounded {
    fn grow_to(&mut self, size: usize) {
        self.size = self.size.max(size.min(self.max));
    }
}

impl Autotune {
    /// The sizes to start with.
    pub fn new(config: &Config) -> Self {
        let bounded = |size: usize, max: usize| Bounded { size, max: max.max(size) };
        Self {
            receive: bounded(config.recv_buffer, config.largest_recv_buffer()),
            send: bounded(config.send_buffer, config.send_buffer_max),
            copied: 0,
            since: None,
            was_away: false,
            space: INITIAL_SEGMENTS * usize::from(config.mss),
            rtt: ReceiverRtt::default(),
        }
    }

    /// Bytes that may wait to be read.
    pub fn receive_buffer(&self) -> usize {
        self.receive.size
    }

    /// The most that may ever wait to be read: the shift of the window follows from it, since it can't change later
    /// (RFC 7323 §2.3).
    pub fn receive_buffer_max(&self) -> usize {
        self.receive.max
    }

    /// Bytes that may wait for their acknowledgement.
    pub fn send_buffer(&self) -> usize {
        self.send.size
    }

    /// The application took `n` bytes. Once in a round trip, the window becomes as large as the next ones will need it.
    fn on_read(&mut self, now: Instant, n: usize, rtt: Option<Duration>, mss: usize, may_grow: bool) {
        self.copied += n;
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        let Some(rtt) = rtt.map(|rtt| rtt.max(LEAST_ROUND_TRIP)) else {
            return;
        };
        let (elapsed, rounds) = (now.since(since), if rtt < LONG_ROUND_TRIP { ROUNDS_OF_SHORT } else { 1 });
        if elapsed < rtt * rounds {
            return;
        }
        self.rtt.next_round();
        // Whoever comes back more seldom than that finds a window's worth each time, however long it was away, and would find more if it
        // was larger. Once alone it was without a core, and that says nothing. If it read more than a window's worth, the time was not
        // all spent away.
        let was_away = elapsed > 2 * rounds * rtt && self.copied <= self.receive.size;
        let is_seldom = mem::replace(&mut self.was_away, was_away) && was_away;
        let copied = match is_seldom {
            true => self.copied,
            false => (self.copied as f64 * rtt.as_secs_f64() / elapsed.as_secs_f64()) as usize,
        };
        // A round trip never brings more than was offered. Where it seems so, it was shorter than it seemed.
        let copied = copied.min(self.receive.size);
        if copied > self.space && may_grow {
            // Twice as much, so that the window does not limit the sender. And while the sender doubles its own window
            // each round, twice that again: what we offer now governs the round after the next. Of short rounds, the next
            // sixteen are soon over.
            let growth = if rounds == 1 { 4 * (copied - self.space) } else { 0 };
            self.receive.grow_to(2 * copied + growth + SPARE_SEGMENTS * mss);
            self.space = copied;
        }
        self.copied = 0;
        self.since = Some(now);
    }
}

/// The round trip as a receiver sees it, who sends nothing that would be acknowledged.
#[derive(Clone, Debug, Default)]
struct ReceiverRtt {
    measured: Option<Duration>,
    /// With timestamps: the shortest that was seen since the application's share was last measured.
    shortest: Option<Duration>,
    /// Without timestamps: when RCV.NXT was there, and where it will be a window later.
    window: Option<(Instant, SeqNumber)>,
}

impl ReceiverRtt {
    /// A timestamp came back: an ACK of ours, and the data that it released. Of several, the shortest tells of the way; the longer
    /// ones tell of how long somebody had no core.
    fn on_echo(&mut self, rtt: Duration) {
        let rtt = whole_micros(rtt);
        self.shortest = Some(self.shortest.map_or(rtt, |shortest| shortest.min(rtt)));
        self.measured = self.measured.or(self.shortest);
    }

    /// A round is over: from now on, what was seen in it counts.
    fn next_round(&mut self) {
        self.measured = self.shortest.take().or(self.measured);
    }

    /// A window's worth of data takes a round trip at least. The shortest time is nearest to it.
    fn on_data(&mut self, now: Instant, nxt: SeqNumber, edge: SeqNumber) {
        if let Some((start, end)) = self.window {
            if nxt.before(end) {
                return;
            }
            let rtt = whole_micros(now.since(start));
            self.measured = Some(self.measured.map_or(rtt, |measured| measured.min(rtt)));
        }
        self.window = Some((now, edge));
    }
}

/// In whole microseconds, from one to something over an hour: so it takes little room while the connection rests.
fn whole_micros(rtt: Duration) -> Duration {
    micros(rtt).map_or(Duration::from_micros(1), of_micros)
}

fn micros(rtt: Duration) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX))
}

fn of_micros(micros: NonZeroU32) -> Duration {
    Duration::from_micros(micros.get().into())
}

/// The sizes in less room, for a connection that rests. Their bounds are those of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    receive: u32,
    send: u32,
    /// Twice as much, and one more if it was away: a byte for that alone would be eight.
    copied_and_away: u32,
    space: u32,
    since: Option<Instant>,
    measured: Option<NonZeroU32>,
    shortest: Option<NonZeroU32>,
    window: Option<(Instant, SeqNumber)>,
}

impl Autotune {
    /// All that it knows, unless a size is beyond 2 GiB.
    pub(super) fn rest(&self) -> Option<Rest> {
        let Self { receive, send, copied, since, was_away, space, rtt } = self;
        Some(Rest {
            receive: receive.size.try_into().ok()?,
            send: send.size.try_into().ok()?,
            copied_and_away: (2 * *copied + usize::from(*was_away)).try_into().ok()?,
            space: (*space).try_into().ok()?,
            since: *since,
            measured: rtt.measured.and_then(micros),
            shortest: rtt.shortest.and_then(micros),
            window: rtt.window,
        })
    }

    /// Goes on after a rest.
    pub(super) fn resume(config: &Config, rest: Rest) -> Self {
        let Rest { receive, send, copied_and_away, space, since, measured, shortest, window } = rest;
        let mut autotune = Self::new(config);
        (autotune.receive.size, autotune.send.size) = (receive as usize, send as usize);
        (autotune.copied, autotune.was_away) = (copied_and_away as usize / 2, copied_and_away % 2 == 1);
        (autotune.space, autotune.since) = (space as usize, since);
        autotune.rtt =
            ReceiverRtt { measured: measured.map(of_micros), shortest: shortest.map(of_micros), window };
        autotune
    }
}

impl Connection {
    /// The application has read `n` bytes.
    pub(super) fn tune_receive_buffer<P: FramePool>(&mut self, now: Instant, pool: &P, n: usize) {
        let rtt = self.round_trip_as_receiver();
        let mss = self.receive_mss();
        self.autotune.on_read(now, n, rtt, mss, !under_pressure(pool));
    }

    /// The round trip that data takes which somebody waits for: as timestamps tell it, unless it is within their tick. Then what
    /// was measured of our own segments tells more, and there is at least that of the handshake.
    pub(super) fn round_trip_as_receiver(&self) -> Option<Duration> {
        match (self.autotune.rtt.measured, self.rtt.min()) {
            (Some(echoed), Some(own)) if echoed < 2 * TICK => Some(echoed.min(own)),
            (echoed, _) => echoed.or(self.rtt.srtt()),
        }
    }

    /// Data came: measures the round trip by it.
    pub(super) fn measure_as_receiver(&mut self, now: Instant, echoed: Option<Duration>) {
        match echoed {
            Some(rtt) => self.autotune.rtt.on_echo(rtt),
            None if self.timestamps.enabled => {}
            None => self.autotune.rtt.on_data(now, self.rcv.nxt, self.rcv.edge),
        }
    }

    /// Bytes that may wait for their acknowledgement now: twice the congestion window, which may have grown.
    pub(super) fn send_buffer<P: FramePool>(&mut self, pool: &P) -> usize {
        if !under_pressure(pool) {
            self.autotune.send.grow_to(2 * self.congestion.cwnd());
        }
        self.autotune.send_buffer()
    }

    /// Free bytes of the receive buffer. What waits out of order lies inside the window, so it takes nothing.
    pub(super) fn receive_room(&self) -> usize {
        self.autotune.receive_buffer().saturating_sub(self.recv.len())
    }

    /// Whether the application has read so much that the peer should know at once (RFC 9293 §3.8.6.2.2).
    pub(super) fn window_update_is_due(&self) -> bool {
        let (room, buffer) = (self.receive_room(), self.autotune.receive_buffer());
        let has_told = self.counts.segments_sent > 0;
        let told = if has_told { buffer } else { usize::from(window::for_syn(buffer)) };
        self.state.may_receive() && window::update_is_due(&self.rcv, room, buffer, told, self.receive_mss())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1000;
    const RTT: Duration = Duration::from_millis(100);

    fn autotune() -> Autotune {
        Autotune::new(&Config {
            mss: MSS as u16,
            recv_buffer: 64 * MSS,
            recv_buffer_max: 5000 * MSS,
            ..Config::default()
        })
    }

    /// The application takes what a sender in slow start brings; the window must have room for each round before it
    /// comes.
    #[test]
    fn a_sender_in_slow_start_never_meets_the_window() {
        let mut tune = autotune();
        let (mut now, mut flight) = (Instant::ZERO, 10 * MSS);
        tune.on_read(now, 0, Some(RTT), MSS, true);
        while flight < 1250 * MSS {
            assert!(tune.receive_buffer() >= flight, "{} for {flight}", tune.receive_buffer());
            now += RTT;
            tune.on_read(now, flight, Some(RTT), MSS, true);
            flight *= 2;
        }
        assert!(tune.receive_buffer() >= 2 * 1250 * MSS);
        assert!(tune.receive_buffer() <= 5000 * MSS);
    }

    #[test]
    fn a_slow_application_gets_no_more_and_nothing_shrinks_shld_14() {
        let mut tune = autotune();
        let mut now = Instant::ZERO;
        for _ in 0..100 {
            now += RTT;
            tune.on_read(now, 5 * MSS, Some(RTT), MSS, true);
        }
        assert_eq!(tune.receive_buffer(), 64 * MSS);
        tune.on_read(now + RTT, 100 * MSS, Some(RTT), MSS, true);
        let large = tune.receive_buffer();
        assert!(large > 200 * MSS);
        tune.on_read(now + 2 * RTT, 1, Some(RTT), MSS, true);
        assert_eq!(tune.receive_buffer(), large);
    }

    #[test]
    fn neither_pressure_nor_an_unknown_round_trip_lets_it_grow() {
        let mut tune = autotune();
        tune.on_read(Instant::ZERO, 100 * MSS, None, MSS, true);
        tune.on_read(Instant::ZERO + RTT, 100 * MSS, None, MSS, true);
        tune.on_read(Instant::ZERO + 2 * RTT, 100 * MSS, Some(RTT), MSS, false);
        assert_eq!(tune.receive_buffer(), 64 * MSS);
    }

    #[test]
    fn the_pool_bounds_the_window_and_a_larger_start_is_its_own_maximum() {
        let pool = crate::device::Umem::on_heap(100).expect("memory");
        let mut config = Config { mss: MSS as u16, ..Config::default() };
        config.fit(&pool);
        let tune = Autotune::new(&config);
        assert_eq!((tune.receive_buffer(), tune.receive_buffer_max()), (50 * MSS, 50 * MSS));
        let config = Config { recv_buffer: 10, recv_buffer_max: 5, ..Config::default() };
        assert_eq!(Autotune::new(&config).receive_buffer_max(), 10);
    }

    /// Reads of `bytes` each `every`, for `time`.
    fn reads(
        tune: &mut Autotune,
        now: &mut Instant,
        time: Duration,
        every: Duration,
        bytes: usize,
        rtt: Duration,
    ) {
        let end = *now + time;
        while *now < end {
            *now += every;
            tune.on_read(*now, bytes, Some(rtt), MSS, true);
        }
    }

    #[test]
    fn on_a_short_way_what_comes_after_a_pause_of_the_reader_is_not_a_round_trips() {
        let (mut tune, mut now) = (autotune(), Instant::ZERO);
        let us = Duration::from_micros;
        let (rtt, burst) = (us(100), 40 * MSS);
        reads(&mut tune, &mut now, us(100_000), us(100), burst, rtt);
        let settled = tune.receive_buffer();
        assert!((2 * burst..6 * burst).contains(&settled), "{settled}");
        // It had no core for some round trips, and reads all that waited at once; whatever had been measured until then.
        for (pause, after) in (0..200).map(|n| ([500, 5000][n % 2], 10_000 + 100 * n as u64)) {
            now += us(pause);
            let waits = tune.receive_buffer();
            tune.on_read(now, waits, Some(rtt), MSS, true);
            reads(&mut tune, &mut now, us(after), us(100), burst, rtt);
        }
        assert!(tune.receive_buffer() < 8 * burst, "{} after {settled}", tune.receive_buffer());
    }

    #[test]
    fn whoever_reads_seldom_gets_the_window_that_it_needs_meanwhile() {
        let ms = Duration::from_millis;
        for (rtt, pause) in [(Duration::from_micros(50), ms(10)), (ms(20), ms(100)), (ms(100), ms(1000))] {
            for pieces in [1, 50] {
                let (mut tune, mut now) = (autotune(), Instant::ZERO);
                for _ in 0..20 {
                    now += pause;
                    // The sender has sent what it might.
                    let window = tune.receive_buffer();
                    for _ in 0..pieces {
                        tune.on_read(now, window / pieces, Some(rtt), MSS, true);
                    }
                }
                assert!(tune.receive_buffer() > 1000 * MSS, "{} in {pieces}", tune.receive_buffer());
            }
        }
    }

    #[test]
    fn on_a_short_way_a_faster_sender_gets_its_window_within_milliseconds() {
        let (mut tune, mut now) = (autotune(), Instant::ZERO);
        let us = Duration::from_micros;
        reads(&mut tune, &mut now, us(10_000), us(100), 10 * MSS, us(100));
        assert_eq!(tune.receive_buffer(), 64 * MSS);
        // As fast as the window lets it.
        let end = now + us(10_000);
        while now < end {
            let window = tune.receive_buffer();
            reads(&mut tune, &mut now, us(100), us(100), window, us(100));
        }
        assert!(tune.receive_buffer() > 1000 * MSS, "{}", tune.receive_buffer());
    }

    #[test]
    fn a_round_trip_that_seems_too_long_brings_no_more_than_the_window() {
        let (mut tune, mut now) = (autotune(), Instant::ZERO);
        tune.on_read(now, 0, Some(RTT), MSS, true);
        now += RTT;
        tune.on_read(now, 1000 * MSS, Some(RTT), MSS, true);
        assert!(tune.receive_buffer() <= 6 * 64 * MSS, "{}", tune.receive_buffer());
    }

    #[test]
    fn of_the_echoes_of_a_round_the_shortest_counts_in_the_next() {
        let mut rtt = ReceiverRtt::default();
        let ms = Duration::from_millis;
        rtt.on_echo(ms(50));
        assert_eq!(rtt.measured, Some(ms(50)));
        for echo in [70, 40, 90] {
            rtt.on_echo(ms(echo));
        }
        rtt.next_round();
        assert_eq!(rtt.measured, Some(ms(40)));
        // The way has become longer.
        rtt.on_echo(ms(80));
        rtt.next_round();
        assert_eq!(rtt.measured, Some(ms(80)));
        rtt.next_round();
        assert_eq!(rtt.measured, Some(ms(80)));
    }

    #[test]
    fn without_timestamps_a_window_of_data_measures_the_round_trip() {
        let mut rtt = ReceiverRtt::default();
        let at = |ms| Instant::from_millis(ms);
        rtt.on_data(at(0), SeqNumber(0), SeqNumber(1000));
        rtt.on_data(at(50), SeqNumber(999), SeqNumber(2000));
        assert_eq!(rtt.measured, None);
        rtt.on_data(at(100), SeqNumber(1000), SeqNumber(2000));
        rtt.on_data(at(130), SeqNumber(2000), SeqNumber(3000));
        rtt.on_data(at(930), SeqNumber(3000), SeqNumber(4000));
        assert_eq!(rtt.measured, Some(Duration::from_millis(30)));
    }
}
