//! The path's MTU: what ICMP says, what vanishes in silence, and what is tried.

use crate::dsl::{Script, config, seg};
use stack_user::{
    frame::FramePool,
    tcp::{
        Config, PathMtuProbing, Unreachable,
        options::Options,
        send_queue::RESERVED_CHUNKS,
        trace::{Kind, WindowReason},
    },
    time::Duration,
};

/// IP and TCP headers without options.
const HEADERS: usize = 40;

fn peer() -> Options {
    Options { mss: Some(1460), sack_permitted: true, ..Options::default() }
}

fn script(probing: PathMtuProbing) -> Script {
    Script::established(Config { path_mtu_probing: probing, ..config() }, peer())
}

/// A path that loses all packets larger than `mtu` and a peer that takes the others.
struct Path {
    mtu: usize,
    /// What has arrived: ranges that are sorted and apart.
    have: Vec<(i64, i64)>,
    /// The sizes of all packets that were sent.
    sizes: Vec<usize>,
    lost: usize,
}

impl Path {
    fn new(mtu: usize) -> Self {
        Self { mtu, have: vec![(0, 0)], sizes: Vec::new(), lost: 0 }
    }

    fn take(&mut self, start: i64, end: i64) {
        self.have.push((start, end));
        self.have.sort_unstable();
        let mut apart: Vec<(i64, i64)> = Vec::new();
        for &(start, end) in &self.have {
            match apart.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => apart.push((start, end)),
            }
        }
        self.have = apart;
    }

    /// One round trip: all that is sent now arrives or vanishes, and each arrival is acknowledged 20 ms later.
    fn round(&mut self, s: &mut Script, syn: i64) {
        let mut arrived = Vec::new();
        while let Some((segment, data)) = s.poll() {
            if data.is_empty() {
                continue;
            }
            let size = segment.header_len() + 20 + data.len();
            self.sizes.push(size);
            if size > self.mtu {
                self.lost += 1;
                continue;
            }
            let start = i64::from(segment.seq.0.wrapping_sub(syn as u32));
            arrived.push((start, start + data.len() as i64));
        }
        if arrived.is_empty() {
            s.advance_to_timer();
            return;
        }
        s.advance(20);
        for (start, end) in arrived {
            self.take(start, end);
            let mut blocks: Vec<_> = self.have[1..].to_vec();
            // The latest first.
            blocks.sort_by_key(|block| !(block.0 <= start && end <= block.1));
            blocks.truncate(4);
            let _ = s.try_inject(seg(".").seq(0).ack(self.have[0].1).sack(&blocks));
        }
    }

    /// Until all of `len` bytes have arrived.
    fn carry(&mut self, s: &mut Script, len: usize) {
        let iss = s.connection.send_unacknowledged().0.wrapping_sub(self.have[0].1 as u32);
        let target = self.have[0].1 + len as i64;
        let mut left = len;
        for _ in 0..10_000 {
            while left > 0 {
                let n = left.min(10_000);
                match s.app_write(&vec![7; n]) {
                    Ok(n) => left -= n,
                    Err(_) => break,
                }
            }
            if self.have[0].1 >= target {
                return;
            }
            self.round(s, i64::from(iss));
        }
        panic!("it does not get through: {:?}", s.info());
    }
}

#[test]
fn a_black_hole_is_found_and_left_and_the_search_finds_the_real_size_rfc4821_7_7_rfc8899_4_3() {
    for real in [1280, 1400, 1492] {
        let mut s = script(PathMtuProbing::BlackHole);
        let mut path = Path::new(real);
        let start = s.now;
        path.carry(&mut s, 400_000);
        let info = s.info();
        assert!(info.path_mtu <= real && real - info.path_mtu < 16, "{real}: {}", info.path_mtu);
        assert_eq!(info.timeouts, 3, "three time-outs, and no more");
        assert!(s.now.since(start) < Duration::from_secs(10), "{:?}", s.now.since(start));
        s.finish();
    }
}

#[test]
fn without_probing_a_black_hole_swallows_all() {
    let mut s = script(PathMtuProbing::Off);
    s.write(20_000);
    let mut path = Path::new(1400);
    for _ in 0..8 {
        path.round(&mut s, 0);
    }
    assert_eq!((path.lost, s.info().path_mtu), (path.sizes.len(), 1500));
    s.finish();
}

