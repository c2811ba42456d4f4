//! Segments out: which is next, and how it is built.

mod build;
mod train;

use super::{
    Connection,
    connection::FRAME_RETRY,
    nagle::{self, Question},
    segment::Segment,
    seq::SeqNumber,
    state::State,
    timer::Timer,
    trace::{Kind, RetransmitReason, WindowReason},
};
use crate::{
    frame::{FramePool, TxFrame},
    time::Instant,
    wire::{Ecn, tcp::Flags},
};

/// A segment to send.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not sent leaks its chunk"]
pub struct Transmit {
    /// The frame: the TCP header and payload, with their checksum, behind the room that was asked for.
    pub frame: TxFrame,
    /// If set, the connection wants the frame back when it was sent: hand it to
    /// [`handle_completion`](Connection::handle_completion) with this.
    pub retained: Option<u64>,
    /// What the IP header has to say about congestion notification.
    pub ecn: Ecn,
}

/// An RST that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    pub(super) seq: SeqNumber,
    pub(super) ack: Option<SeqNumber>,
}

/// What has to agree before new data is sent, beside the peer's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// The congestion window, and Nagle.
    Windows,
    /// Nobody: it is sent to learn something.
    Open,
}

impl Connection {
    /// The next segment to send now, or `None` when there is none: call it until then.
    ///
    /// The order: RST, SYN, what was lost, what is new, and an ACK alone if none of these carried it.
    pub fn poll_transmit<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        let Some(transmit) = self.next_segment(now, pool) else {
            self.mark_app_limited();
            return None;
        };
        self.counts.segments_sent += 1;
        Some(transmit)
    }

    /// The application has written less than could be sent: the delivery rate will be the application's
    /// (draft-ietf-ccwg-bbr §4.1.2.4).
    fn mark_app_limited(&mut self) {
        let mss = self.layout().mss;
        let pipe = self.recovery.pipe(&self.send, mss);
        let all_sent = self.send.unsent_bytes() < mss && self.send.lost() == 0;
        if all_sent && pipe < self.congestion.cwnd() {
            self.recovery.on_app_limited(pipe);
        }
    }

    fn next_segment<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        if let Some(reset) = self.reset_due {
            return self.transmit_reset(now, pool, reset);
        }
        if self.syn_due {
            return self.transmit_syn(now, pool);
        }
        if self.state.may_transmit() {
            let data = self.transmit_data(now, pool);
            if data.is_some() {
                return data;
            }
            self.watch_window(now);
            if self.persist.is_due() {
                return self.transmit_probe(now, pool);
            }
        }
        if self.silence.probe_is_due() && self.state.is_synchronized() {
            return self.transmit_keepalive(now, pool);
        }
        let answers = self.acks.is_due(now) && !matches!(self.state, State::SynSent | State::Closed);
        if answers { self.transmit_ack(now, pool) } else { None }
    }

    fn transmit_data<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        if self.recovery.wants_new_data() {
            return self.transmit_probe_of_data(now, pool);
        }
        self.retransmit(now, pool)
            .or_else(|| self.transmit_mtu_probe(now, pool))
            .or_else(|| self.transmit_new(now, pool, Gate::Windows))
    }

    /// What asks the peer for an ACK that tells more: new data, or as a tail loss probe (RFC 8985 §7.3), the last segment
    /// once more.
    fn transmit_probe_of_data<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        let is_loss_probe = self.recovery.probe_is_due();
        let probe = self.probe_of_data(now, pool, is_loss_probe);
        if is_loss_probe && probe.is_some() {
            self.rtt.on_loss_probe();
        }
        probe
    }

    fn probe_of_data<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        is_loss_probe: bool,
    ) -> Option<Transmit> {
        if let Some(data) = self.transmit_new(now, pool, Gate::Open) {
            return Some(data);
        }
        if !is_loss_probe {
            // For F-RTO: the application has written none, the peer's window takes none, or no chunk is left to cut it off
            // with (RFC 5682 §2.1, step 2b).
            self.recovery.no_new_data();
            return self.retransmit(now, pool);
        }
        let last = self.send.sent_entries().checked_sub(1)?;
        let fits = self.send.get(last).is_some_and(|entry| entry.len <= self.layout().mss);
        if !fits || !self.window_takes(last) {
            self.recovery.cancel_probe();
            return None;
        }
        self.transmit_entry(now, pool, last, Some(RetransmitReason::TailLossProbe))
    }

    /// What was lost, if the congestion window has room for it, or at once if it is the first of a recovery.
    fn retransmit<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        let (index, at_once) = self.recovery.next_retransmission(&self.send)?;
        // The path may carry less than it did, or than was tried.
        if self.send.get(index)?.len > self.layout().mss {
            self.cut_lost(now, pool, index)?;
            // The peer may have acknowledged the front of what was one segment.
            if self.send.acknowledge(pool, self.snd.una_offset, |_, _| {}).entries > 0 {
                return self.retransmit(now, pool);
            }
        }
        let entry = self.send.get(index)?;
        let due = at_once || self.congestion_allows(entry.sequence_len()) && self.pacing_allows(now);
        if !(due && self.window_takes(index)) {
            return None;
        }
        self.transmit_entry(now, pool, index, Some(self.recovery.retransmit_reason()))
    }

    /// Whether an entry may be sent again: a window that has shrunk holds back what lies beyond it (RFC 9293 §3.8.6,
    /// SHLD-16), but for the first, which asks for the window, too.
    fn window_takes(&self, index: usize) -> bool {
        index == 0 || self.send.get(index).is_some_and(|entry| entry.end() <= self.window_end())
    }

    /// SND.UNA + SND.WND as a stream offset.
    pub(super) fn window_end(&self) -> u64 {
        self.snd.una_offset + self.snd.wnd as u64
    }

    /// Cuts a segment off what was lost. `None` if that can't be done now: as it is, it would be lost again.
    fn cut_lost<P: FramePool>(&mut self, now: Instant, pool: &mut P, index: usize) -> Option<()> {
        let layout = self.layout();
        let start = self.send.get(index).filter(|entry| entry.is_home())?.start;
        self.pmtud.probe_inconclusive(start);
        if !self.send.split(pool, index, layout.mss, layout.payload_at) {
            self.timers.set_if_earlier(Timer::FrameRetry, now + FRAME_RETRY);
            return None;
        }
        self.recovery.on_split(&self.send, index + 1);
        Some(())
    }

    /// What was never sent, as far as the peer's window allows, and as the gate says the congestion window and Nagle.
    fn transmit_new<P: FramePool>(&mut self, now: Instant, pool: &mut P, gate: Gate) -> Option<Transmit> {
        let entry = self.send.unsent()?;
        let layout = self.layout();
        // None if the window has shrunk below what was sent (RFC 9293 §3.8.6, MUST-34 and SHLD-15).
        let usable = (self.snd.una + self.snd.wnd) - self.snd.nxt;
        let question = Question {
            len: entry.len.min(layout.mss),
            complete: self.send.has_more_unsent() || entry.len > layout.mss,
            fin: entry.fin && entry.len <= layout.mss,
            usable,
            max_window: self.snd.max_wnd,
            mss: layout.mss,
            idle: !self.send.has_outstanding(),
            nodelay: self.config.nodelay,
            overridden: self.persist.is_due() || gate == Gate::Open,
        };
        let len = nagle::bytes_to_send(question);
        // It takes a number of the window, too (RFC 9293 §3.4).
        let fin_alone = entry.len == 0 && usable > 0;
        if len == 0 && !fin_alone {
            return None;
        }
        let entry_len = entry.len;
        self.restart_after_idle(now);
        if gate == Gate::Windows && !self.congestion_allows(len) {
            self.window_full_until = self.snd.offset(self.snd.nxt);
            return None;
        }
        if gate == Gate::Windows && !fin_alone && !self.pacing_allows(now) {
            return None;
        }
        let index = self.send.sent_entries();
        if len < entry_len && !self.send.split(pool, index, len, layout.payload_at) {
            self.timers.set_if_earlier(Timer::FrameRetry, now + FRAME_RETRY);
            return None;
        }
        self.transmit_entry(now, pool, index, None)
    }

    /// Whether `len` more bytes may be on their way (RFC 9937 §3). One segment always may.
    ///
    /// What is sacked, and what duplicate ACKs stand for, is not on its way any more: so the first two of either let a new
    /// segment out each, beyond what the window says of what is outstanding (limited transmit, RFC 3042 §2).
    ///
    /// While losses are repaired, proportional rate reduction counts what may be sent, unless the algorithm's window takes
    /// account of the losses by itself.
    pub(super) fn congestion_allows(&self, len: usize) -> bool {
        let pipe = self.recovery.pipe(&self.send, self.layout().mss);
        match self.recovery.allowance().filter(|_| self.congestion.is_reduced_by_loss()) {
            _ if pipe == 0 => true,
            Some(allowance) => len <= allowance,
            None => pipe + len <= self.congestion.cwnd(),
        }
    }

    /// RFC 5681 §4.1: what was known of the path is out of date after a pause longer than RTO.
    fn restart_after_idle(&mut self, now: Instant) {
        let idle = now.since(self.last_sent_at);
        if self.send.has_outstanding() || idle.is_zero() {
            return;
        }
        let rto = self.rtt.rto();
        let before = self.congestion.cwnd();
        self.congestion.on_idle(now, idle, rto);
        if self.congestion.cwnd() != before {
            self.trace_window(now, before, Some(WindowReason::Idle));
        }
        if idle > rto {
            self.allow_initial_burst();
        }
    }

    /// Data waits, nothing is outstanding, and it is not its turn that it waits for: so only the peer's window can be why, closed from the start or shrunk (RFC
    /// 9293 §3.8.6, MUST-35): no ACK will come by itself.
    fn watch_window(&mut self, now: Instant) {
        let paced = self.timers.is_set(Timer::Pacing);
        let waits = self.send.unsent().is_some() && !self.send.has_outstanding() && !paced;
        if waits && !self.timers.is_set(Timer::Persist) && !self.persist.is_due() {
            self.timers.set(Timer::Persist, now + self.persist.interval(self.rtt.rto()));
            self.timers.set_if_earlier(Timer::User, now + self.user_timeout());
        }
    }

    /// Sends an entry of the queue, for the first time or again.
    pub(super) fn transmit_entry<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        index: usize,
        reason: Option<RetransmitReason>,
    ) -> Option<Transmit> {
        let entry = self.send.get(index).filter(|entry| entry.is_home())?;
        let (start, end, len, fin, sum) = (entry.start, entry.end(), entry.len, entry.fin, entry.sum);
        let again = entry.transmissions > 0;
        let repairs = matches!(reason, Some(RetransmitReason::Timeout | RetransmitReason::Lost));
        let asks_for_window = repairs && end > self.window_end();
        let spare = if len == 0 { Some(self.allocate(now, pool)?) } else { None };
        let sequence_len = len + usize::from(fin);
        let transmission = self.recovery.on_transmit(now, &self.send, start, sequence_len, again);
        let own = self.send.take_for_transmission(index, now, transmission);
        let retained = own.is_some().then_some(start);
        let frame = own.or(spare)?;

        if again {
            self.counts.retransmissions += 1;
            self.persist.on_repeated(asks_for_window);
            if let Some(reason) = reason {
                self.trace(now, || Kind::Retransmit { start, len: sequence_len, reason });
            }
        } else {
            self.snd.nxt = self.snd.seq(end);
        }
        // RFC 6298 §5.1. When the first segment goes again, RTO has to be waited for from then: its first transmission is
        // a round trip ago already.
        if !self.timers.is_set(Timer::Retransmit) || again && index == 0 {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
        self.set_probe_timer(now, !again);
        self.timers.set_if_earlier(Timer::User, now + self.user_timeout());
        self.timers.stop(Timer::Persist);
        self.persist.on_sent();
        self.last_sent_at = now;
        self.pace(now, len);

        let (ecn, more) =
            if again || len == 0 { (Ecn::NotEct, Flags::default()) } else { self.ecn.on_new_data() };
        let mut flags = Flags::ACK.with(more);
        if fin {
            flags = flags.with(Flags::FIN);
        }
        // The last of what was written: the peer's application should get it (RFC 9293 §3.9.1.2, MUST-61).
        if len > 0 && self.send.get(index + 1).is_none() {
            flags = flags.with(Flags::PSH);
        }
        let segment = self.segment(now, self.snd.seq(start), flags, false);
        let frame = match sum {
            Some(sum) => self.build_summed(pool, frame, &segment, len, sum),
            None => self.build(pool, frame, &segment, len),
        };
        Some(Transmit { frame, retained, ecn })
    }
}

impl Segment {
    /// Nothing but ports: the start of every segment that a connection sends.
    pub(crate) fn between(source_port: u16, destination_port: u16) -> Self {
        Self {
            source_port,
            destination_port,
            seq: SeqNumber(0),
            ack: SeqNumber(0),
            flags: Flags::default(),
            window: 0,
            urgent: 0,
            options: super::options::Options::default(),
            ce: false,
        }
    }
}
