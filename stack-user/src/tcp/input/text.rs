//! The data of a segment, and its FIN (RFC 9293 §3.10.7.4, seventh and eighth step).

use crate::{
    frame::{FramePool, RxFrame},
    tcp::{
        Connection, Event,
        ack::{self, Urgency},
        error::Error,
        output::Reset,
        payload::Payload,
        reassembly::{Inserted, Reassembly},
        segment::Segment,
        seq::SeqNumber,
        state::State,
        timer::Timer,
    },
    telemetry::DropReason,
    time::Instant,
};

impl Connection {
    /// Takes the data that starts at `seq` and the FIN behind it. What an urgent pointer points at is data like any other
    /// (RFC 6093 §6).
    pub(super) fn receive<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        segment: &Segment,
        seq: SeqNumber,
        payload: &mut Option<RxFrame>,
    ) -> Result<(), DropReason> {
        let Some(frame) = payload.take_if(|frame| !frame.is_empty() || segment.fin()) else { return Ok(()) };
        if !self.state.may_receive() {
            // The peer has sent FIN: data beyond it is none (§3.10.7.4), and what lies before it was received.
            pool.release_rx(frame);
            return Ok(());
        }
        let new_data = !frame.is_empty() && (seq + frame.len()).after(self.rcv.nxt);
        if self.reads_closed && new_data {
            pool.release_rx(frame);
            self.reset_due = Some(Reset { seq: self.snd.nxt, ack: Some(self.rcv.nxt) });
            self.fail(now, pool, Error::Aborted);
            return Err(DropReason::TcpDataAfterClose);
        }
        let result = self.receive_text(now, pool, segment, seq, frame);
        if new_data {
            let echoed = segment.options.timestamps.and_then(|ts| self.timestamps.round_trip(now, ts));
            self.measure_as_receiver(now, echoed);
        }
        self.receive_fin(now, pool);
        result
    }

    /// Trims what was received before and what lies beyond the window, and queues the rest.
    fn receive_text<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        segment: &Segment,
        seq: SeqNumber,
        mut frame: RxFrame,
    ) -> Result<(), DropReason> {
        let before = self.rcv.nxt - seq;
        if before > 0 {
            self.note_duplicate(seq, seq + before.min(frame.len()));
        }
        let end = seq + frame.len();
        pool.trim_rx(&mut frame, before);
        let start = seq.max(self.rcv.nxt);
        let beyond = end - self.rcv.edge;
        if beyond > 0 {
            // A peer that sends into a closed window wants to know whether it has opened.
            self.acks.require();
            frame.truncate(frame.len().saturating_sub(beyond));
        } else if segment.fin()
            && let Some(offset) = self.rcv.offset(end)
        {
            self.reassembly.set_fin(offset);
        }
        if frame.is_empty() {
            pool.release_rx(frame);
            if start != self.rcv.nxt {
                // FIN alone, and something before it is missing.
                self.acks.require();
            }
            return if beyond > 0 { Err(DropReason::TcpOutOfWindow) } else { Ok(()) };
        }
        self.largest_payload = self.largest_payload.max(frame.len());
        if before == 0 {
            // Of several parts that came before, the first is told (RFC 2883 §4.2).
            self.note_overlap(start, frame.len());
        }
        if start == self.rcv.nxt {
            self.deliver(now, pool, frame)
        } else {
            self.put_aside(pool, start, frame)
        }
    }

    /// Data in order: to the application, with all that waited for it.
    fn deliver<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        frame: RxFrame,
    ) -> Result<(), DropReason> {
        // What nobody has to wait for is taken in any case, or readers would starve with those who hoard.
        if !self.may_copy && !self.recv.is_empty() && !self.recv.keeps(pool, &frame) {
            return self.refuse(pool, frame);
        }
        let filled_gap = !self.reassembly.is_empty();
        self.advance(frame.len());
        self.queue_pieces(pool, frame);
        while let Some(payload) = self.reassembly.take_next(pool, self.rcv.nxt_offset) {
            self.advance(payload.len());
            self.recv.push(pool, payload);
        }
        self.reassembly.advance(self.rcv.nxt_offset);
        self.events.push(Event::Readable);
        if filled_gap {
            // A sender that repairs a loss waits for news of the gap (RFC 5681 §4.2).
            self.acks.require();
        }
        self.acknowledge_soon(now, 1, self.largest_payload);
        Ok(())
    }

    /// So many segments have come. `full` is what counted as a full segment before the first of them.
    fn acknowledge_soon(&mut self, now: Instant, segments: usize, full: usize) {
        let unacknowledged = self.rcv.nxt - self.rcv.last_ack_sent;
        if self.acks.on_data(now, segments, unacknowledged, full, &self.config) == Urgency::Delayed {
            self.timers.set_if_earlier(Timer::DelayedAck, now + ack::DELAY);
        }
    }

    /// Whether the next segments may be taken in by [`handle_followers`](Self::handle_followers), `last` being the one that was handled
    /// last, and not dropped: the number that is expected, and how many bytes the window takes from there. `None` while data has to be
    /// looked at more closely, and if the last one's word on the window is not the newest (§3.10.7.4, fifth step): theirs would be.
    pub fn takes_followers(&self, last: &Segment) -> Option<(SeqNumber, usize)> {
        let is_simple = self.state.may_receive() && !self.reads_closed && !self.fin_received && self.may_copy;
        let has_all = self.reassembly.is_empty() && self.reassembly.fin().is_none();
        let is_newest = self.snd.wl1 == last.seq && self.snd.una == last.ack;
        (is_simple && has_all && is_newest).then(|| (self.rcv.nxt, self.rcv.wnd()))
    }

    /// Takes in the payloads of segments that follow the one that was handled last, by
    /// [`handle_segment`](Self::handle_segment), and at the same time: the first begins where [`takes_followers`](Self::takes_followers) says, each of
    /// the others where the one before ends, and all end where the window does at the latest. None is empty, and in everything but numbers and
    /// PSH they say what that segment said. So there is nothing new in them but the data (RFC 9293 §3.10.7.4, seventh step).
    pub fn handle_followers<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        payloads: impl Iterator<Item = RxFrame>,
    ) {
        // By what was a full segment before them, an ACK is due if it is after any of them.
        let (full, mut largest) = (self.largest_payload, self.largest_payload);
        let (mut segments, mut bytes, mut last) = (0, 0, 0);
        for payload in payloads {
            last = payload.len();
            largest = largest.max(last);
            bytes += last;
            segments += 1;
            self.queue_pieces(pool, payload);
        }
        if segments == 0 {
            return;
        }
        self.largest_payload = largest;
        self.counts.segments_received += segments as u64;
        self.advance(bytes);
        // Each is the newest word on the window, though it is the same (§3.10.7.4, fifth step).
        self.snd.wl1 = self.rcv.nxt - last;
        self.acknowledge_soon(now, segments, full);
        self.reassembly.advance(self.rcv.nxt_offset);
        self.events.push(Event::Readable);
        self.measure_as_receiver(now, None);
        // Payloads that were copied have given back chunks, as after each segment.
        self.offer_room(now, pool);
    }

    /// A long frame is queued as frames of one chunk each.
    #[inline]
    fn queue_pieces<P: FramePool>(&mut self, pool: &mut P, frame: RxFrame) {
        if frame.is_long() || frame.is_empty() {
            self.queue_each(pool, frame);
        } else {
            self.recv.push(pool, Payload::Frame(frame));
        }
    }

    #[inline(never)]
    fn queue_each<P: FramePool>(&mut self, pool: &mut P, mut frame: RxFrame) {
        loop {
            let rest = pool.split_rx(&mut frame);
            if frame.is_empty() {
                // Nothing but headers, or what was cut off.
                pool.release_rx(frame);
            } else {
                self.recv.push(pool, Payload::Frame(frame));
            }
            match rest {
                Some(rest) => frame = rest,
                None => return,
            }
        }
    }

    /// So many bytes have come that were expected.
    fn advance(&mut self, bytes: usize) {
        self.rcv.advance(bytes);
        self.counts.bytes_received += bytes as u64;
    }

    /// Data behind a gap: an immediate ACK tells the sender (RFC 5681 §4.2).
    fn put_aside<P: FramePool>(
        &mut self,
        pool: &mut P,
        start: SeqNumber,
        frame: RxFrame,
    ) -> Result<(), DropReason> {
        if !self.may_copy && !Reassembly::keeps(pool, frame.len()) {
            return self.refuse(pool, frame);
        }
        self.acks.require();
        self.counts.out_of_order += 1;
        let Some(offset) = self.rcv.offset(start) else {
            pool.release_rx(frame);
            return Err(DropReason::TcpOutOfWindow);
        };
        match self.insert_pieces(pool, offset, frame) {
            Inserted::New => Ok(()),
            Inserted::Duplicate => Err(DropReason::TcpDuplicateData),
            Inserted::Full => Err(DropReason::TcpReassemblyFull),
        }
    }

    /// Puts a long frame in order as frames of one chunk each. What became of it is what became of its best piece.
    fn insert_pieces<P: FramePool>(&mut self, pool: &mut P, mut offset: u64, mut frame: RxFrame) -> Inserted {
        let mut result = None;
        loop {
            let rest = pool.split_rx(&mut frame);
            let len = frame.len() as u64;
            if frame.is_empty() {
                pool.release_rx(frame);
            } else {
                let inserted = self.reassembly.insert(pool, offset, Payload::Frame(frame));
                result = result.filter(|&before| before == Inserted::New).or(Some(inserted));
            }
            offset += len;
            match rest {
                Some(rest) => frame = rest,
                None => return result.unwrap_or(Inserted::Duplicate),
            }
        }
    }

    /// There is no memory for it: the peer sends it again, and finds some when others have read.
    fn refuse<P: FramePool>(&mut self, pool: &mut P, frame: RxFrame) -> Result<(), DropReason> {
        pool.release_rx(frame);
        self.acks.require();
        Err(DropReason::TcpMemory)
    }

    /// Tells of the first part of a segment that waits out of order already.
    fn note_overlap(&mut self, start: SeqNumber, len: usize) {
        let overlap =
            self.rcv.offset(start).and_then(|start| self.reassembly.first_overlap(start, start + len as u64));
        if let Some((left, right)) = overlap {
            self.note_duplicate(self.rcv.seq(left), self.rcv.seq(right));
        }
    }

    /// The next ACK names a range that came twice (RFC 2883 §4), at once.
    fn note_duplicate(&mut self, start: SeqNumber, end: SeqNumber) {
        if start.before(end) {
            self.duplicate = Some((start, end));
            self.acks.require();
        }
    }

    /// FIN counts when all before it has come (RFC 9293 §3.10.7.4, eighth step).
    fn receive_fin<P: FramePool>(&mut self, now: Instant, pool: &mut P) {
        if self.reassembly.fin() != Some(self.rcv.nxt_offset) || self.fin_received {
            return;
        }
        self.fin_received = true;
        self.rcv.advance(1);
        // A peer that has sent beyond its own FIN contradicts itself.
        self.reassembly.clear(pool);
        // With our own FIN, likewise, unless it has gone already.
        if self.state == State::Established {
            self.acks.require_with_answer(now, &self.config);
        } else {
            self.acks.require_within(now, &self.config);
        }
        self.events.push(Event::PeerClosed);
        match self.state {
            State::Established => self.set_state(now, State::CloseWait),
            // Had our FIN been acknowledged, this were FIN-WAIT-2.
            State::FinWait1 => self.set_state(now, State::Closing),
            State::FinWait2 => self.enter_time_wait(now),
            _ => {}
        }
    }
}
