//! TIME-WAIT (RFC 9293 §3.3.2, §3.10.7.4): what is kept of a connection that both sides have finished.
//!
//! Its frames and its buffers are not needed any more. A few numbers suffice to answer a FIN that comes again, and to tell
//! old segments from a new connection between the same sockets (RFC 6191).

use super::{
    Connection, isn::Secrets, options::Options, options::Timestamps, segment::Segment, seq::SeqNumber,
    state::State, timestamps::TimestampState,
};
use crate::{telemetry::DropReason, time::Instant, wire::tcp::Flags};

/// How far beyond the old connection's last number a new one starts, if its own choice would lie before: beyond any
/// window that was not scaled, so that old segments don't fit. Linux takes the same.
const ISN_STEP: usize = 65_535 + 2;

/// What is remembered.
#[derive(Clone, Copy, Debug)]
pub struct TimeWait {
    /// SND.NXT.
    next: SeqNumber,
    /// RCV.NXT: the peer's FIN is the number before.
    expected: SeqNumber,
    /// The window field of our last ACK.
    window: u16,
    has_timestamps: bool,
    /// TS.Recent.
    recent: u32,
    timestamp_offset: u32,
}

/// What becomes of a segment in TIME-WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revisit {
    /// Dropped.
    Drop(DropReason),
    /// Dropped, and answered with an ACK, within limits.
    Challenge(DropReason),
    /// The peer's FIN: it has not got our last ACK. It gets another, and 2 MSL start again.
    Again,
    /// A SYN that can't be an old one: a new connection may take this one's place.
    Reopen,
}

impl TimeWait {
    /// RFC 9293 §3.10.7.4 for TIME-WAIT, in the order of its steps.
    pub fn on_segment(&self, segment: &Segment, payload_len: usize) -> Revisit {
        if segment.rst() {
            // An old segment must not end TIME-WAIT before its time (RFC 1337 §3, fix 1).
            return Revisit::Drop(DropReason::TcpOutOfWindow);
        }
        if segment.syn() {
            let reopens = segment.acknowledges().is_none() && self.is_newer(segment);
            // RFC 5961 §4.
            return if reopens { Revisit::Reopen } else { Revisit::Challenge(DropReason::TcpChallenged) };
        }
        let len = segment.sequence_len(payload_len);
        if segment.fin() && segment.seq + len == self.expected {
            return Revisit::Again;
        }
        let older = |ts: Timestamps| SeqNumber(ts.value).before(SeqNumber(self.recent));
        if self.has_timestamps && segment.options.timestamps.is_some_and(older) {
            // PAWS (RFC 7323 §5.3, R1).
            return Revisit::Challenge(DropReason::TcpPaws);
        }
        // Nothing more can come: what takes numbers is old, or no peer's of ours.
        if len > 0 || segment.seq != self.expected {
            return Revisit::Challenge(DropReason::TcpOutOfWindow);
        }
        Revisit::Drop(DropReason::TcpDuplicateData)
    }

    /// RFC 6191 §2: whether a SYN is later than all of the old connection, by its timestamp, or by its number if the
    /// timestamps say nothing.
    fn is_newer(&self, syn: &Segment) -> bool {
        let by_number = syn.seq.at_or_after(self.expected);
        match syn.options.timestamps {
            Some(ts) if self.has_timestamps => {
                SeqNumber(ts.value).after(SeqNumber(self.recent)) || ts.value == self.recent && by_number
            }
            Some(_) => true,
            None => by_number,
        }
    }

    /// The ACK that the peer's FIN gets again.
    pub fn ack(&self, now: Instant, local_port: u16, remote_port: u16) -> Segment {
        let mut segment = Segment::between(local_port, remote_port);
        (segment.seq, segment.ack) = (self.next, self.expected);
        (segment.flags, segment.window) = (Flags::ACK, self.window);
        let value = TimestampState::new(self.timestamp_offset).clock(now);
        let timestamps = self.has_timestamps.then_some(Timestamps { value, echo: self.recent });
        segment.options = Options { timestamps, ..Options::default() };
        segment
    }

    /// Whether we may open a connection between the same sockets although this one has not gone: our timestamps tell the
    /// peer that its SYN is new, once their clock has moved on (RFC 6191 §2; Linux calls it `tcp_tw_reuse`).
    pub fn may_be_reused(&self) -> bool {
        self.has_timestamps
    }

    /// The secrets of a connection that comes after this one, whose numbers must be beyond this one's (RFC 9293
    /// §3.6.1, MAY-2).
    pub fn continued(&self, secrets: Secrets) -> Secrets {
        let isn = if secrets.isn.after(self.next) { secrets.isn } else { self.next + ISN_STEP };
        Secrets { isn, ..secrets }
    }
}

