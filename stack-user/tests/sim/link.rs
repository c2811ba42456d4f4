//! One direction of a link: how fast, how far, how much may wait, and what goes wrong.

use stack_user::{
    rng::Rng,
    time::{Duration, Instant},
    wire::{checksum::checksum, ethernet, ethernet::ethertype, ipv4},
};

/// What a link does to the frames that it carries.
#[derive(Clone, Debug)]
pub(crate) struct Quality {
    /// Bits per second; 0 is as fast as one likes.
    pub(crate) rate: u64,
    /// From the last bit that is sent to its arrival.
    pub(crate) delay: Duration,
    /// Bytes that wait to be sent at most; what comes then is lost (tail drop).
    pub(crate) queue: usize,
    /// The longest IP datagram that it carries. A longer one is lost without a word: routers tell, links don't.
    pub(crate) mtu: u16,
    /// The part of the frames that is lost, each for itself.
    pub(crate) loss: f64,
    /// Losses that come in bursts.
    pub(crate) bursts: Option<Bursts>,
    /// The part of the frames that is late, by up to `late`, so that others overtake them.
    pub(crate) reorder: f64,
    pub(crate) late: Duration,
    /// The part of the frames that arrives twice.
    pub(crate) duplicate: f64,
    /// The part of the frames in which a bit is wrong.
    pub(crate) corrupt: f64,
    /// Datagrams that could be marked are, when more bytes than this wait (RFC 3168 §5).
    pub(crate) mark_above: Option<usize>,
    /// The marks, and the ability to bear them, are wiped out.
    pub(crate) bleaches: bool,
    /// ARP is never lost: then nobody may fail to find a neighbour.
    pub(crate) spares_arp: bool,
}

/// The model of Gilbert and Elliott: a good state in which nothing is lost, and a bad one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bursts {
    /// The chance that a frame finds the link becoming bad.
    pub(crate) begin: f64,
    /// The chance that a frame finds it becoming good again.
    pub(crate) end: f64,
    /// The part that is lost meanwhile.
    pub(crate) loss: f64,
}

/// A burst ends after this time, however few frames it has met: to somebody who has backed off to one frame in two
/// minutes, a state that only frames can end would be the end.
const LONGEST_BURST: Duration = Duration::from_millis(500);

impl Quality {
    /// A link that does nothing to its frames.
    pub(crate) fn perfect() -> Self {
        Self {
            rate: 0,
            delay: Duration::from_micros(5),
            queue: 1 << 20,
            mtu: u16::MAX,
            loss: 0.0,
            bursts: None,
            reorder: 0.0,
            late: Duration::ZERO,
            duplicate: 0.0,
            corrupt: 0.0,
            mark_above: None,
            bleaches: false,
            spares_arp: true,
        }
    }

    /// Whether a frame can get lost, late, doubled or damaged (a full queue aside).
    pub(crate) fn is_faulty(&self) -> bool {
        self.loses() || self.reorder > 0.0 || self.duplicate > 0.0 || self.corrupt > 0.0
    }

    /// Whether frames are lost by chance.
    pub(crate) fn loses(&self) -> bool {
        self.loss > 0.0 || self.bursts.is_some() || self.corrupt > 0.0
    }
}

/// Why a link did not carry a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Down,
    TooLong,
    Chance,
    QueueFull,
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) quality: Quality,
    /// Nothing is carried while it is down.
    pub(crate) is_up: bool,
    rng: Rng,
    /// When all that waits has been sent.
    free_at: Instant,
    /// Until when the link is bad at most, if it is.
    bad_until: Option<Instant>,
}

impl Link {
    pub(crate) fn new(quality: Quality, rng: Rng) -> Self {
        Self { quality, is_up: true, rng, free_at: Instant::ZERO, bad_until: None }
    }

