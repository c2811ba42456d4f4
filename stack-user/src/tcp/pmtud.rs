//! How large a packet the path carries: by ICMP (RFC 1191, RFC 8201), by segments that are larger than the others and
//! arrive or not (RFC 4821), and by time-outs of large segments where nobody says why (a *black hole*). The words are
//! those of RFC 8899.
//!
//! ICMP errors can be forged, and often are filtered. So an error that contradicts what has arrived already waits for a
//! time-out to confirm it (RFC 5927 §7.2), and a path that swallows full segments in silence gets smaller ones after
//! some time-outs. From there the search goes up again: a *probe* is a segment of ordinary data that is larger than the
//! others. If it alone is lost, its size was why, and congestion was not.

use super::{Connection, config::PathMtuProbing, output::Transmit, recovery::Phase, seq::SeqNumber};
use crate::{
    frame::FramePool,
    time::{Duration, Instant},
    wire::tcp::Header,
};

/// BASE_PLPMTU (RFC 8899 §5.1.2): what practically every path carries.
const BASE_PLPMTU: usize = 1200;

/// MIN_PLPMTU for IPv4, and the smallest MTU that we believe. RFC 791 allows 68; nothing on today's internet is below
/// 552, and a forged error must not make us send crumbs (RFC 5927 §7.2).
const MIN_PLPMTU: usize = 552;

/// MAX_PROBES (RFC 8899 §5.1.2): a size has failed when so many probes of it were lost. Fewer, and a loss by chance ends
/// the search below what the path carries; more costs a retransmission each.
const MAX_PROBES: u8 = 3;

/// Consecutive time-outs of a segment larger than BASE_PLPMTU that make a black hole (RFC 4821 §7.7). Fewer, and a link
/// that is away for a moment costs the large segments for a while; more, and each doubles the time that a user waits.
const BLACK_HOLE_TIMEOUTS: u8 = 3;

/// The same for a segment between MIN_PLPMTU and BASE_PLPMTU, when none larger has been tried. Practically every path carries
/// it, so it is more likely that nobody is there; fewer, and each outage of some seconds leaves crumbs behind until the
/// search has gone up again.
const MIDDLE_BLACK_HOLE_TIMEOUTS: u8 = 5;

/// PMTU_RAISE_TIMER (RFC 8899 §5.1.1), and how long RFC 1191 §6.3 believes an ICMP error: then the path may have
/// become another.
const RAISE_AFTER: Duration = Duration::from_secs(600);

/// A search that has come this near is over: less is not worth a probe.
const SEARCH_STEP: usize = 16;

/// Full segments that must follow a probe, so that their SACKs tell of its loss (RFC 4821 §7.4).
const FOLLOWERS: usize = 3;

/// Sizes of common links, for routers that send the error without a size (RFC 1191 §7.1).
const PLATEAUS: [usize; 9] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, MIN_PLPMTU];

/// What is known of the path's MTU. Sizes are of packets, IP header included (RFC 4821 §5.1).
#[derive(Clone, Debug)]
pub struct Pmtud {
    mode: PathMtuProbing,
    /// PLPMTU: the largest packet that we send.
    mtu: usize,
    /// The largest that may be tried.
    high: usize,
    /// A probe that was one byte larger than `high` was lost, so `high` is no size that a link is known to have.
    high_failed: bool,
    phase: Search,
    /// PROBED_SIZE and where the probe lies in the stream.
    probe: Option<Probe>,
    /// PROBE_COUNT: probes of the next size that were lost.
    lost_probes: u8,
    /// Time-outs of a large segment since something was acknowledged.
    timeouts: u8,
    /// The largest packet that has certainly arrived.
    arrived: usize,
    /// An ICMP error that contradicts `arrived`: its MTU, and the segment that it quotes.
    unconfirmed: Option<(usize, SeqNumber)>,
}

#[derive(Clone, Copy, Debug)]
enum Search {
    /// Sizes between `mtu` and `high` are tried.
    Searching,
    /// SEARCH_COMPLETE, until the time to try larger ones again, if there is any.
    Complete(Option<Instant>),
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    start: u64,
    end: u64,
    size: usize,
}