impl Connection {
    /// In TIME-WAIT, when there is nothing left to send: what has to be remembered of the connection. After this, it is
    /// closed; what it has received can still be read.
    pub fn retire(&mut self, now: Instant) -> Option<TimeWait> {
        if self.state != State::TimeWait || self.acks.is_owed() {
            return None;
        }
        let window = (self.rcv.wnd() >> self.rcv.window_shift).try_into().unwrap_or(u16::MAX);
        let clock = self.timestamps.option(now);
        let entry = TimeWait {
            next: self.snd.nxt,
            expected: self.rcv.nxt,
            window,
            has_timestamps: self.timestamps.enabled,
            recent: clock.echo,
            timestamp_offset: clock.value.wrapping_sub(TimestampState::new(0).clock(now)),
        };
        self.finish(now, None);
        Some(entry)
    }

    /// How long TIME-WAIT lasts.
    pub fn time_wait(&self) -> crate::time::Duration {
        self.config.time_wait
    }
}

#[cfg(test)]
impl TimeWait {
    /// One like any other.
    pub(crate) fn for_tests() -> Self {
        let (next, expected) = (SeqNumber(100), SeqNumber(u32::MAX));
        Self { next, expected, window: 500, has_timestamps: true, recent: 1000, timestamp_offset: 7 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(has_timestamps: bool) -> TimeWait {
        TimeWait { has_timestamps, ..TimeWait::for_tests() }
    }

    fn segment(flags: Flags, seq: SeqNumber, timestamp: Option<u32>) -> Segment {
        let timestamps = timestamp.map(|value| Timestamps { value, echo: 0 });
        let options = Options { timestamps, ..Options::default() };
        Segment { seq, flags, options, ..Segment::between(1, 2) }
    }

    #[test]
    fn a_fin_that_comes_again_is_acknowledged_again_rfc9293_3_10_7_4() {
        let entry = entry(true);
        let fin = segment(Flags::FIN.with(Flags::ACK), entry.expected - 1, Some(1000));
        assert_eq!(entry.on_segment(&fin, 0), Revisit::Again);
        let with_data = segment(Flags::FIN.with(Flags::ACK), entry.expected - 11, Some(900));
        assert_eq!(entry.on_segment(&with_data, 10), Revisit::Again, "as it was sent at first");
        let ack = entry.ack(Instant::from_millis(5), 80, 4000);
        assert_eq!((ack.seq, ack.ack, ack.window), (SeqNumber(100), SeqNumber(u32::MAX), 500));
        assert_eq!(ack.options.timestamps, Some(Timestamps { value: 12, echo: 1000 }));
    }

    #[test]
    fn rst_does_not_end_time_wait_rfc1337_3() {
        let entry = entry(false);
        let rst = segment(Flags::RST, entry.expected, None);
        assert_eq!(entry.on_segment(&rst, 0), Revisit::Drop(DropReason::TcpOutOfWindow));
    }

    #[test]
    fn old_segments_are_answered_and_an_ack_is_not() {
        let entry = entry(true);
        let expected = entry.expected;
        let old = |seq, len, ts| entry.on_segment(&segment(Flags::ACK, seq, Some(ts)), len);
        assert_eq!(old(expected, 0, 1000), Revisit::Drop(DropReason::TcpDuplicateData));
        assert_eq!(old(expected, 0, 999), Revisit::Challenge(DropReason::TcpPaws));
        assert_eq!(old(expected - 500, 500, 1000), Revisit::Challenge(DropReason::TcpOutOfWindow));
        assert_eq!(old(expected + 5, 0, 1000), Revisit::Challenge(DropReason::TcpOutOfWindow));
    }

    /// RFC 6191 §2, case by case.
    #[test]
    fn a_syn_that_is_later_reopens_rfc6191_2() {
        let syn = |entry: TimeWait, number: i32, timestamp| {
            let seq = SeqNumber(entry.expected.0.wrapping_add_signed(number));
            entry.on_segment(&segment(Flags::SYN, seq, timestamp), 0) == Revisit::Reopen
        };
        let with = entry(true);
        assert!(syn(with, -5000, Some(1001)), "a later timestamp");
        assert!(!syn(with, 5000, Some(999)), "an earlier one");
        assert!(syn(with, 5, Some(1000)) && !syn(with, -5, Some(1000)), "the same: by number");
        assert!(syn(with, 5, None) && !syn(with, -5, None), "none: by number");
        let without = entry(false);
        assert!(syn(without, -5000, Some(1)), "timestamps are news");
        assert!(syn(without, 5, None) && !syn(without, -5, None), "by number");
        let syn_ack = segment(Flags::SYN.with(Flags::ACK), with.expected + 5, Some(2000));
        assert_eq!(with.on_segment(&syn_ack, 0), Revisit::Challenge(DropReason::TcpChallenged));
    }

    #[test]
    fn numbers_of_the_next_connection_lie_beyond_must_8() {
        let entry = entry(true);
        let next = |isn| entry.continued(Secrets { isn: SeqNumber(isn), timestamp_offset: 0 }).isn;
        assert_eq!(next(101), SeqNumber(101));
        assert_eq!(next(99), SeqNumber(100 + 65_537));
    }
}
