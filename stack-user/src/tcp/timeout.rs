//! What happens when a timer expires (RFC 9293 §3.10.8).

use super::{
    Connection, Event,
    error::Error,
    half_open::SYN_ACK_RETRIES,
    recovery::Context,
    state::State,
    timer::Timer,
    trace::{Kind, WindowReason},
};
use crate::{frame::FramePool, time::Instant};

/// How often the same data is sent again before the application is told, and IP is asked to look after the first hop (RFC
/// 9293 §3.8.3: MUST-20, and SHLD-10 says three at least). Fewer, and every loss of a burst makes noise; more, and a router
/// that is gone is looked for late, since each further time-out is twice as long.
pub const R1: u32 = 3;

impl Connection {
    /// Whether IP should look after the first hop (RFC 9293 §3.8.3, MUST-20; RFC 1122 §3.3.1.4), asked for once.
    pub fn take_suspicion(&mut self) -> bool {
        core::mem::take(&mut self.suspects_first_hop)
    }

    /// Serves the timers that have expired.
    pub fn handle_timeout<P: FramePool>(&mut self, now: Instant, pool: &mut P) {
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                Timer::Connect => self.fail(now, pool, self.timeout_error(Error::ConnectTimedOut)),
                Timer::User => self.fail(now, pool, self.timeout_error(Error::TimedOut)),
                Timer::FinWait2 | Timer::TimeWait => self.finish(now, None),
                Timer::Retransmit => self.on_retransmission_timeout(now),
                Timer::Reorder => self.on_reorder_timeout(now),
                Timer::LossProbe => self.on_probe_timeout(now),
                Timer::Persist => self.persist.on_timer(),
                Timer::DelayedAck => self.acks.require(),
                Timer::KeepAlive => self.on_keepalive_timeout(now, pool),
                // Polling for segments to send is what follows anyway.
                Timer::Pacing => {}
                // Polling for segments to send is what follows anyway.
                Timer::FrameRetry => self.offer_room(now, pool),
            }
        }
    }

    /// A time-out says less than the ICMP error that came while we waited (RFC 1122 §4.2.3.9).
    pub(super) fn timeout_error(&self, timeout: Error) -> Error {
        self.soft_error.map_or(timeout, Error::Unreachable)
    }

    /// RFC 6298 §5.4 to §5.6.
    fn on_retransmission_timeout(&mut self, now: Instant) {
        self.rtt.back_off();
        self.counts.timeouts += 1;
        if self.rtt.backoff() == R1 {
            self.events.push(Event::Stalled);
            self.suspects_first_hop = true;
        }
        // RFC 9293 §3.8.3, MUST-22: a SYN is repeated as data is; its R2 is `Timer::Connect`.
        if matches!(self.state, State::SynSent | State::SynReceived) {
            if self.is_passive && self.syn_timeouts >= SYN_ACK_RETRIES.into() {
                return self.finish(now, Some(Error::ConnectTimedOut));
            }
            self.syn_due = true;
            self.syn_timeouts += 1;
            return;
        }
        self.on_timeout_for_path_mtu(now);
        let context = self.recovery_context(now);
        let before = self.congestion.cwnd();
        let reason = self.recovery.on_timeout(&context, &mut self.send, self.congestion.as_mut());
        self.trace_window(now, before, Some(reason));
        // Started here and not with the retransmission, which waits while the NIC still has the frame.
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        self.set_reorder_timer();
        self.set_probe_timer(now, true);
    }

    /// RFC 8985 §6.2, step 5.
    fn on_reorder_timeout(&mut self, now: Instant) {
        let context = self.recovery_context(now);
        let before = self.congestion.cwnd();
        let reason = self.recovery.on_reorder_timeout(&context, &mut self.send, self.congestion.as_mut());
        self.trace_window(now, before, reason);
        self.set_reorder_timer();
        self.set_probe_timer(now, false);
    }

    /// RFC 8985 §7.3 and §8: the probe goes out, and gets RTO's time to be answered.
    fn on_probe_timeout(&mut self, now: Instant) {
        self.recovery.on_probe_timeout();
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
    }

    /// What loss recovery has to know.
    pub(super) fn recovery_context(&self, now: Instant) -> Context {
        let nxt = self.snd.offset(self.snd.nxt);
        Context {
            now,
            una: self.snd.una_offset,
            nxt,
            mss: self.layout().mss,
            sack: self.sack_enabled,
            srtt: self.rtt.srtt(),
            min_rtt: self.rtt.min(),
            has_new_data: self.send.unsent().is_some() && self.snd.una_offset + self.snd.wnd as u64 > nxt,
            cwnd_limited: self.snd.una_offset < self.window_full_until,
        }
    }

    /// RFC 8985 §6.2, step 5, and §8: one of reordering, probe and RTO.
    pub(super) fn set_reorder_timer(&mut self) {
        match self.recovery.reorder_at().filter(|_| self.send.has_outstanding()) {
            Some(at) => self.timers.set(Timer::Reorder, at),
            None => self.timers.stop(Timer::Reorder),
        }
    }

    /// RFC 8985 §7.2, with RACK only (§4 (4)): new data that is sent, or acknowledged, puts a probe off; an ACK of neither doesn't.
    pub(super) fn set_probe_timer(&mut self, now: Instant, progress: bool) {
        let rto = self.timers.at(Timer::Retransmit);
        let pto = self.recovery.pto(&self.send, self.rtt.srtt(), self.sack_enabled);
        // RFC 8985 §7.3 (2). Without the probe, RTO is what is left.
        let pto = pto.filter(|_| self.rtt.allows_loss_probe());
        match pto.zip(rto) {
            // Never later than RTO.
            Some((pto, rto)) if progress => self.timers.set(Timer::LossProbe, rto.min(now + pto)),
            Some(_) => {}
            None => self.timers.stop(Timer::LossProbe),
        }
    }

    /// Tells the peer, if it speaks ECN, and who listens that the congestion window has changed.
    pub(super) fn trace_window(&mut self, now: Instant, from: usize, reason: Option<WindowReason>) {
        if let Some(reason) = reason {
            if matches!(reason, WindowReason::Loss | WindowReason::Timeout | WindowReason::Ecn) {
                self.ecn.on_window_reduced();
            }
            let to = self.congestion.cwnd();
            self.trace(now, || Kind::CongestionWindow { from, to, reason });
        }
    }
}
