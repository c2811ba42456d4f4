//! SYN cookies (RFC 4987 §3.6): when there is no room to remember a SYN, our answer to it does.
//!
//! The initial sequence number that we send is a keyed hash of all that the connection will need; the peer's ACK brings
//! it back, and nobody else could have made it:
//!
//! ```text
//!   ISN    3 bits: which MSS   29 bits: MAC of addresses, ports, the peer's ISN, the epoch, the MSS and what TSval keeps
//!   TSval  26 bits: our clock  1 bit: free for ECN   1 bit: SACK   4 bits: the peer's window scale, 15 for none
//! ```
//!
//! Without timestamps there is no place for window scale and SACK, so such a connection has neither. An epoch is 64 s; a
//! cookie counts in its own and in the next. Cookies are a last resort: they can't be sent again when the answer is lost,
//! and a peer whose last ACK is lost waits in vain for a server that speaks first.

use std::net::SocketAddr;

use super::{
    block::DEFAULT_MSS,
    config::Config,
    half_open::{Arrival, HalfOpen},
    isn::{Purpose, SecretKey, Secrets},
    options::{MAX_WINDOW_SCALE, Options},
    segment::Segment,
    seq::SeqNumber,
};
use crate::{
    time::{Duration, Instant},
    wire::tcp::Flags,
};

/// How long a counter lasts. Shorter, and slow peers come too late; longer, and a cookie that was overheard can be used
/// for longer. Linux takes the same.
const EPOCH: Duration = Duration::from_secs(64);

/// Epochs in which a cookie counts: its own and the next, so it lives for 64 to 128 s.
const EPOCHS: u64 = 2;

/// How long after the last cookie was sent an ACK may bring one.
pub const LIFETIME: Duration = Duration::from_secs(64 * EPOCHS);

/// What MSS values are rounded down to: those of common links, without and with tunnels. Smaller ones count as the first.
const MSS: [u16; 8] = [216, DEFAULT_MSS, 1220, 1360, 1400, 1440, 1460, 8960];

const MAC_BITS: u32 = 29;
const MAC_MASK: u32 = (1 << MAC_BITS) - 1;

/// The low bits of TSval that keep options. Linux takes as many: 64 ms of the clock.
const KEPT_BITS: u32 = 6;
const KEPT_MASK: u32 = (1 << KEPT_BITS) - 1;
const SACK: u32 = 1 << 4;
const SHIFT_MASK: u32 = 0xf;

/// In place of the kept bits when there are no timestamps: no value of those.
const NO_TIMESTAMPS: u32 = KEPT_MASK + 1;

/// SYN with ACK that holds all there is to remember.
pub fn answer(
    key: &SecretKey,
    now: Instant,
    config: &Config,
    local: SocketAddr,
    remote: SocketAddr,
    syn: &Segment,
) -> Segment {
    let secrets = key.for_connection(now, local, remote);
    let mut half_open = HalfOpen::new(now, config, secrets, syn);
    // There is no room to remember it, and who has agreed must echo marks.
    half_open.ecn = false;
    let mss = MSS.iter().rposition(|&mss| mss <= half_open.peer_mss).unwrap_or(0) as u32;
    let kept = if half_open.timestamp.is_some() {
        kept_options(&half_open)
    } else {
        half_open.peer_shift = None;
        half_open.sack = false;
        NO_TIMESTAMPS
    };
    let cookie = Cookie { local, remote, irs: syn.seq, mss, kept };
    half_open.secrets.isn = cookie.sequence_number(key, epoch(now));
    let mut segment = half_open.syn_ack(now, local.port(), remote.port());
    if let Some(timestamps) = &mut segment.options.timestamps {
        timestamps.value = keep(timestamps.value, kept);
    }
    segment
}

