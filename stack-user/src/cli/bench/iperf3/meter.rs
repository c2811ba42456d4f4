//! What is made of the counters: intervals, and the whole.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{results::StreamResults, stream::Counters};
use crate::cli::bench::transport::Fares;

/// Where a stream's statistics are asked for.
pub(super) type Probe = Box<dyn Fn() -> Option<Fares> + Send + Sync>;

/// One stream, as it is measured at this end.
pub(super) struct Meter {
    /// Its number in the protocol.
    pub(super) id: u32,
    /// This end sends.
    pub(super) sends: bool,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: SocketAddr,
    pub(super) counters: Arc<Counters>,
    probe: Probe,
    /// Where counting began, and where the last interval ended.
    base: Snapshot,
    last: Snapshot,
    fares: Extremes,
}

/// The counters at one time.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    at: Instant,
    bytes: u64,
    packets: u64,
    lost: u64,
    out_of_order: u64,
    /// In seconds.
    jitter: f64,
    retransmits: Option<u64>,
}

/// How the connection fared at the ends of intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extremes {
    pub(super) max_cwnd: u64,
    pub(super) max_window: u64,
    pub(super) max_rtt: u64,
    pub(super) min_rtt: u64,
    sum_rtt: u64,
    count: u64,
}

impl Extremes {
    fn note(&mut self, fares: &Fares) {
        self.max_cwnd = self.max_cwnd.max(fares.cwnd);
        self.max_window = self.max_window.max(fares.window);
        self.max_rtt = self.max_rtt.max(fares.rtt);
        self.min_rtt = if self.count == 0 { fares.rtt } else { self.min_rtt.min(fares.rtt) };
        self.sum_rtt += fares.rtt;
        self.count += 1;
    }

    pub(super) fn mean_rtt(&self) -> u64 {
        self.sum_rtt.checked_div(self.count).unwrap_or(0)
    }
}

/// Numbers of the protocol for so many streams: for historical reasons there is no second one.
pub(super) fn ids() -> impl Iterator<Item = u32> {
    std::iter::once(1).chain(3..)
}

/// What one interval of a stream was like. Times are in seconds since counting began.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) lost: i64,
    /// In seconds.
    pub(super) jitter: f64,
    /// If this end sends by a stack that tells.
    pub(super) retransmits: Option<u64>,
    pub(super) fares: Option<Fares>,
}

impl Interval {
    pub(super) fn seconds(&self) -> f64 {
        self.end - self.start
    }
}

/// What one end has of a whole stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Whole {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// If it sends, and counts.
    pub(super) retransmits: Option<u64>,
    pub(super) packets: u64,
    pub(super) lost: i64,
    pub(super) out_of_order: u64,
    /// In seconds.
    pub(super) jitter: f64,
    pub(super) fares: Extremes,
}

impl Meter {
    pub(super) fn new(
        id: u32,
        sends: bool,
        (local, remote): (Option<SocketAddr>, SocketAddr),
        counters: Arc<Counters>,
        probe: Probe,
    ) -> Self {
        let now = Snapshot {
            at: Instant::now(),
            bytes: 0,
            packets: 0,
            lost: 0,
            out_of_order: 0,
            jitter: 0.0,
            retransmits: None,
        };
        Self { id, sends, local, remote, counters, probe, base: now, last: now, fares: Extremes::default() }
    }

    /// The number that people see: the descriptors of iperf3's streams are such.
    pub(super) fn socket(&self) -> u32 {
        self.id + 4
    }

    /// Counting begins here, or once more.
    pub(super) fn begin(&mut self, now: Instant) {
        self.counters.jitter.set(0);
        self.base = self.snapshot(now, (self.probe)().as_ref());
        self.last = self.base;
        self.fares = Extremes::default();
    }

    /// The connection is not asked any more, so that it can be closed.
    pub(super) fn let_go(&mut self) {
        self.probe = Box::new(|| None);
    }

    /// How the connection fares.
    pub(super) fn fares(&self) -> Option<Fares> {
        (self.probe)()
    }

    fn snapshot(&self, at: Instant, fares: Option<&Fares>) -> Snapshot {
        let Counters { bytes, packets, lost, out_of_order, jitter } = &*self.counters;
        Snapshot {
            at,
            bytes: bytes.get(),
            packets: packets.get(),
            lost: lost.get(),
            out_of_order: out_of_order.get(),
            jitter: f64::from_bits(jitter.get()),
            retransmits: fares.filter(|_| self.sends).map(|fares| fares.retransmits),
        }
    }

    /// Ends an interval.
    pub(super) fn interval(&mut self, now: Instant) -> Interval {
        let fares = (self.probe)().filter(|_| self.sends);
        let here = self.snapshot(now, fares.as_ref());
        let there = std::mem::replace(&mut self.last, here);
        if let Some(fares) = &fares {
            self.fares.note(fares);
        }
        Interval {
            start: (there.at - self.base.at).as_secs_f64(),
            end: (here.at - self.base.at).as_secs_f64(),
            bytes: here.bytes - there.bytes,
            packets: here.packets - there.packets,
            lost: here.lost.wrapping_sub(there.lost) as i64,
            jitter: here.jitter,
            retransmits: between(there.retransmits, here.retransmits),
            fares,
        }
    }