#[test]
fn a_lost_probe_is_no_congestion_rfc4821_7_6_2() {
    let mut s = script(PathMtuProbing::Always);
    s.connection.listen_in(true);
    let mut path = Path::new(1300);
    path.carry(&mut s, 600_000);
    let info = s.info();
    assert!(path.lost > 0 && path.lost < 20, "{} probes", path.lost);
    assert_eq!((info.timeouts, info.ssthresh), (0, usize::MAX));
    assert!(info.path_mtu <= 1300 && info.path_mtu > 1284, "{}", info.path_mtu);
    let signals = core::iter::from_fn(|| s.connection.poll_trace());
    let losses = signals.filter(|record| {
        matches!(
            record.kind,
            Kind::CongestionWindow { reason: WindowReason::Loss | WindowReason::Timeout, .. }
        )
    });
    assert_eq!(losses.count(), 0);
    s.finish();
}

/// RFC 8899 §5.1.2: from BASE_PLPMTU, which is confirmed first (§5.2), up to MAX_PLPMTU; in bytes of IP packets (RFC 4821
/// §5.1).
#[test]
fn a_path_without_limits_is_used_to_the_full_rfc8899_5_3() {
    let mut s = script(PathMtuProbing::Always);
    let mut path = Path::new(9000);
    path.carry(&mut s, 300_000);
    assert_eq!(path.sizes.first(), Some(&1200), "BASE_PLPMTU");
    assert_eq!((path.sizes.iter().max(), path.lost), (Some(&1500), 0));
    assert_eq!(s.info().path_mtu, 1500);
    s.finish();
}

#[test]
fn after_ten_minutes_a_larger_size_is_tried_rfc1191_6_3() {
    let mut s = script(PathMtuProbing::BlackHole);
    s.write(1460);
    s.expect(seg(".").seq(0).len(1460));
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 1300 }, 0);
    s.expect(seg(".").seq(0).len(1260));
    s.expect(seg(".").seq(1260).len(200));
    s.inject(seg(".").seq(0).ack(1460));
    assert_eq!(s.info().path_mtu, 1300);
    let mut path = Path::new(1500);
    path.have = vec![(0, 1460)];
    path.carry(&mut s, 100_000);
    assert_eq!((s.info().path_mtu, path.sizes.iter().max()), (1300, Some(&1300)));
    s.advance(600_000);
    path.carry(&mut s, 300_000);
    assert_eq!(s.info().path_mtu, 1500);
    s.finish();
}

#[test]
fn an_error_about_less_than_what_has_arrived_waits_for_a_timeout_rfc5927_7_2() {
    let mut s = script(PathMtuProbing::BlackHole);
    s.write(1460);
    s.expect(seg(".").seq(0).len(1460));
    s.inject(seg(".").seq(0).ack(1460));
    s.write(1460);
    s.expect(seg(".").seq(1460).len(1460));
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 576 }, 1460);
    s.expect_silence();
    assert_eq!(s.info().path_mtu, 1500);
    // Nothing comes back: it was true.
    while s.info().timeouts == 0 {
        s.advance_to_timer();
        if s.info().timeouts == 0 {
            s.drain();
        }
    }
    assert_eq!(s.info().path_mtu, 576);
    s.expect(seg(".").seq(1460).len(576 - HEADERS));
    s.finish();
}

#[test]
fn an_error_that_quotes_nothing_outstanding_is_ignored_rfc5927_4_1() {
    let mut s = script(PathMtuProbing::BlackHole);
    s.write(1460);
    s.expect(seg(".").seq(0).len(1460));
    s.inject(seg(".").seq(0).ack(1460));
    for seq in [0, 1460, 100_000, -5000] {
        s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 576 }, seq);
    }
    s.expect_silence();
    assert_eq!(s.info().path_mtu, 1500);
    s.finish();
}

#[test]
fn what_the_peer_has_of_a_segment_is_not_sent_again_when_it_is_cut() {
    let mut s = script(PathMtuProbing::BlackHole);
    s.write(1460);
    s.expect(seg(".").seq(0).len(1460));
    s.inject(seg(".").seq(0).ack(700));
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 640 }, 700);
    s.expect(seg(".").seq(600).len(600));
    s.expect(seg(".").seq(1200).len(260));
    s.inject(seg(".").seq(0).ack(1460));
    s.finish();
}

