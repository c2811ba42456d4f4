//! SYN-RECEIVED (RFC 9293 §3.10.7.4): where it differs from the states after it.

use crate::{
    frame::FramePool,
    tcp::{Connection, error::Error, output::Reset, segment::Segment, seq::SeqNumber, state::State},
    telemetry::DropReason,
    time::Instant,
};

impl Connection {
    /// When both sides opened at once, the peer's SYN comes a second time, with the ACK of ours. By the letter of the
    /// acceptability test it lies before the window, yet RFC 9293 §3.5 (figure 8) has it complete the handshake.
    pub(super) fn is_crossed_syn_ack(&self, segment: &Segment) -> bool {
        self.state == State::SynReceived
            && segment.syn()
            && segment.seq == self.rcv.irs
            && segment.acknowledges() == Some(self.snd.nxt)
    }

    /// The SYN that opened this connection has come again: our answer was lost, or is on its way.
    pub(super) fn is_repeated_syn(&self, segment: &Segment) -> bool {
        self.state == State::SynReceived
            && self.is_passive
            && segment.syn()
            && !segment.rst()
            && segment.seq == self.rcv.irs
            && segment.acknowledges().is_none()
    }

    /// RST in the right place: a passive open goes back to LISTEN, where nobody has heard of the peer; an active one
    /// was refused (§3.10.7.4, second step).
    pub(super) fn on_reset_in_syn_received<P: FramePool>(&mut self, now: Instant, pool: &mut P) {
        if self.is_passive {
            self.return_to_listen(now);
        } else {
            self.fail(now, pool, Error::Refused);
        }
    }

    /// This attempt is over. The listener is another's; nobody waits for us.
    pub(super) fn return_to_listen(&mut self, now: Instant) {
        self.finish(now, None);
    }

    /// Fifth step, in SYN-RECEIVED: our SYN must be acknowledged.
    pub(super) fn on_ack_in_syn_received(
        &mut self,
        now: Instant,
        segment: &Segment,
        ack: SeqNumber,
    ) -> Result<(), DropReason> {
        if ack.at_or_before(self.snd.una) || ack.after(self.snd.nxt) {
            self.reset_due = Some(Reset { seq: ack, ack: None });
            return Err(DropReason::TcpUnacceptableAck);
        }
        let scaled = if segment.syn() { 0 } else { self.snd.window_shift };
        self.establish(now, segment, usize::from(segment.window) << scaled);
        // The crossing SYN with ACK is answered, so that the peer knows even if ours was lost.
        if segment.syn() {
            self.acks.require();
        }
        Ok(())
    }
}