    /// All that was counted up to the end of the last interval.
    pub(super) fn whole(&self) -> Whole {
        let Snapshot { at, bytes, packets, lost, out_of_order, jitter, retransmits } = self.last;
        Whole {
            bytes: bytes - self.base.bytes,
            seconds: (at - self.base.at).as_secs_f64(),
            retransmits: between(self.base.retransmits, retransmits),
            packets: packets - self.base.packets,
            lost: lost.wrapping_sub(self.base.lost) as i64,
            out_of_order: out_of_order - self.base.out_of_order,
            jitter,
            fares: self.fares,
        }
    }

    /// The same, as the other end wants it: datagrams as they are numbered, those that are left out among them.
    pub(super) fn results(&self) -> StreamResults {
        let whole = self.whole();
        StreamResults {
            id: self.id.into(),
            bytes: whole.bytes,
            retransmits: whole.retransmits.map_or(-1, |retransmits| retransmits as i64),
            jitter: whole.jitter,
            errors: self.last.lost as i64,
            packets: self.last.packets,
            start_time: 0.0,
            end_time: whole.seconds,
        }
    }

    /// What the other end has of this stream, as it has told.
    pub(super) fn others(&self, told: &StreamResults) -> Whole {
        Whole {
            bytes: told.bytes,
            seconds: told.seconds().unwrap_or_else(|| self.whole().seconds),
            retransmits: u64::try_from(told.retransmits).ok(),
            packets: told.packets.saturating_sub(self.base.packets),
            // What was lost before counting began only the other end knows, and does not tell.
            lost: told.errors,
            out_of_order: 0,
            jitter: told.jitter,
            fares: Extremes::default(),
        }
    }
}

fn between(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    // A stack that has ended a connection knows nothing of it any more: then nothing was sent again since.
    before.map(|before| after.unwrap_or(before).saturating_sub(before))
}

/// How much of the processor the process has had, in per cent of one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cpu {
    pub(super) total: f64,
    pub(super) user: f64,
    pub(super) system: f64,
}

/// Since when that is counted.
#[derive(Debug)]
pub(super) struct CpuClock {
    start: Instant,
    user: f64,
    system: f64,
}

impl CpuClock {
    pub(super) fn start() -> Self {
        let (user, system) = cpu_seconds();
        Self { start: Instant::now(), user, system }
    }

    pub(super) fn so_far(&self) -> Cpu {
        let (user, system) = cpu_seconds();
        let seconds = self.start.elapsed().as_secs_f64().max(1e-6);
        let per_cent = |now: f64, then: f64| (now - then).max(0.0) / seconds * 100.0;
        let (user, system) = (per_cent(user, self.user), per_cent(system, self.system));
        Cpu { total: user + system, user, system }
    }
}

fn cpu_seconds() -> (f64, f64) {
    use nix::sys::{
        resource::{UsageWho, getrusage},
        time::TimeVal,
    };
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or((0.0, 0.0), |usage| (seconds(usage.user_time()), seconds(usage.system_time())))
}