/// RFC 4821 §7.4, RFC 8899 §3: what is lost with a probe must be missed soon.
#[test]
fn a_probe_waits_until_enough_follows_it() {
    let mut s = script(PathMtuProbing::Always);
    let mut path = Path::new(1500);
    for _ in 0..5 {
        path.carry(&mut s, 3000);
        assert!(path.sizes.iter().all(|&size| size <= 1200), "{:?}", path.sizes);
    }
    path.carry(&mut s, 50_000);
    assert!(path.sizes.iter().any(|&size| size > 1200), "{:?}", path.sizes);
    s.finish();
}

/// RFC 4821 §7.6.2: a probe counts as lost when what followed it says so as a loss would be told, not when one segment has
/// overtaken it.
#[test]
fn a_probe_that_was_only_overtaken_is_not_lost_rfc4821_7_6_2() {
    let mut s = script(PathMtuProbing::Always);
    Path::new(1500).carry(&mut s, 3000);
    s.write(20_000);
    let mut sent = 3000;
    let mut probe = None;
    while let Some((_, data)) = s.poll() {
        let start = sent;
        sent += data.len() as i64;
        if probe.is_none() && data.len() > 1160 {
            probe = Some((start, sent));
        }
    }
    let (start, end) = probe.expect("a probe");
    s.advance(20);
    s.inject(seg(".").seq(0).ack(start).sack(&[(end, end + 1160)]));
    s.drain();
    assert_eq!(s.info().retransmissions, 0);
    s.inject(seg(".").seq(0).ack(end + 1160));
    assert_eq!(s.info().path_mtu as i64, end - start + HEADERS as i64);
    s.finish();
}

/// RFC 8899 §4.3: a path may carry even less than BASE_PLPMTU, and what is written may be less than full segments from the
/// start.
#[test]
fn segments_of_middle_size_get_out_of_a_black_hole_rfc8899_4_3() {
    let mut s = script(PathMtuProbing::BlackHole);
    s.connection.set_nodelay(true);
    let mut path = Path::new(1000);
    path.carry(&mut s, 1060);
    let info = s.info();
    assert_eq!((path.sizes.first(), info.timeouts), (Some(&1100), 5));
    path.carry(&mut s, 1060);
    assert_eq!(s.info().timeouts, 5, "it is known by now");
    // A longer transfer finds what the path carries.
    path.carry(&mut s, 400_000);
    assert!((985..=1000).contains(&s.info().path_mtu), "{}", s.info().path_mtu);
    s.finish();
}

#[test]
fn segments_that_are_as_small_as_can_be_have_no_size_to_blame() {
    let mut s = script(PathMtuProbing::BlackHole);
    s.write(500);
    while s.info().timeouts < 8 {
        s.drain();
        s.advance_to_timer();
    }
    assert_eq!(s.info().path_mtu, 1500);
    s.finish();
}

/// A peer that has no room for a segment, and says so, is no black hole.
#[test]
fn a_closed_window_is_no_black_hole() {
    let mut s = script(PathMtuProbing::BlackHole);
    s.write(1460);
    s.expect(seg(".").seq(0).len(1460));
    while s.info().timeouts < 8 {
        s.inject(seg(".").seq(0).ack(0).window(0));
        s.drain();
        s.advance_to_timer();
    }
    assert_eq!(s.info().path_mtu, 1500);
    s.finish();
}

/// Where an error makes three segments of each that is on its way, and others hold most of the pool: what is cut leaves
/// the chunks that ACKs need, and still arrives.
#[test]
fn what_is_cut_for_a_smaller_path_leaves_chunks_for_acks() {
    for free in [RESERVED_CHUNKS + 2, RESERVED_CHUNKS - 10, RESERVED_CHUNKS / 4 + 1] {
        let mut s = script(PathMtuProbing::BlackHole);
        s.write(14_600);
        assert_eq!(s.drain(), 10);
        let taken: Vec<_> =
            core::iter::from_fn(|| (s.pool.available() > free).then(|| s.pool.allocate())?).collect();
        s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 552 }, 0);
        let first = i64::from(s.connection.send_unacknowledged().0);
        assert!(s.drain() > 0, "something goes out");
        let left = s.pool.available();
        assert!(left >= (free - 1).min(RESERVED_CHUNKS), "{left} of {free} chunks are left");
        // That is lost, too; then nothing is.
        let (mut path, started) = (Path::new(552), s.now);
        while path.have[0].1 < 14_600 {
            path.round(&mut s, first);
            assert!(s.now.since(started) < Duration::from_secs(10), "it stands still");
        }
        taken.into_iter().for_each(|frame| s.pool.release(frame));
        s.finish();
    }
}