/// The half-open connection that an ACK brings back, if it has a cookie of ours. The ACK completes it.
pub fn check(
    key: &SecretKey,
    now: Instant,
    config: &Config,
    local: SocketAddr,
    remote: SocketAddr,
    segment: &Segment,
) -> Option<HalfOpen> {
    let isn = segment.acknowledges()? - 1;
    let irs = segment.seq - 1;
    let timestamps = segment.options.timestamps;
    let kept = timestamps.map_or(NO_TIMESTAMPS, |timestamps| timestamps.echo & KEPT_MASK);
    let cookie = Cookie { local, remote, irs, mss: isn.0 >> MAC_BITS, kept };
    let now_epoch = epoch(now);
    let is_ours = (0..EPOCHS)
        .filter_map(|age| now_epoch.checked_sub(age))
        .any(|e| cookie.sequence_number(key, e) == isn);
    if !is_ours {
        return None;
    }
    let syn_options = Options {
        mss: MSS.get(cookie.mss as usize).copied(),
        window_scale: shift(kept),
        sack_permitted: kept != NO_TIMESTAMPS && kept & SACK != 0,
        timestamps,
        ..Options::default()
    };
    let syn = Segment { seq: irs, flags: Flags::SYN, options: syn_options, ..*segment };
    let timestamp_offset = key.for_connection(now, local, remote).timestamp_offset;
    let half_open = HalfOpen::new(now, config, Secrets { isn, timestamp_offset }, &syn);
    (half_open.on_segment(now, segment, 0) == Arrival::Completes).then_some(half_open)
}

/// What the MAC covers.
struct Cookie {
    local: SocketAddr,
    remote: SocketAddr,
    irs: SeqNumber,
    /// An index of [`MSS`].
    mss: u32,
    kept: u32,
}

impl Cookie {
    fn sequence_number(&self, key: &SecretKey, epoch: u64) -> SeqNumber {
        let covered = (self.local, self.remote, self.irs.0, epoch, self.mss, self.kept);
        let mac = key.hash(Purpose::SynCookie, &covered) as u32 & MAC_MASK;
        SeqNumber(self.mss << MAC_BITS | mac)
    }
}

fn epoch(now: Instant) -> u64 {
    now.as_millis() / EPOCH.as_millis() as u64
}

fn kept_options(half_open: &HalfOpen) -> u32 {
    let shift = half_open.peer_shift.map_or(SHIFT_MASK, u32::from);
    shift | if half_open.sack { SACK } else { 0 }
}

fn shift(kept: u32) -> Option<u8> {
    let shift = (kept & SHIFT_MASK) as u8;
    (kept != NO_TIMESTAMPS && shift <= MAX_WINDOW_SCALE).then_some(shift)
}