impl Pmtud {
    /// Nothing known: the link's MTU is the path's, unless the mode is to start low.
    pub fn new(mode: PathMtuProbing) -> Self {
        let always = mode == PathMtuProbing::Always;
        Self {
            mode,
            mtu: if always { BASE_PLPMTU } else { usize::MAX },
            high: usize::MAX,
            high_failed: false,
            phase: if always { Search::Searching } else { Search::Complete(None) },
            probe: None,
            lost_probes: 0,
            timeouts: 0,
            arrived: 0,
            unconfirmed: None,
        }
    }

    /// The largest packet that has arrived, if nothing else is known of the path: all as at first.
    pub(super) fn rest(&self) -> Option<u32> {
        let Self {
            mode: _,
            mtu,
            high,
            high_failed,
            phase,
            probe,
            lost_probes,
            timeouts,
            arrived,
            unconfirmed,
        } = *self;
        let is_plain = (mtu, high, high_failed) == (usize::MAX, usize::MAX, false)
            && matches!(phase, Search::Complete(None))
            && probe.is_none()
            && (lost_probes, timeouts, unconfirmed) == (0, 0, None);
        arrived.try_into().ok().filter(|_| is_plain)
    }

    /// Goes on after a rest in which nothing else was known than what had arrived.
    pub(super) fn resume(mode: PathMtuProbing, arrived: u32) -> Self {
        let (mtu, phase) = (usize::MAX, Search::Complete(None));
        Self { mtu, phase, arrived: arrived as usize, ..Self::new(mode) }
    }

    /// PLPMTU; `usize::MAX` while nothing is known to be less than our link's.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// Whether the next segment may be a probe, as far as the search is concerned.
    pub(super) fn wants_probe(&self) -> bool {
        matches!(self.phase, Search::Searching) && self.probe.is_none() && self.arrived > 0
    }

    /// The size to probe with next, if it is time to. `max` is MAX_PLPMTU: what our link and the peer take.
    fn next_probe(&mut self, now: Instant, max: usize) -> Option<usize> {
        if let Search::Complete(Some(raise_at)) = self.phase
            && now >= raise_at
        {
            self.raise();
        }
        // RFC 8899 §5.2: the present size has to be confirmed before a larger one is tried.
        if !matches!(self.phase, Search::Searching) || self.probe.is_some() || self.arrived == 0 {
            return None;
        }
        let high = self.high.min(max);
        if high < self.mtu.saturating_add(SEARCH_STEP) {
            self.phase = Search::Complete((self.mtu < max).then(|| now + RAISE_AFTER));
            return None;
        }
        // RFC 4821 §7.3: halfway; the last step is to the end of the range, if that may be a link's real size.
        let middle = self.mtu + (high - self.mtu) / 2;
        Some(if high - middle < SEARCH_STEP && !self.high_failed { high } else { middle })
    }

    /// The path may carry more by now. Who does not probe just tries, and another ICMP error tells (RFC 1191 §6.3).
    fn raise(&mut self) {
        (self.high, self.high_failed, self.lost_probes) = (usize::MAX, false, 0);
        if self.mode == PathMtuProbing::Off {
            self.mtu = usize::MAX;
            self.phase = Search::Complete(None);
        } else {
            self.phase = Search::Searching;
        }
    }

