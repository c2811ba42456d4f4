//! SYN-SENT (RFC 9293 §3.10.7.3).

use crate::{
    frame::{FramePool, RxFrame},
    tcp::{
        Connection, Event, error::Error, half_open::MIN_PEER_MSS, output::Reset, segment::Segment,
        state::State, timer::Timer, window,
    },
    telemetry::DropReason,
    time::Instant,
};

impl Connection {
    pub(super) fn on_segment_in_syn_sent<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        segment: &Segment,
        payload: &mut Option<RxFrame>,
    ) -> Result<(), DropReason> {
        // First, ACK: only our SYN can be acknowledged. RST for another tells a peer that still has an old connection (RFC
        // 9293 §3.5.1).
        let ack = segment.acknowledges();
        if let Some(ack) = ack
            && (ack.at_or_before(self.snd.iss) || ack.after(self.snd.nxt))
        {
            if !segment.rst() {
                self.reset_due = Some(Reset { seq: ack, ack: None });
                self.reopen_after_reset(segment);
            }
            return Err(DropReason::TcpUnacceptableAck);
        }
        // Second, RST: without an acceptable ACK anybody could have sent it.
        if segment.rst() {
            return match ack {
                Some(_) => {
                    self.fail(now, pool, Error::Refused);
                    Ok(())
                }
                None => Err(DropReason::TcpNoAck),
            };
        }
        // Fourth, SYN.
        if !segment.syn() {
            return Err(DropReason::TcpNoAck);
        }
        self.synchronize(now, segment);
        if ack.is_none() {
            // Simultaneous open (RFC 9293 §3.5, MUST-10): both sides sent SYN. What data the SYN carries comes again.
            self.set_state(now, State::SynReceived);
            self.syn_due = true;
            return Ok(());
        }
        self.establish(now, segment, segment.window.into());
        // With the request, if the application is quick.
        self.acks.require_within(now, &self.config);
        self.receive(now, pool, segment, segment.seq + 1, payload)
    }

    /// The peer has answered our SYN by an ACK from an earlier life of ours. Our reset ends that connection (RFC 9293 §3.5.1,
    /// figure 10), so that the next SYN opens a new one: it follows the reset instead of the time-out. Once, lest whoever
    /// forges ACKs has us send.
    fn reopen_after_reset(&mut self, segment: &Segment) {
        if !segment.syn() && self.syn_transmissions == 1 {
            self.syn_due = true;
        }
    }

    /// Takes the peer's SYN: its sequence number and its options.
    fn synchronize(&mut self, now: Instant, segment: &Segment) {
        self.rcv.synchronize(segment.seq, window::for_syn(self.autotune.receive_buffer()).into());
        self.snd.peer_mss = segment.options.mss.unwrap_or(crate::tcp::block::DEFAULT_MSS).max(MIN_PEER_MSS);
        // All our SYNs offer all options, so what the peer's SYN has is agreed.
        if let Some(shift) = segment.options.window_scale {
            self.snd.window_shift = shift;
            self.rcv.window_shift = window::shift_for(self.autotune.receive_buffer_max());
        }
        self.sack_enabled = segment.options.sack_permitted;
        self.ecn.on_syn(segment.flags);
        self.take_user_timeout(now, segment.options.user_timeout);
        if let Some(timestamps) = segment.options.timestamps {
            self.timestamps.enable(now, timestamps);
        }
    }

    /// SYN has been received and ours is acknowledged: ESTABLISHED. `window` is the peer's, scaled if it has to be.
    pub(super) fn establish(&mut self, now: Instant, segment: &Segment, window: usize) {
        self.snd.syn_acknowledged();
        self.snd.wnd = window;
        self.snd.max_wnd = window;
        self.snd.wl1 = segment.seq;
        self.snd.wl2 = segment.ack;
        self.timers.stop(Timer::Connect);
        self.timers.stop(Timer::Retransmit);
        self.syn_due = false;
        self.soft_error = None;
        self.measure_handshake(now, segment);
        let mss = self.layout().mss;
        self.congestion = self.config.congestion.build_validated(mss, self.config.pacing);
        if self.syn_timeouts > 1 {
            self.congestion.restart_from_one_segment();
        }
        self.last_sent_at = now;
        self.allow_initial_burst();
        self.set_state(now, if self.send.has_fin() { State::FinWait1 } else { State::Established });
        // Who answered our SYN by a cookie has forgotten what it told, and a SYN's options may be lost on the
        // way (RFC 5482 §3, §3.2).
        self.user_timeout_state.is_due = self.config.user_timeout_option.is_some();
        self.watch_silence(now);
        self.events.push(Event::Connected);
    }

    /// The first round trip: by the clock if there was one SYN (Karn), by the echoed timestamp if there were more.
    fn measure_handshake(&mut self, now: Instant, segment: &Segment) {
        let echoed = segment.options.timestamps.and_then(|ts| self.timestamps.round_trip(now, ts));
        if self.syn_transmissions == 0 {
            // A SYN cookie came back: nobody knows when it was sent, and its timestamp is up to 64 ms older.
        } else if self.syn_transmissions == 1 {
            self.rtt.sample(now.since(self.syn_sent_at));
        } else if let Some(rtt) = echoed {
            self.rtt.sample(rtt);
        } else if self.syn_timeouts > 0 {
            self.rtt.handshake_was_retransmitted();
        }
    }
}