/// The latest value of the clock, up to now, that ends in these bits: the connection's clock goes on from now, and never
/// runs backwards.
fn keep(clock: u32, kept: u32) -> u32 {
    let value = clock & !KEPT_MASK | kept;
    if value > clock { value.wrapping_sub(KEPT_MASK + 1) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rng::Rng, tcp::options::Timestamps, wire::tcp::Flags};

    fn addresses() -> (SocketAddr, SocketAddr) {
        ("192.0.2.1:80".parse().expect("an address"), "198.51.100.7:5000".parse().expect("an address"))
    }

    fn key() -> SecretKey {
        SecretKey::new(&mut Rng::from_seed(1))
    }

    fn syn(options: Options) -> Segment {
        let mut syn = Segment::between(5000, 80);
        syn.seq = SeqNumber(u32::MAX);
        syn.flags = Flags::SYN;
        syn.options = options;
        syn
    }

    fn all() -> Options {
        Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 1000, echo: 0 }),
            ..Options::default()
        }
    }

    /// The ACK of a peer that got SYN with ACK.
    fn ack_of(syn: &Segment, syn_ack: &Segment) -> Segment {
        let mut ack = Segment::between(5000, 80);
        (ack.seq, ack.ack, ack.flags) = (syn.seq + 1, syn_ack.seq + 1, Flags::ACK);
        ack.options.timestamps =
            syn_ack.options.timestamps.map(|ts| Timestamps { value: 1001, echo: ts.value });
        ack
    }

    fn at(s: u64) -> Instant {
        Instant::from_millis(s * 1000 + 10_000_000)
    }

    fn answer_at(now: Instant, syn: &Segment) -> Segment {
        let (local, remote) = addresses();
        answer(&key(), now, &Config::default(), local, remote, syn)
    }

    fn check_at(now: Instant, ack: &Segment) -> Option<HalfOpen> {
        let (local, remote) = addresses();
        check(&key(), now, &Config::default(), local, remote, ack)
    }

    #[test]
    fn a_cookie_brings_back_what_the_syn_said_rfc4987_3_6() {
        let syn = syn(all());
        let syn_ack = answer_at(at(0), &syn);
        assert!(syn_ack.options.window_scale.is_some());
        let back = check_at(at(1), &ack_of(&syn, &syn_ack)).expect("ours");
        assert_eq!((back.irs, back.secrets.isn), (syn.seq, syn_ack.seq));
        assert_eq!((back.peer_mss, back.peer_shift, back.sack), (1460, Some(7), true));
        assert_eq!(back.timestamp, Some(1001));
    }

    #[test]
    fn without_timestamps_only_mss_is_kept_and_only_mss_is_answered() {
        let syn = syn(Options { timestamps: None, mss: Some(1399), ..all() });
        let syn_ack = answer_at(at(0), &syn);
        assert_eq!((syn_ack.options.window_scale, syn_ack.options.sack_permitted), (None, false));
        let back = check_at(at(1), &ack_of(&syn, &syn_ack)).expect("ours");
        assert_eq!((back.peer_mss, back.peer_shift, back.sack), (1360, None, false), "rounded down");
    }

    #[test]
    fn every_mss_is_obeyed() {
        for mss in (1..3000).chain([9000, u16::MAX]) {
            let syn = syn(Options { mss: Some(mss), ..all() });
            let back = check_at(at(0), &ack_of(&syn, &answer_at(at(0), &syn))).expect("ours");
            assert!(back.peer_mss <= mss.max(216), "{mss}: {}", back.peer_mss);
        }
    }

    #[test]
    fn a_cookie_expires_after_its_second_epoch_rfc4987_3_6() {
        let syn = syn(all());
        let ack = ack_of(&syn, &answer_at(at(0), &syn));
        assert!(check_at(at(63), &ack).is_some());
        assert!(check_at(at(128), &ack).is_none());
        assert!((0..300).all(|s| check_at(at(s), &ack).is_none() || s < 128));
    }

    #[test]
    fn it_counts_for_its_own_flow_and_key_only() {
        let syn = syn(all());
        let (local, remote) = addresses();
        let ack = ack_of(&syn, &answer_at(at(0), &syn));
        let config = Config::default();
        let other = SocketAddr::new(remote.ip(), remote.port() + 1);
        assert!(check(&key(), at(0), &config, local, other, &ack).is_none());
        let another_key = SecretKey::new(&mut Rng::from_seed(2));
        assert!(check(&another_key, at(0), &config, local, remote, &ack).is_none());
        assert!(check_at(at(0), &Segment { seq: ack.seq + 1, ..ack }).is_none());
        let mut forged = ack;
        forged.options.timestamps = Some(Timestamps { value: 1001, echo: 0 });
        assert!(check_at(at(0), &forged).is_none(), "options can't be added");
    }

    /// One in 2^28 guesses hits: two epochs, 29 bits. A hundred thousand guesses find none.
    #[test]
    fn guessing_is_hopeless_rfc4987_3_6() {
        let syn = syn(all());
        let mut ack = ack_of(&syn, &answer_at(at(0), &syn));
        let mut rng = Rng::from_seed(7);
        let hits = (0..100_000).filter(|_| {
            ack.ack = SeqNumber(rng.next_u32());
            check_at(at(0), &ack).is_some()
        });
        assert_eq!(hits.count(), 0);
    }

    #[test]
    fn the_clock_of_a_cookie_never_runs_ahead() {
        for clock in [0, 5, 63, 64, 1000, u32::MAX] {
            for kept in 0..=KEPT_MASK {
                let value = keep(clock, kept);
                assert_eq!(value & KEPT_MASK, kept);
                assert!(clock.wrapping_sub(value) <= KEPT_MASK, "{clock} {kept}");
            }
        }
    }
}
