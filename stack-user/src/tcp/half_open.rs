//! A connection in SYN-RECEIVED whose peer nobody has heard more of than its SYN (RFC 9293 §3.10.7.2).
//!
//! The SYN may be forged, so as little as possible is kept until the peer has shown that it gets our answer: a *SYN
//! cache* (RFC 4987 §3.5). So a passive open is never taken for an active one (RFC 9293 §3.5, MUST-11). A [`HalfOpen`]
//! becomes a [`Connection`](super::Connection) with the ACK that completes the handshake.

use super::{
    block::DEFAULT_MSS,
    config::Config,
    ecn::EcnState,
    error::Unreachable,
    isn::Secrets,
    options::{Options, Timestamps},
    segment::Segment,
    seq::SeqNumber,
    user_timeout::UserTimeout,
    window,
};
use crate::{
    telemetry::DropReason,
    time::{Duration, Instant},
    wire::tcp::Flags,
};

/// The smallest MSS that we obey. RFC 9293 sets no bound; a peer that announces next to nothing would make us send a
/// header for each byte (Linux has the same bound, FreeBSD one of 216).
pub(super) const MIN_PEER_MSS: u16 = 48;

/// How often SYN with ACK is sent again before its sender is given up (RFC 4987 §3.3), as in Linux: 63 s in all. More, and forged SYNs
/// hold their places for longer and make us send more to whom they name; fewer, and a peer behind a bad path fails.
pub const SYN_ACK_RETRIES: u8 = 5;

/// The first time-out (RFC 6298 §2.1); each further one is twice as long (§5.5).
const INITIAL_RTO: Duration = Duration::from_secs(1);

/// A SYN that comes again is answered at once if our last answer is at least that old: younger, and both have crossed.
const MIN_REPEAT: Duration = Duration::from_millis(500);

/// What is remembered of a SYN and of our answer to it.
#[derive(Clone, Copy, Debug)]
pub struct HalfOpen {
    pub(super) secrets: Secrets,
    pub(super) irs: SeqNumber,
    pub(super) peer_mss: u16,
    /// The window scale that the peer's SYN offers.
    pub(super) peer_shift: Option<u8>,
    pub(super) sack: bool,
    /// The SYN offers ECN, and we agree.
    pub(super) ecn: bool,
    /// TSval of the SYN, if it has timestamps.
    pub(super) timestamp: Option<u32>,
    /// The user time-out that the SYN tells (RFC 5482).
    pub(super) peer_user_timeout: Option<UserTimeout>,
    /// What our SYN says.
    pub(super) mss: u16,
    pub(super) shift: u8,
    pub(super) window: u16,
    pub(super) user_timeout: Option<UserTimeout>,
    /// How often SYN with ACK was sent, and when last.
    pub(super) transmissions: u8,
    pub(super) sent_at: Instant,
    /// How often its answer was waited for in vain.
    pub(super) timeouts: u8,
}

/// What becomes of a half-open connection when a segment comes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It acknowledges our SYN: the connection is established, and has to process the segment itself.
    Completes,
    /// The SYN has come again: our answer was lost.
    Repeats,
    /// The peer has changed its mind: back to LISTEN, and nothing is said.
    Ends,
    /// The segment is dropped, and answered with an ACK, within limits (RFC 5961 §7).
    Challenge(DropReason),
    /// The segment is dropped, and answered with RST.
    Reset(DropReason),
    /// The segment is dropped.
    Drop(DropReason),
}

impl HalfOpen {
    /// What a SYN asks for, and what a connection with this configuration answers. The configuration is
    /// [fitted](Config::fit) to the pool.
    pub fn new(now: Instant, config: &Config, secrets: Secrets, syn: &Segment) -> Self {
        Self {
            secrets,
            irs: syn.seq,
            peer_mss: syn.options.mss.unwrap_or(DEFAULT_MSS).max(MIN_PEER_MSS),
            peer_shift: syn.options.window_scale,
            sack: syn.options.sack_permitted,
            ecn: config.ecn && EcnState::is_offered_by(syn.flags),
            timestamp: syn.options.timestamps.map(|timestamps| timestamps.value),
            peer_user_timeout: syn.options.user_timeout,
            mss: config.mss,
            shift: window::shift_for(config.largest_recv_buffer()),
            window: window::for_syn(config.recv_buffer),
            user_timeout: config.advertised_user_timeout(),
            transmissions: 0,
            sent_at: now,
            timeouts: 0,
        }
    }

    /// SYN with ACK. It has only those options that the SYN had (RFC 7323 §2.2 and §3.2, RFC 2018 §2), but for the user
    /// time-out, which is agreed with nobody (RFC 5482 §3).
    pub fn syn_ack(&self, now: Instant, local_port: u16, remote_port: u16) -> Segment {
        Segment {
            seq: self.secrets.isn,
            // RFC 3168 §6.1.1.
            flags: Flags::SYN.with(Flags::ACK).with(EcnState::agreed(self.ecn).syn_ack_flags()),
            // Never scaled (RFC 7323 §2.2).
            window: self.window,
            options: Options {
                mss: Some(self.mss),
                window_scale: self.peer_shift.map(|_| self.shift),
                sack_permitted: self.sack,
                timestamps: self.timestamps(now),
                user_timeout: self.user_timeout,
                ..Options::default()
            },
            ..self.bare_ack(local_port, remote_port)
        }
    }

