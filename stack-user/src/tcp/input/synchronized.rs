//! SYN-RECEIVED and all states after it (RFC 9293 §3.10.7.4), in the order of the RFC's steps.

use crate::{
    frame::{FramePool, RxFrame},
    tcp::{Connection, error::Error, segment::Segment, seq::SeqNumber, state::State, timer::Timer},
    telemetry::DropReason,
    time::Instant,
};

impl Connection {
    pub(super) fn on_segment<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        segment: &Segment,
        payload: &mut Option<RxFrame>,
    ) -> Result<(), DropReason> {
        if self.is_repeated_syn(segment) {
            self.syn_due = self.challenges.allow(now);
            return Err(DropReason::TcpDuplicateData);
        }
        let payload_len = payload.as_ref().map_or(0, RxFrame::len);
        let crossed = self.is_crossed_syn_ack(segment);
        let seq = if crossed { segment.seq + 1 } else { segment.seq };
        let len = segment.sequence_len(payload_len) - usize::from(crossed);

        self.check_paws(now, segment, len)?;
        self.check_sequence(now, segment, seq, len)?;
        if segment.rst() {
            return self.on_reset(now, pool, seq);
        }
        if segment.syn() && !crossed {
            if self.state == State::SynReceived && self.is_passive {
                // Fourth step: after a passive open, back to LISTEN.
                self.return_to_listen(now);
                return Ok(());
            }
            // RFC 5961 §4: a peer that has really restarted answers our ACK with RST.
            self.challenge(now);
            return Err(DropReason::TcpChallenged);
        }
        let ack = segment.acknowledges().ok_or(DropReason::TcpNoAck)?;
        if self.state == State::SynReceived {
            self.on_ack_in_syn_received(now, segment, ack)?;
        }
        let acknowledged = self.on_acknowledgment(now, pool, segment, ack, payload_len);
        if let Err(reason) = acknowledged
            && reason != DropReason::TcpDuplicateData
        {
            return Err(reason);
        }
        if let Some(timestamps) = segment.options.timestamps {
            self.timestamps.update(now, timestamps, seq, self.rcv.last_ack_sent);
        }
        if self.state == State::Closed {
            return Ok(());
        }
        self.silence.ends(now);
        self.take_user_timeout(now, segment.options.user_timeout);
        self.take_urgent_pointer(segment, seq);
        if payload_len > 0 && self.ecn.on_data(segment.flags, segment.ce) {
            self.acks.require();
        }
        self.receive(now, pool, segment, seq, payload)
    }

    /// Timestamps: they must be there (RFC 7323 §3.2), and not be old (PAWS, RFC 7323 §5.3, R1). RST passes: its sender may have lost the clock.
    fn check_paws(&mut self, now: Instant, segment: &Segment, len: usize) -> Result<(), DropReason> {
        let Some(timestamps) = segment.options.timestamps else {
            // RFC 7323 §3.2: all of the peer's segments carry the option since both SYNs did; who leaves it out is
            // somebody else.
            let expected = self.timestamps.enabled && !segment.rst();
            return if expected { Err(DropReason::TcpNoTimestamp) } else { Ok(()) };
        };
        if segment.rst() || !self.timestamps.is_old(now, timestamps) {
            return Ok(());
        }
        // A pure ACK that another overtook: an answer would look like a duplicate ACK to its sender.
        let overtaken = len == 0 && segment.acknowledges().is_some_and(|ack| ack.at_or_before(self.snd.una));
        if len > 0 {
            self.acks.require();
        } else if !overtaken {
            self.challenge(now);
        }
        Err(DropReason::TcpPaws)
    }

    /// First step: the sequence number.
    fn check_sequence(
        &mut self,
        now: Instant,
        segment: &Segment,
        seq: SeqNumber,
        len: usize,
    ) -> Result<(), DropReason> {
        if self.rcv.is_acceptable(seq, len) {
            return Ok(());
        }
        if segment.rst() {
            return Err(DropReason::TcpOutOfWindow);
        }
        if self.state == State::TimeWait && segment.fin() {
            // The peer has not got our last ACK: it gets another, and 2 MSL start again.
            self.timers.set(Timer::TimeWait, now + self.config.time_wait);
        }
        if len == 0 || segment.syn() {
            // A probe, a keep-alive, or somebody's guess.
            self.challenge(now);
            return Err(DropReason::TcpOutOfWindow);
        }
        self.acks.require();
        if (seq + len).after(self.rcv.nxt) {
            return Err(DropReason::TcpOutOfWindow);
        }
        // Retransmitted because our ACK was lost or late: tell that it was for nothing (RFC 2883 §4).
        self.duplicate = Some((seq, seq + len));
        Err(DropReason::TcpDuplicateData)
    }

    /// Second step: RST, with data or without (RFC 9293 §3.5.3, SHLD-2), also when our window is closed (MUST-66). RFC 5961 §3: only the exact next number resets, others in the window are challenged.
    fn on_reset<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        seq: SeqNumber,
    ) -> Result<(), DropReason> {
        if self.state == State::TimeWait {
            // An old segment must not end TIME-WAIT before its time (RFC 1337 §3, fix 1).
            return Err(DropReason::TcpOutOfWindow);
        }
        if seq != self.rcv.nxt {
            if seq == self.rcv.edge {
                // Good for an ACK, but the first number outside of the window all the same (RFC 5961 §3.2).
                return Err(DropReason::TcpOutOfWindow);
            }
            self.challenge(now);
            return Err(DropReason::TcpChallenged);
        }
        match self.state {
            State::SynReceived => self.on_reset_in_syn_received(now, pool),
            // Both have finished: nothing is lost (§3.10.7.4).
            State::Closing | State::LastAck => {
                self.finish(now, None);
                self.send.clear(pool);
            }
            _ => self.fail(now, pool, Error::Reset),
        }
        Ok(())
    }
}
