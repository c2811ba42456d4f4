//! What happens when a timer expires (RFC 9293 §3.10.8).

use super::{Connection, error::Error, half_open::SYN_ACK_RETRIES, state::State, timer::Timer};
use crate::{frame::FramePool, time::Instant};

impl Connection {
    /// Serves the timers that have expired.
    pub fn handle_timeout<P: FramePool>(&mut self, now: Instant, pool: &mut P) {
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                Timer::Connect => self.fail(now, pool, self.timeout_error(Error::ConnectTimedOut)),
                Timer::User => self.fail(now, pool, self.timeout_error(Error::TimedOut)),
                Timer::FinWait2 | Timer::TimeWait => self.finish(now, None),
                Timer::Retransmit => self.on_retransmission_timeout(now),
                Timer::Persist => self.persist.on_timer(),
                Timer::DelayedAck => self.acks.require(),
                // Polling for segments to send is what follows anyway.
                Timer::FrameRetry => self.offer_room(now, pool),
            }
        }
    }

    /// A time-out says less than the ICMP error that came while we waited (RFC 1122 §4.2.3.9).
    fn timeout_error(&self, timeout: Error) -> Error {
        self.soft_error.map_or(timeout, Error::Unreachable)
    }

    /// RFC 6298 §5.4 to §5.6.
    fn on_retransmission_timeout(&mut self, now: Instant) {
        self.rtt.back_off();
        self.counts.timeouts += 1;
        if matches!(self.state, State::SynSent | State::SynReceived) {
            if self.is_passive && self.syn_timeouts >= SYN_ACK_RETRIES.into() {
                return self.finish(now, Some(Error::ConnectTimedOut));
            }
            self.syn_due = true;
            self.syn_timeouts += 1;
            return;
        }
        let nxt = self.snd.offset(self.snd.nxt);
        self.recovery.on_timeout(now, &mut self.send, nxt, self.congestion.as_mut());
        // Started here and not with the retransmission, which waits while the NIC still has the frame.
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
    }
}