    /// RFC 4821 §7.6.1: the probe has arrived.
    fn probe_arrived(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.mtu = self.mtu.max(probe.size);
            self.arrived = self.arrived.max(probe.size);
            self.lost_probes = 0;
        }
    }

    /// RFC 4821 §7.6.2: the probe was lost, and nothing else.
    fn probe_lost(&mut self) {
        if let Some(probe) = self.probe.take() {
            self.lost_probes += 1;
            if self.lost_probes >= MAX_PROBES {
                (self.high, self.high_failed) = (probe.size - 1, true);
                self.lost_probes = 0;
            }
        }
    }

    /// The probe was lost among others, or is sent again in parts: that tells nothing (RFC 4821 §7.6.4).
    pub(super) fn probe_inconclusive(&mut self, start: u64) {
        self.probe.take_if(|probe| probe.start == start);
    }

    /// A router says that it can't forward a packet of ours: acts on it if it is credible, and returns whether PLPMTU
    /// became smaller. `mtu` is PLPMTU as it is used, `quoted` the segment that the error quotes and its place.
    fn too_big(&mut self, now: Instant, claimed: usize, mtu: usize, quoted: (SeqNumber, u64)) -> bool {
        let sent = self.probe.filter(|probe| probe.start == quoted.1).map_or(mtu, |probe| probe.size);
        let claimed = match claimed {
            // RFC 1191 §7.1: the error names no size, or an impossible one.
            0..68 => PLATEAUS.into_iter().find(|&plateau| plateau < sent).unwrap_or(MIN_PLPMTU),
            claimed => claimed.max(MIN_PLPMTU),
        };
        if claimed >= sent {
            // The packet would have passed: no router says this (RFC 5927 §7.2).
            return false;
        }
        if claimed >= mtu {
            // It is about the probe (RFC 8899 §4.6.2).
            (self.high, self.high_failed) = (self.high.min(claimed), false);
            self.probe = None;
            self.lost_probes = 0;
            return true;
        }
        if claimed < self.arrived {
            // RFC 5927 §7.2: larger ones have arrived. If the path has changed, a time-out will confirm it.
            self.unconfirmed = Some((claimed, quoted.0));
            return false;
        }
        self.lower(now, claimed);
        true
    }

    fn lower(&mut self, now: Instant, mtu: usize) {
        (self.mtu, self.high, self.high_failed) = (mtu, mtu, false);
        (self.arrived, self.lost_probes) = (0, 0);
        (self.probe, self.unconfirmed, self.timeouts) = (None, None, 0);
        self.phase = Search::Complete(Some(now + RAISE_AFTER));
    }

    /// The retransmission timer expired for a segment in a packet of `size`. Returns whether PLPMTU became smaller.
    fn on_timeout(&mut self, now: Instant, size: usize, mtu: usize) -> bool {
        // RFC 4821 §7.6.3.
        self.probe = None;
        if let Some((claimed, _)) = self.unconfirmed.take() {
            self.lower(now, claimed);
            return true;
        }
        let smaller = if size > BASE_PLPMTU { BASE_PLPMTU } else { MIN_PLPMTU };
        if self.mode == PathMtuProbing::Off || size <= smaller {
            return false;
        }
        let suspected = smaller == BASE_PLPMTU || self.mtu == BASE_PLPMTU;
        let patience = if suspected { BLACK_HOLE_TIMEOUTS } else { MIDDLE_BLACK_HOLE_TIMEOUTS };
        self.timeouts = self.timeouts.saturating_add(1);
        if self.timeouts < patience {
            return false;
        }
        // RFC 4821 §7.7, RFC 8899 §4.3: nobody says it, but packets of this size don't arrive.
        self.lower(now, smaller);
        self.high = mtu;
        self.phase = Search::Searching;
        true
    }

    /// Something up to `ack` has arrived, a packet of `size` among it.
    fn on_arrival(&mut self, size: usize, ack: SeqNumber) {
        self.timeouts = 0;
        self.arrived = self.arrived.max(size);
        // The segment that was said to be too big has passed: the error was forged, or is out of date.
        self.unconfirmed.take_if(|(_, quoted)| quoted.before(ack));
    }
}

impl Connection {
    /// Bytes of a packet around a payload of ours.
    fn packet_overhead(&self) -> usize {
        self.ip_header_len() + self.data_header_len()
    }

    /// MAX_PLPMTU: what our link and the peer take.
    fn max_path_mtu(&self) -> usize {
        usize::from(self.snd.peer_mss.min(self.config.mss)) + self.ip_header_len() + Header::LEN
    }

    /// PLPMTU: the largest packet that the path is believed to carry.
    pub(super) fn path_mtu(&self) -> usize {
        self.pmtud.mtu().min(self.max_path_mtu())
    }

    /// An ICMP error says that a packet was too big (RFC 1191 §4, RFC 8201 §4).
    pub(super) fn on_packet_too_big(&mut self, now: Instant, mtu: usize, quoted: SeqNumber) {
        let place = (quoted, self.snd.offset(quoted));
        let current = self.path_mtu();
        if self.pmtud.too_big(now, mtu, current, place) {
            self.resize_segments();
        }
    }

    /// The retransmission timer expired.
    pub(super) fn on_timeout_for_path_mtu(&mut self, now: Instant) {
        // What the peer has no room for it would not take in any size.
        let window_end = self.window_end();
        let Some(oldest) = self.send.get(0).filter(|oldest| oldest.end() <= window_end) else { return };
        let (size, mtu) = (oldest.len + self.packet_overhead(), self.path_mtu());
        if self.pmtud.on_timeout(now, size, mtu) {
            self.resize_segments();
        }
    }