    /// A frame is to be carried: appends it to `arrivals`, with the time; twice if it is doubled.
    pub(crate) fn carry(
        &mut self,
        now: Instant,
        mut frame: Vec<u8>,
        arrivals: &mut Vec<(Instant, Vec<u8>)>,
    ) -> Result<(), Lost> {
        if !self.is_up {
            return Err(Lost::Down);
        }
        if frame.len() > usize::from(self.quality.mtu) + ethernet::LEN {
            return Err(Lost::TooLong);
        }
        if self.is_lost(now, &frame) {
            return Err(Lost::Chance);
        }
        let waiting = self.waiting(now);
        if waiting + frame.len() > self.quality.queue.max(frame.len()) {
            return Err(Lost::QueueFull);
        }
        self.mark(&mut frame, waiting);
        if self.rng_says(self.quality.corrupt) {
            self.damage(&mut frame);
        }
        self.free_at = self.free_at.max(now) + self.sending_time(frame.len());
        let copy = self.rng_says(self.quality.duplicate).then(|| frame.clone());
        for frame in [Some(frame), copy].into_iter().flatten() {
            let mut arrival = self.free_at + self.quality.delay;
            if self.rng_says(self.quality.reorder) {
                let late = self.quality.late.as_nanos() as u64;
                arrival += Duration::from_nanos(self.rng.below(late));
            }
            arrivals.push((arrival, frame));
        }
        Ok(())
    }

    /// A chance of zero costs no randomness.
    fn rng_says(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.chance(probability)
    }

    fn is_lost(&mut self, now: Instant, frame: &[u8]) -> bool {
        if self.quality.spares_arp && read_u16(frame, 12) == ethertype::ARP {
            return false;
        }
        if let Some(bursts) = self.quality.bursts {
            self.bad_until = match self.bad_until.filter(|&until| until > now) {
                None => self.rng.chance(bursts.begin).then(|| now + LONGEST_BURST),
                Some(_) if self.rng.chance(bursts.end) => None,
                bad => bad,
            };
            if self.bad_until.is_some() && self.rng.chance(bursts.loss) {
                return true;
            }
        }
        self.rng_says(self.quality.loss)
    }

    /// Bytes that have not been sent yet.
    fn waiting(&self, now: Instant) -> usize {
        let time = self.free_at.since(now).as_nanos();
        (time * u128::from(self.quality.rate) / 8_000_000_000) as usize
    }

    fn sending_time(&self, bytes: usize) -> Duration {
        match self.quality.rate {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(bytes as u64 * 8_000_000_000 / rate),
        }
    }

    fn mark(&self, frame: &mut [u8], waiting: usize) {
        if read_u16(frame, 12) != ethertype::IPV4 {
            return;
        }
        let codepoint = frame[ethernet::LEN + 1] & 0x03;
        let marked = match self.quality.mark_above {
            _ if self.quality.bleaches => 0,
            Some(above) if waiting > above && codepoint != 0 => 0x03,
            _ => codepoint,
        };
        if marked != codepoint {
            frame[ethernet::LEN + 1] ^= codepoint ^ marked;
            write_ip_checksum(&mut frame[ethernet::LEN..]);
        }
    }

    /// One bit is wrong, of what has a checksum: a real link checks the rest itself (IEEE 802.3 §3.2.9).
    fn damage(&mut self, frame: &mut [u8]) {
        if read_u16(frame, 12) != ethertype::IPV4 {
            return;
        }
        let len = usize::from(read_u16(frame, ethernet::LEN + 2)).min(frame.len() - ethernet::LEN);
        let at = ethernet::LEN + self.rng.below(len as u64) as usize;
        frame[at] ^= 1 << self.rng.below(8);
    }
}

/// Two bytes of a frame in the network's order; 0 beyond its end.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]))
}

/// Makes the checksum of an IPv4 header without options right again.
pub(crate) fn write_ip_checksum(datagram: &mut [u8]) {
    datagram[10..12].fill(0);
    let sum = checksum(&datagram[..ipv4::LEN]);
    datagram[10..12].copy_from_slice(&sum.to_be_bytes());
}
