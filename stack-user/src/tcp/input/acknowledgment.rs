//! The ACK of a segment (RFC 9293 §3.10.7.4, fifth step): what has arrived, what is lost, how large the peer's window is.

use core::ops::Range;

use crate::{
    frame::FramePool,
    tcp::{
        Connection,
        congestion::Acked,
        event::Event,
        options::{MAX_SACK_BLOCKS, SackBlocks},
        recovery::{Phase, dsack},
        segment::Segment,
        send_queue::Acknowledged,
        seq::SeqNumber,
        state::State,
        timer::Timer,
        trace::{self, WindowReason},
    },
    telemetry::DropReason,
    time::{Duration, Instant},
};

/// What an ACK that moved SND.UNA tells.
struct NewlyAcked {
    bytes: usize,
    rtt: Option<Duration>,
    fin: bool,
}

impl Connection {
    pub(super) fn on_acknowledgment<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        segment: &Segment,
        ack: SeqNumber,
        payload_len: usize,
    ) -> Result<(), DropReason> {
        // RFC 5961 §5: neither for what was never sent, nor older than any segment on the way could be.
        let too_old = ack.before(self.snd.una - self.snd.max_wnd);
        if ack.after(self.snd.nxt) || too_old {
            self.challenge(now);
            return Err(DropReason::TcpUnacceptableAck);
        }
        let old_window = self.snd.wnd;
        if ack.at_or_after(self.snd.una) {
            let shift = if segment.syn() { 0 } else { self.snd.window_shift };
            self.snd.update_window(segment.seq, ack, usize::from(segment.window) << shift);
        }
        if self.repeats_itself(segment, ack) {
            self.on_window();
            self.on_peer_alive(now);
            return Ok(());
        }
        let in_flight = self.send.outstanding();
        self.begin_ack(now, segment);
        let phase = self.recovery.phase();
        if ack.at_or_after(self.snd.una) {
            self.on_ecn_echo(now, segment, ack, in_flight);
        }
        let acked = ack.after(self.snd.una).then(|| {
            self.on_arrival_for_path_mtu(ack);
            self.on_new_ack(now, pool, segment, ack)
        });
        let news = self.sack_enabled && self.take_sack_blocks(segment, ack);
        if acked.is_none() && self.is_duplicate_ack(segment, ack, payload_len, old_window) {
            self.recovery.on_duplicate_ack(&self.send, self.layout().mss, self.sack_enabled);
        }
        match acked {
            None => self.on_window(),
            // What has asked for the window is there: what is first now has not.
            Some(_) => _ = self.persist.take_asked(),
        }
        self.judge_mtu_probe();
        self.judge(now);
        let acked_new = acked.is_some();
        if let Some(news) = acked {
            // RFC 3168 §6.1.2: not with an ACK that tells of congestion.
            if !self.ecn.is_echo(segment.flags) {
                self.grow_window(now, phase, in_flight, &news);
            }
            self.restart_timers(now);
            if news.fin {
                self.on_fin_acknowledged(now);
            }
        }
        self.set_reorder_timer();
        self.set_probe_timer(now, acked_new);
        self.on_peer_alive(now);
        if news || ack.at_or_after(self.snd.una) { Ok(()) } else { Err(DropReason::TcpDuplicateData) }
    }

    /// The ACK of a segment is the last one again while nothing is outstanding: it may have another window, and that is all.
    fn repeats_itself(&self, segment: &Segment, ack: SeqNumber) -> bool {
        self.recovery.is_at_rest() && ack == self.snd.una && segment.options.sack.is_empty()
    }

    /// While the window was shut, RTO had the first outstanding segment ask for it (RFC 9293 §3.8.6.1), more and more rarely.
    /// The peer can't have taken that one: it is due as soon as there is room, and not when the timer has expired again.
    fn on_window(&mut self) {
        let fits = self.send.get(0).is_some_and(|first| first.end() <= self.window_end());
        if fits && self.persist.take_asked() {
            self.recovery.on_window_opened(&mut self.send);
        }
    }

    /// RFC 3168 §6.1.2: congestion, and nothing is lost.
    fn on_ecn_echo(&mut self, now: Instant, segment: &Segment, ack: SeqNumber, in_flight: usize) {
        if in_flight == 0 || !self.ecn.is_echo(segment.flags) {
            return;
        }
        let (before, window) =
            (self.congestion.cwnd(), (self.snd.offset(ack), self.snd.offset(self.snd.nxt)));
        let reduced = self.recovery.on_ecn_echo(now, window, in_flight, self.congestion.as_mut());
        if reduced && before <= self.layout().mss {
            self.hold_for_rto(now);
        }
        self.trace_window(now, before, reduced.then_some(WindowReason::Ecn));
    }

    fn begin_ack(&mut self, now: Instant, segment: &Segment) {
        let echo = segment.options.timestamps;
        let answered_at = echo.and_then(|echo| self.timestamps.answered_at(now, echo));
        let mss = self.layout().mss;
        self.recovery.begin_ack(now, &self.send, mss, answered_at, self.rtt.min());
    }

    /// Marks what the peer has beyond SND.UNA (RFC 2018 §5); returns whether that is news.
    fn take_sack_blocks(&mut self, segment: &Segment, ack: SeqNumber) -> bool {
        let sack = &segment.options.sack;
        if sack.is_empty() {
            return false;
        }
        let mss = self.layout().mss;
        if let Some(range) = self.find_dsack(sack, ack) {
            self.recovery.on_dsack(range, mss);
        }
        // In the order of the stream: else what comes with one ACK would seem to be out of order.
        let mut blocks = [(self.snd.una, self.snd.una); MAX_SACK_BLOCKS];
        for (slot, block) in blocks.iter_mut().zip(sack.iter()) {
            *slot = block;
        }
        let Self { snd, send, recovery, .. } = self;
        blocks.sort_unstable_by_key(|(left, _)| left.distance(snd.una));
        let mut news = false;
        for (left, right) in blocks {
            if left.at_or_after(snd.una) && left.before(right) && right.at_or_before(snd.nxt) {
                news |= recovery.on_sack(send, snd.offset(left)..snd.offset(right));
            }
        }
        news
    }

    /// The range that came twice, as stream offsets, if the segment tells one that we have sent.
    /// What an old ACK tells is below SND.UNA by now, but was not below that ACK.
    fn find_dsack(&self, sack: &SackBlocks, ack: SeqNumber) -> Option<Range<u64>> {
        let sent = |seq: SeqNumber| self.snd.una_offset.checked_add_signed(seq.distance(self.snd.una).into());
        let range = |(left, right)| Some(sent(left)?..sent(right)?);
        let mut blocks = sack.iter().map(range);
        let first = blocks.next().flatten().filter(|first| first.end <= self.snd.offset(self.snd.nxt))?;
        dsack::find(sent(ack)?, first, blocks.next().flatten())
    }

    /// All five conditions of RFC 5681 §2. A window update is none, nor is data that happens to repeat the ACK.
    fn is_duplicate_ack(
        &self,
        segment: &Segment,
        ack: SeqNumber,
        payload_len: usize,
        old_window: usize,
    ) -> bool {
        ack == self.snd.una
            && self.send.has_outstanding()
            && segment.sequence_len(payload_len) == 0
            && self.snd.wnd == old_window
    }

    fn on_new_ack<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        segment: &Segment,
        ack: SeqNumber,
    ) -> NewlyAcked {
        let bytes = self.snd.acknowledge(ack);
        self.counts.bytes_acked += bytes as u64;
        let acked = self.recovery.on_acknowledged(&mut self.send, pool, self.snd.una_offset);
        // RFC 7661 §4.4.1, R: what had to be sent again in this recovery, however often.
        let recovering = self.recovery.phase() == Phase::FastRecovery;
        self.repaired = if recovering { self.repaired + acked.repaired } else { 0 };
        NewlyAcked { bytes, rtt: self.measure(now, segment, &acked), fin: acked.fin }
    }

    /// What the ACK says about losses.
    fn judge(&mut self, now: Instant) {
        let context = self.recovery_context(now);
        let before = self.congestion.cwnd();
        let reason = self.recovery.end_ack(&context, &mut self.send, self.congestion.as_mut());
        if reason == Some(WindowReason::Undo) {
            self.rtt.on_spurious();
        }
        if reason == Some(WindowReason::RecoveryDone) {
            self.congestion.on_recovered(core::mem::take(&mut self.repaired));
        }
        self.trace_window(now, before, reason);
        if let Some(delivered) = self.recovery.take_delivered(&context, &self.send) {
            self.congestion.on_delivered(&delivered);
        }
    }

    /// Tells the congestion control. While the window shrinks it does not grow: where it goes was set when the loss was
    /// found.
    fn grow_window(&mut self, now: Instant, before: Phase, in_flight: usize, acked: &NewlyAcked) {
        let grows = |phase| matches!(phase, Phase::Open | Phase::Loss);
        if grows(before) && grows(self.recovery.phase()) {
            // RFC 9406 §4.2: what was sent after the last round trip began is acknowledged.
            let round_start = self.snd.una_offset > self.round_end;
            if round_start {
                self.round_end = self.snd.offset(self.snd.nxt);
            }
            self.congestion.on_ack(&Acked {
                now,
                bytes: acked.bytes,
                in_flight,
                rtt: acked.rtt,
                srtt: self.rtt.srtt(),
                round_start,
                cwnd_limited: self.window_was_used(in_flight, acked.bytes),
                paced: self.config.pacing,
            });
        }
    }

    /// A window that is not used must not grow (RFC 7661 §4.4, §4.5.3). It was used if it was full while the data that is now
    /// acknowledged was on its way: ACKs come in clumps, so what it is at this moment says little. In slow start half of
    /// it is use enough.
    fn window_was_used(&self, in_flight: usize, bytes: usize) -> bool {
        let cwnd = self.congestion.cwnd();
        let was_full = self.snd.una_offset - (bytes as u64) < self.window_full_until;
        was_full || cwnd < self.congestion.ssthresh() && cwnd < 2 * in_flight
    }

    /// RTT by the clock if what is acknowledged was sent once (Karn's algorithm), else by the echoed timestamp.
    fn measure(&mut self, now: Instant, segment: &Segment, acked: &Acknowledged) -> Option<Duration> {
        let echoed = || segment.options.timestamps.and_then(|ts| self.timestamps.round_trip(now, ts));
        let rtt = acked.sent_at.map(|sent_at| now.since(sent_at)).or_else(echoed)?;
        // A peer acknowledges every second segment.
        let expected = self.send.outstanding().div_ceil(2 * self.layout().mss.max(1));
        self.rtt.sample_one_of(rtt, expected);
        self.trace(now, || trace::Kind::RttSample { rtt });
        Some(rtt)
    }

    /// RFC 6298 §5.2 and §5.3: stop when all is acknowledged, else start again, with each partial ACK of a recovery, too
    /// (RFC 6582 §4.1 calls that slow but steady, and asks for it with the first). The peer's time to show progress
    /// likewise.
    fn restart_timers(&mut self, now: Instant) {
        if self.send.has_outstanding() {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
            self.timers.set(Timer::User, now + self.user_timeout());
        } else {
            self.timers.stop(Timer::Retransmit);
            self.timers.stop(Timer::User);
        }
    }

    /// The peer has answered. As long as it does, a closed window is no reason to give up (RFC 9293 §3.8.6.1, MUST-37;
    /// §3.8.6, SHLD-17),
    /// unless the application has: then a peer that never opens it would hold our frames for ever (RFC 6429).
    fn on_peer_alive(&mut self, now: Instant) {
        let waits_for_window = self.snd.wnd == 0 || self.timers.is_set(Timer::Persist);
        if waits_for_window && !self.reads_closed && self.timers.is_set(Timer::User) {
            self.timers.set(Timer::User, now + self.user_timeout());
        }
        if self.snd.wnd > 0 && self.persist.probes() > 0 {
            // Open, if only by a crack: the next probe, which would send what fits, is not a minute away.
            self.persist.reset();
            self.timers.stop(Timer::Persist);
        }
    }

    fn on_fin_acknowledged(&mut self, now: Instant) {
        match self.state {
            State::FinWait1 => {
                self.set_state(now, State::FinWait2);
                if self.reads_closed {
                    self.timers.set(Timer::FinWait2, now + self.config.fin_wait_2);
                } else {
                    // Somebody may wait for just that. In the other states the end itself is told.
                    self.events.push(Event::Writable);
                }
            }
            State::Closing => {
                self.enter_time_wait(now);
                self.events.push(Event::Writable);
            }
            State::LastAck => self.finish(now, None),
            _ => {}
        }
    }

    /// RFC 9293 §3.6.1, MUST-13: for 2 MSL.
    pub(super) fn enter_time_wait(&mut self, now: Instant) {
        self.set_state(now, State::TimeWait);
        self.timers.stop_all();
        self.timers.set(Timer::TimeWait, now + self.config.time_wait);
    }
}
