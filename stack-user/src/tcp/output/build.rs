//! Building the segments that carry no data, and what all segments have in common.

use super::{Reset, Transmit};
use crate::{
    frame::{FramePool, TxFrame, behind},
    tcp::{
        Connection,
        autotune::Autotune,
        connection::FRAME_RETRY,
        options::{
            MAX_SACK_BLOCKS, MAX_SACK_BLOCKS_WITH_BOTH, MAX_SACK_BLOCKS_WITH_TIMESTAMPS, Options, SackBlocks,
        },
        segment::Segment,
        seq::SeqNumber,
        state::State,
        timer::Timer,
        window,
    },
    time::Instant,
    wire::{
        Ecn,
        checksum::Sum,
        protocol,
        tcp::{Flags, Header},
    },
};

impl Connection {
    /// SYN, or SYN with ACK when the peer's SYN has come (simultaneous open).
    pub(super) fn transmit_syn<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        let frame = self.allocate(now, pool)?;
        if self.syn_transmissions == 0 {
            self.config.fit(pool);
            self.autotune = Autotune::new(&self.config);
            if self.state == State::SynReceived {
                self.offer_first_window();
            }
        }
        self.syn_due = false;
        self.syn_transmissions += 1;
        self.syn_sent_at = now;
        self.snd.nxt = self.snd.iss + 1;
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());

        let answers = self.state == State::SynReceived;
        let mut segment = Segment::between(self.local.port(), self.remote.port());
        segment.seq = self.snd.iss;
        segment.flags = Flags::SYN;
        segment.window = window::for_syn(self.autotune.receive_buffer());
        segment.options = Options {
            // Always, and in SYN only (RFC 9293 §3.7.1, MUST-14, SHLD-5 and MAY-3).
            mss: Some(self.config.mss),
            window_scale: Some(window::shift_for(self.autotune.receive_buffer_max())),
            sack_permitted: true,
            timestamps: Some(self.timestamps.option(now)),
            sack: SackBlocks::default(),
            user_timeout: self.config.advertised_user_timeout(),
        };
        if !answers {
            segment.flags = segment.flags.with(self.ecn.syn_flags());
        }
        if answers {
            // A SYN with ACK has only the options that the peer's SYN had (RFC 7323 §2.2 and §3.2).
            segment.flags = segment.flags.with(Flags::ACK).with(self.ecn.syn_ack_flags());
            segment.ack = self.rcv.nxt;
            segment.options.window_scale =
                (self.rcv.window_shift > 0 || self.snd.window_shift > 0).then_some(self.rcv.window_shift);
            segment.options.sack_permitted = self.sack_enabled;
            segment.options.timestamps = segment.options.timestamps.filter(|_| self.timestamps.enabled);
        }
        Some(Transmit { frame: self.build(pool, frame, &segment, 0), retained: None, ecn: Ecn::NotEct })
    }

    /// What our first SYN offers, when the pool bears less than the SYN that it answers was noted with.
    fn offer_first_window(&mut self) {
        let window = window::for_syn(self.autotune.receive_buffer());
        self.rcv.synchronize(self.rcv.irs, window.into());
        let shift = window::shift_for(self.autotune.receive_buffer_max());
        self.rcv.window_shift = self.rcv.window_shift.min(shift);
    }

    pub(super) fn transmit_reset<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        reset: Reset,
    ) -> Option<Transmit> {
        let frame = self.allocate(now, pool)?;
        self.reset_due = None;
        let mut segment = Segment::between(self.local.port(), self.remote.port());
        segment.seq = reset.seq;
        segment.flags = Flags::RST;
        if let Some(ack) = reset.ack {
            segment.flags = segment.flags.with(Flags::ACK);
            segment.ack = ack;
        }
        Some(Transmit { frame: self.build(pool, frame, &segment, 0), retained: None, ecn: Ecn::NotEct })
    }

    /// An ACK alone, with SACK blocks if there is something to tell: one for all that came before we were asked what
    /// we have to send (RFC 9293 §3.10.7.4, MUST-58 and MUST-59).
    pub(super) fn transmit_ack<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        let frame = self.allocate(now, pool)?;
        let segment = self.segment(now, self.snd.nxt, Flags::ACK, true);
        Some(Transmit { frame: self.build(pool, frame, &segment, 0), retained: None, ecn: Ecn::NotEct })
    }

    /// A window probe: an old sequence number, which the peer must answer with an ACK that tells its window.
    ///
    /// RFC 9293 §3.8.6.1 (MUST-36) has the probe carry a byte of data. Without one, as Linux does it, nothing has to be cut off
    /// the queue, and a peer can't take the byte without opening its window.
    pub(super) fn transmit_probe<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        let frame = self.allocate(now, pool)?;
        self.persist.on_sent();
        if self.send.unsent().is_some() && !self.send.has_outstanding() {
            self.timers.set(Timer::Persist, now + self.persist.interval(self.rtt.rto()));
        }
        let segment = self.segment(now, self.snd.una - 1usize, Flags::ACK, false);
        Some(Transmit { frame: self.build(pool, frame, &segment, 0), retained: None, ecn: Ecn::NotEct })
    }

    /// A keep-alive: a number that the peer has acknowledged already, so it must answer; and no data (RFC 9293 §3.8.4,
    /// SHLD-12).
    pub(super) fn transmit_keepalive<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
    ) -> Option<Transmit> {
        let frame = self.allocate(now, pool)?;
        self.silence.on_sent();
        let segment = self.segment(now, self.snd.nxt - 1usize, Flags::ACK, false);
        Some(Transmit { frame: self.build(pool, frame, &segment, 0), retained: None, ecn: Ecn::NotEct })
    }

    /// A segment of a synchronized connection: it acknowledges all that has come, and offers the window.
    pub(super) fn segment(&mut self, now: Instant, seq: SeqNumber, flags: Flags, alone: bool) -> Segment {
        let mut segment = Segment::between(self.local.port(), self.remote.port());
        segment.seq = seq;
        segment.flags = flags.with(self.ecn.ack_flags());
        segment.ack = self.rcv.nxt;
        segment.window = self.offer_window();
        segment.options.timestamps = self.timestamps.enabled.then(|| self.timestamps.option(now));
        if alone && core::mem::take(&mut self.user_timeout_state.is_due) {
            segment.options.user_timeout = self.config.advertised_user_timeout();
        }
        if alone && self.sack_enabled {
            segment.options.sack = self.sack_blocks(segment.options.user_timeout.is_some());
        }
        self.mark_urgent(&mut segment);
        self.rcv.last_ack_sent = self.rcv.nxt;
        // Data leaves no room for SACK blocks (RFC 2018 §4), and with it an ACK is no duplicate to who counts them (RFC
        // 5681 §2): where there is a gap to tell of, an ACK of its own still has to do it.
        // Nor for a user time-out.
        if alone || !self.has_news_of_gaps() && !self.user_timeout_state.is_due {
            self.acks.on_sent();
            self.timers.stop(Timer::DelayedAck);
        }
        segment
    }

    fn has_news_of_gaps(&self) -> bool {
        self.sack_enabled && self.duplicate.is_some() || !self.reassembly.is_empty()
    }

    /// The window field; what it says is what the peer may use from now on.
    fn offer_window(&mut self) -> u16 {
        let (room, buffer) = (self.receive_room(), self.autotune.receive_buffer());
        let edge = window::edge_to_offer(&self.rcv, room, buffer, self.receive_mss());
        let field = window::field(&self.rcv, edge);
        let offered = self.rcv.nxt + (usize::from(field) << self.rcv.window_shift);
        self.rcv.limit = self.rcv.limit.max(if offered.before(edge) { offered } else { edge });
        self.rcv.edge = self.rcv.edge.max(offered);
        field
    }

    /// What waits out of order; a range that came twice comes first, and what it is part of next, even if other segments
    /// have come since: else the peer can't tell it from the others (RFC 2883 §4).
    fn sack_blocks(&mut self, beside_user_timeout: bool) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if self.duplicate.is_none() && self.reassembly.is_empty() {
            return blocks;
        }
        let limit = match (self.timestamps.enabled, beside_user_timeout) {
            (true, true) => MAX_SACK_BLOCKS_WITH_BOTH,
            (true, false) => MAX_SACK_BLOCKS_WITH_TIMESTAMPS,
            (false, _) => MAX_SACK_BLOCKS,
        };
        let mut around = None;
        if let Some((left, right)) = self.duplicate.take() {
            blocks.push(left, right);
            let range = self.rcv.offset(left).zip(self.rcv.offset(right));
            around = range.and_then(|(start, end)| self.reassembly.around(start, end));
        }
        let others = self.reassembly.sack_ranges(limit).filter(|&range| Some(range) != around);
        for (start, end) in around.into_iter().chain(others).take(limit - blocks.len()) {
            blocks.push(self.rcv.seq(start), self.rcv.seq(end));
        }
        blocks
    }

    /// A chunk to send from, or none: then we try again soon.
    pub(super) fn allocate<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<TxFrame> {
        let frame = pool.allocate();
        if frame.is_none() {
            self.timers.set_if_earlier(Timer::FrameRetry, now + FRAME_RETRY);
        }
        frame.map(|frame| frame.into_tx())
    }

    /// Writes the header in front of the payload that is in the frame, and whose sum is known.
    pub(super) fn build_summed<P: FramePool>(
        &self,
        pool: &mut P,
        mut frame: TxFrame,
        segment: &Segment,
        payload_len: usize,
        sum: Sum,
    ) -> TxFrame {
        let room = self.config.header_room;
        let buffer = pool.tx_buffer(&mut frame).get_mut(room..).unwrap_or_default();
        let len = segment.emit_unsummed(payload_len, buffer);
        let header = buffer.get(..len - payload_len).unwrap_or_default();
        let pseudo = Sum::pseudo_header(self.local.ip(), self.remote.ip(), protocol::TCP, len);
        Header::set_checksum(buffer, pseudo.bytes(header).add_at(0, sum).finish());
        frame.set_len(room + len);
        frame
    }

    /// Writes the header in front of the payload that is in the frame.
    pub(super) fn build<P: FramePool>(
        &self,
        pool: &mut P,
        mut frame: TxFrame,
        segment: &Segment,
        payload_len: usize,
    ) -> TxFrame {
        let room = self.config.header_room;
        let ends = (self.local.ip(), self.remote.ip());
        let is_long = frame.is_long();
        let buffer = pool.tx_buffer(&mut frame).get_mut(room..).unwrap_or_default();
        let len = match is_long {
            false => segment.emit(ends.0, ends.1, payload_len, buffer),
            true => segment.emit_unsummed(payload_len, buffer),
        };
        frame.set_len(room + len);
        if is_long {
            let pieces = behind(room, pool.tx_pieces(&frame));
            let checksum = Sum::pseudo_header(ends.0, ends.1, protocol::TCP, len).pieces(pieces).finish();
            Header::set_checksum(pool.tx_buffer(&mut frame).get_mut(room..).unwrap_or_default(), checksum);
        }
        frame
    }
}