#[cfg(test)]
pub(super) mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;

    /// A stream's meter whose connection tells nothing.
    pub(in crate::cli::bench::iperf3) fn meter(id: u32, sends: bool) -> Meter {
        probed(id, sends, Box::new(|| None))
    }

    fn probed(id: u32, sends: bool, probe: Probe) -> Meter {
        let local = SocketAddr::from(([10, 0, 0, 1], 1000 + id as u16));
        let remote = SocketAddr::from(([10, 0, 0, 2], 5201));
        Meter::new(id, sends, (Some(local), remote), Arc::default(), probe)
    }

    /// One whose connection fares as it is told, and how that is done.
    fn faring(sends: bool) -> (Meter, impl Fn(u64, u64)) {
        let told = Arc::new(Mutex::new(Fares::default()));
        let fares = Arc::clone(&told);
        let meter = probed(1, sends, Box::new(move || Some(told.lock().expect("fares").clone())));
        let tell = move |retransmits, rtt| {
            *fares.lock().expect("fares") =
                Fares { retransmits, rtt, cwnd: 10 * rtt, window: rtt, ..Fares::default() };
        };
        (meter, tell)
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn an_interval_has_what_was_added_and_the_whole_has_all() {
        let mut meter = meter(1, false);
        let start = Instant::now();
        meter.counters.bytes.add(999);
        meter.counters.lost.add(9);
        meter.begin(start);
        meter.counters.bytes.add(1000);
        meter.counters.packets.add(10);
        meter.counters.lost.add(2);
        meter.counters.jitter.set(0.25_f64.to_bits());
        let first = meter.interval(start + seconds(1.0));
        assert_eq!((first.start, first.end, first.seconds()), (0.0, 1.0, 1.0));
        assert_eq!((first.bytes, first.packets, first.lost, first.jitter), (1000, 10, 2, 0.25));
        meter.counters.bytes.add(500);
        meter.counters.packets.add(5);
        meter.counters.out_of_order.add(1);
        // What came late was not lost.
        meter.counters.lost.add(u64::MAX);
        let second = meter.interval(start + seconds(1.5));
        assert_eq!((second.start, second.end, second.bytes, second.lost), (1.0, 1.5, 500, -1));
        meter.counters.bytes.add(77);
        let whole = meter.whole();
        assert_eq!((whole.bytes, whole.packets, whole.lost), (1500, 15, 1), "up to the last interval's end");
        assert_eq!((whole.seconds, whole.out_of_order, whole.jitter), (1.5, 1, 0.25));
    }

    #[test]
    fn what_was_before_counting_begins_once_more_is_left_out() {
        let mut meter = meter(1, true);
        let start = Instant::now();
        meter.begin(start);
        meter.counters.bytes.add(1000);
        meter.counters.packets.add(10);
        meter.interval(start + seconds(1.0));
        meter.begin(start + seconds(1.0));
        meter.counters.bytes.add(50);
        meter.counters.packets.add(1);
        let interval = meter.interval(start + seconds(2.0));
        assert_eq!((interval.start, interval.end, interval.bytes), (0.0, 1.0, 50));
        assert_eq!((meter.whole().bytes, meter.whole().packets, meter.whole().seconds), (50, 1, 1.0));
        // Datagrams are told to the other end by their numbers, and it counts from when it began.
        let results = meter.results();
        assert_eq!((results.bytes, results.packets, results.end_time), (50, 11, 1.0));
        assert_eq!(meter.others(&results).packets, 1);
    }

    #[test]
    fn retransmissions_are_the_senders_since_counting_began() {
        let (mut meter, tell) = faring(true);
        let start = Instant::now();
        tell(5, 100);
        meter.begin(start);
        tell(7, 300);
        let interval = meter.interval(start + seconds(1.0));
        assert_eq!(interval.retransmits, Some(2));
        assert_eq!(interval.fares.map(|fares| fares.rtt), Some(300));
        tell(7, 100);
        assert_eq!(meter.interval(start + seconds(2.0)).retransmits, Some(0));
        let whole = meter.whole();
        assert_eq!(whole.retransmits, Some(2));
        assert_eq!((whole.fares.max_rtt, whole.fares.min_rtt, whole.fares.mean_rtt()), (300, 100, 200));
        assert_eq!((whole.fares.max_cwnd, whole.fares.max_window), (3000, 300));
        assert_eq!(meter.results().retransmits, 2);
        // Its connection is gone: nothing was sent again since.
        meter.let_go();
        assert_eq!(meter.interval(start + seconds(3.0)).retransmits, Some(0));
        let (mut receiver, tell) = faring(false);
        receiver.begin(start);
        tell(9, 9);
        let interval = receiver.interval(start + seconds(1.0));
        assert_eq!((interval.retransmits, interval.fares), (None, None));
        assert_eq!((receiver.whole().retransmits, receiver.results().retransmits), (None, -1));
    }

    #[test]
    fn what_the_other_end_does_not_tell_is_not_made_up() {
        let mut meter = meter(1, true);
        let start = Instant::now();
        meter.begin(start);
        meter.interval(start + seconds(2.0));
        let told = StreamResults {
            bytes: 10,
            retransmits: -1,
            errors: 3,
            packets: 4,
            jitter: 0.5,
            ..Default::default()
        };
        let other = meter.others(&told);
        assert_eq!((other.bytes, other.lost, other.packets, other.jitter), (10, 3, 4, 0.5));
        assert_eq!((other.retransmits, other.seconds), (None, 2.0), "its time is taken to be ours");
        let timed = StreamResults { end_time: 1.5, retransmits: 0, ..told };
        assert_eq!((meter.others(&timed).retransmits, meter.others(&timed).seconds), (Some(0), 1.5));
    }

    #[test]
    fn no_time_and_no_bytes_are_zero() {
        let mut meter = meter(1, true);
        assert_eq!((meter.whole(), meter.whole().fares.mean_rtt()), (Whole::default(), 0));
        let now = Instant::now();
        meter.begin(now);
        let interval = meter.interval(now);
        assert_eq!((interval.seconds(), interval.bytes, interval.jitter), (0.0, 0, 0.0));
        assert_eq!(
            meter.others(&StreamResults::default()),
            Whole { retransmits: Some(0), ..Whole::default() }
        );
        let cpu = CpuClock::start().so_far();
        assert!(cpu.total.is_finite() && cpu.total >= 0.0, "{cpu:?}");
    }

    #[test]
    fn there_is_no_second_stream() {
        assert_eq!(ids().take(4).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!(meter(1, true).socket(), 5, "as iperf3's first one");
    }
}