    /// Our own link takes packets of another size. A larger one changes nothing: the peer was told of the smaller.
    pub fn on_link_mtu(&mut self, mtu: u16) {
        let mss = usize::from(mtu).saturating_sub(self.ip_header_len() + Header::LEN);
        if mss < usize::from(self.config.mss) {
            self.config.mss = mss as u16;
            self.resize_segments();
        }
    }

    /// What is too large now was lost, and congestion is not why (RFC 1191 §6.2).
    fn resize_segments(&mut self) {
        let mss = self.layout().mss;
        self.congestion.set_mss(mss);
        if self.state.is_synchronized() {
            self.recovery.on_smaller_mss(&mut self.send, mss);
        }
    }

    /// SND.UNA is about to move to `ack`.
    pub(super) fn on_arrival_for_path_mtu(&mut self, ack: SeqNumber) {
        let end = self.snd.offset(ack);
        let arrived = self.send.get(0).filter(|entry| entry.end() <= end);
        let size = arrived.map_or(0, |entry| entry.len + self.packet_overhead());
        self.pmtud.on_arrival(size, ack);
    }

    /// Looks what an ACK says of the probe, before loss recovery does: a probe that alone is lost is no sign of
    /// congestion (RFC 4821 §7.6.2), and is sent again at once in the size that is known to pass.
    pub(super) fn judge_mtu_probe(&mut self) {
        let Some(probe) = self.pmtud.probe else { return };
        let una = self.snd.una_offset;
        let sacked = self.send.is_sacked(probe.start);
        if una >= probe.end || sacked {
            self.pmtud.probe_arrived();
            let mss = self.layout().mss;
            return self.congestion.set_mss(mss);
        }
        let alone = una == probe.start && self.recovery.phase() == Phase::Open;
        // One that only overtook it proves nothing.
        if alone && self.send.sacked_entries() >= FOLLOWERS {
            self.pmtud.probe_lost();
            let mss = self.layout().mss;
            self.recovery.on_smaller_mss(&mut self.send, mss);
        }
    }