    /// An ACK that tells a peer where we stand.
    pub fn challenge_ack(&self, now: Instant, local_port: u16, remote_port: u16) -> Segment {
        let options = Options { timestamps: self.timestamps(now), ..Options::default() };
        let window = self.window >> self.peer_shift.map_or(0, |_| self.shift);
        Segment { window, options, ..self.bare_ack(local_port, remote_port) }
    }

    fn bare_ack(&self, local_port: u16, remote_port: u16) -> Segment {
        let mut segment = Segment::between(local_port, remote_port);
        segment.seq = self.secrets.isn + 1;
        segment.ack = self.irs + 1;
        segment.flags = Flags::ACK;
        segment
    }

    fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.timestamp.map(|echo| Timestamps { value: self.secrets.timestamp(now), echo })
    }

    /// SYN with ACK was sent.
    pub fn on_sent(&mut self, now: Instant) {
        self.transmissions = self.transmissions.saturating_add(1);
        self.sent_at = now;
    }

    /// When to look again, counted from now (RFC 6298 §5.5). A SYN that comes again changes nothing about it: whoever
    /// repeats one could otherwise hold the place for as long as he likes.
    pub fn next_timeout(&self, now: Instant) -> Instant {
        now + INITIAL_RTO * (1 << u32::from(self.timeouts.min(SYN_ACK_RETRIES)))
    }

    /// The answer has not come in time. Returns whether SYN with ACK is sent again, or `None` when it has been as often as
    /// we are willing to.
    pub fn on_timeout(&mut self, now: Instant) -> Option<bool> {
        if self.timeouts >= SYN_ACK_RETRIES {
            return None;
        }
        self.timeouts += 1;
        // Unless a SYN that came again has just had one.
        Some(now.since(self.sent_at) >= MIN_REPEAT)
    }

    /// Whether an ICMP error about our answer ends the attempt: one that will not pass by itself, and quotes what we have
    /// sent (RFC 1122 §4.2.3.9, RFC 5927 §4.1 and §5.2). Others don't, since the way may come back (RFC 9293 §3.9.2.2,
    /// MUST-56).
    pub fn is_ended_by(&self, error: Unreachable, quoted: SeqNumber) -> bool {
        let is_hard = matches!(error, Unreachable::Protocol | Unreachable::Port | Unreachable::Admin);
        is_hard && quoted == self.secrets.isn
    }

    /// SYN-RECEIVED after a passive open (RFC 9293 §3.10.7.4), step by step.
    pub fn on_segment(&self, now: Instant, segment: &Segment, payload_len: usize) -> Arrival {
        let next = self.irs + 1;
        if segment.syn() && segment.seq == self.irs && segment.acknowledges().is_none() && !segment.rst() {
            let crossed = now.since(self.sent_at) < MIN_REPEAT;
            return if crossed { Arrival::Drop(DropReason::TcpDuplicateData) } else { Arrival::Repeats };
        }
        // RFC 7323 §3.2: what has no timestamp though both SYNs had is somebody else's. The connection would drop it, too, and
        // would then wait in SYN-RECEIVED without an end, since only a row here has a timer.
        if !segment.rst() && self.timestamp.is_some() && segment.options.timestamps.is_none() {
            return Arrival::Drop(DropReason::TcpNoTimestamp);
        }
        // PAWS (RFC 7323 §5.3, R1).
        let older = |recent| segment.options.timestamps.is_some_and(|ts| SeqNumber(ts.value).before(recent));
        if !segment.rst() && self.timestamp.is_some_and(|recent| older(SeqNumber(recent))) {
            return Arrival::Challenge(DropReason::TcpPaws);
        }
        // First, the sequence number. The window of a SYN is all that the peer knows of.
        let mut space = super::block::ReceiveSpace::default();
        space.synchronize(self.irs, self.window.into());
        if !space.is_acceptable(segment.seq, segment.sequence_len(payload_len)) {
            let dropped = DropReason::TcpOutOfWindow;
            return if segment.rst() { Arrival::Drop(dropped) } else { Arrival::Challenge(dropped) };
        }
        // Second, RST (RFC 5961 §3.2: only the exact number counts).
        if segment.rst() {
            let exact = segment.seq == next;
            return if exact { Arrival::Ends } else { Arrival::Challenge(DropReason::TcpChallenged) };
        }
        // Fourth, SYN: after a passive open, back to LISTEN.
        if segment.syn() {
            return Arrival::Ends;
        }
        // Fifth, ACK.
        match segment.acknowledges() {
            None => Arrival::Drop(DropReason::TcpNoAck),
            Some(ack) if ack == self.secrets.isn + 1 => Arrival::Completes,
            Some(_) => Arrival::Reset(DropReason::TcpUnacceptableAck),
        }
    }
}