    /// Sends a probe, if it is time to and enough data waits (RFC 4821 §7.4). It takes SACK to see that it alone is lost.
    pub(super) fn transmit_mtu_probe<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
    ) -> Option<Transmit> {
        let max = self.max_path_mtu();
        let size = self.pmtud.next_probe(now, max)?;
        let layout = self.layout();
        let len = size.saturating_sub(self.packet_overhead());
        let all = len + FOLLOWERS * layout.mss;
        let usable = (self.snd.una + self.snd.wnd) - self.snd.nxt;
        let calm = self.sack_enabled && self.recovery.phase() == Phase::Open && self.send.lost() == 0;
        let fits = all <= usable
            && all <= self.send.unsent_bytes()
            && layout.payload_at + len <= pool.tx_frame_capacity();
        if !(calm && fits && self.congestion_allows(all)) {
            return None;
        }
        let index = self.send.sent_entries();
        let (start, have) = self.send.unsent().map(|entry| (entry.start, entry.len))?;
        let sized = if have > len {
            // It was written when segments were larger.
            self.send.split(pool, index, len, layout.payload_at)
        } else {
            self.send.lengthen_unsent(pool, len, layout.payload_at)
        };
        if !sized {
            return None;
        }
        self.pmtud.probe = Some(Probe { start, end: start + len as u64, size });
        self.transmit_entry(now, pool, index, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(1000);
    const MTU: usize = 1500;
    const QUOTED: (SeqNumber, u64) = (SeqNumber(5000), 4000);

    fn pmtud() -> Pmtud {
        Pmtud::new(PathMtuProbing::BlackHole)
    }

    #[test]
    fn an_error_without_a_size_means_the_next_plateau_rfc1191_7_1() {
        let mut pmtud = pmtud();
        assert!(pmtud.too_big(NOW, 0, MTU, QUOTED));
        assert_eq!(pmtud.mtu(), 1492);
        assert!(pmtud.too_big(NOW, 0, 1492, QUOTED));
        assert_eq!(pmtud.mtu(), 1006);
        assert!(pmtud.too_big(NOW, 67, 1006, QUOTED));
        assert_eq!(pmtud.mtu(), MIN_PLPMTU);
        assert!(!pmtud.too_big(NOW, 0, MIN_PLPMTU, QUOTED), "there is a floor");
    }

    #[test]
    fn an_error_that_contradicts_what_arrived_waits_for_a_timeout_rfc5927_7_2() {
        let mut pmtud = pmtud();
        pmtud.on_arrival(MTU, SeqNumber(4000));
        assert!(!pmtud.too_big(NOW, 600, MTU, QUOTED));
        // What it quotes arrives: it was a lie.
        pmtud.on_arrival(MTU, SeqNumber(5001));
        assert!(!pmtud.on_timeout(NOW, MTU, MTU));
        assert_eq!(pmtud.mtu(), usize::MAX);
        // It does not: the path has changed.
        assert!(!pmtud.too_big(NOW, 600, MTU, (SeqNumber(6000), 5000)));
        assert!(pmtud.on_timeout(NOW, MTU, MTU));
        assert_eq!(pmtud.mtu(), 600);
    }

    #[test]
    fn an_impossible_claim_is_none_rfc5927_7_2() {
        let mut pmtud = pmtud();
        assert!(!pmtud.too_big(NOW, MTU, MTU, QUOTED), "a packet of that size would have passed");
        assert!(pmtud.too_big(NOW, 68, MTU, QUOTED));
        assert_eq!(pmtud.mtu(), MIN_PLPMTU, "no crumbs");
    }

    #[test]
    fn three_timeouts_of_large_segments_are_a_black_hole_rfc8899_4_3() {
        let mut pmtud = pmtud();
        assert!(!pmtud.on_timeout(NOW, MTU, MTU) && !pmtud.on_timeout(NOW, MTU, MTU));
        pmtud.on_arrival(100, SeqNumber(1));
        assert!(!pmtud.on_timeout(NOW, MTU, MTU) && !pmtud.on_timeout(NOW, MTU, MTU), "it counts anew");
        assert!(pmtud.on_timeout(NOW, MTU, MTU));
        assert_eq!(pmtud.mtu(), BASE_PLPMTU);
        assert!((0..3).any(|_| pmtud.on_timeout(NOW, 1200, 1200)));
        assert_eq!(pmtud.mtu(), MIN_PLPMTU);
        assert!(!(0..30).any(|_| pmtud.on_timeout(NOW, MIN_PLPMTU, MIN_PLPMTU)));
        let mut off = Pmtud::new(PathMtuProbing::Off);
        assert!(!(0..30).any(|_| off.on_timeout(NOW, MTU, MTU)));
    }

    /// Searches on a path that carries `real`, and returns what is found and how many probes it took.
    fn search(pmtud: &mut Pmtud, now: Instant, real: usize) -> (usize, usize) {
        let mut probes = 0;
        pmtud.on_arrival(pmtud.mtu(), SeqNumber(1));
        while let Some(size) = pmtud.next_probe(now, MTU) {
            assert!(size > pmtud.mtu() && size <= MTU);
            pmtud.probe = Some(Probe { start: 0, end: 1, size });
            if size <= real {
                pmtud.probe_arrived()
            } else {
                pmtud.probe_lost()
            }
            probes += 1;
        }
        (pmtud.mtu(), probes)
    }

    #[test]
    fn the_search_comes_near_with_few_probes_rfc8899_5_3() {
        for real in [1200, 1280, 1400, 1420, 1472, 1480, 1492, 1500] {
            let mut pmtud = Pmtud::new(PathMtuProbing::Always);
            let (found, probes) = search(&mut pmtud, NOW, real);
            assert!(found <= real && real - found < SEARCH_STEP, "{real}: {found}");
            assert!(probes <= 6 * usize::from(MAX_PROBES), "{real}: {probes}");
        }
    }

    #[test]
    fn after_ten_minutes_larger_sizes_are_tried_again_rfc1191_6_3_rfc8899_5_1_1() {
        let mut pmtud = pmtud();
        assert!(pmtud.too_big(NOW, 1400, MTU, QUOTED));
        let later = NOW + Duration::from_secs(599);
        assert_eq!(pmtud.next_probe(later, MTU), None);
        assert_eq!(search(&mut pmtud, later + Duration::from_secs(1), 1500).0, 1500);

        let mut off = Pmtud::new(PathMtuProbing::Off);
        assert!(off.too_big(NOW, 1400, MTU, QUOTED));
        assert_eq!(off.next_probe(NOW + RAISE_AFTER, MTU), None);
        assert_eq!(off.mtu(), usize::MAX, "without probes: it just tries");
    }
}
