//! The calls of the application (RFC 9293 §3.10.2 to §3.10.5).

use super::{
    Connection,
    error::{Error, ReadError, WriteError},
    output::Reset,
    state::State,
    timer::Timer,
};
use crate::{frame::FramePool, time::Instant, wire::IpFields};

impl Connection {
    /// Queues bytes to be sent, as many as there is room for, and returns how many.
    ///
    /// # Errors
    /// [`WriteError::WouldBlock`] when there is no room at all, and before the handshake is complete: an event tells
    /// when to try again. Otherwise that the stream has ended.
    pub fn write<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        data: &[u8],
    ) -> Result<usize, WriteError> {
        self.check_writable()?;
        if data.is_empty() {
            return Ok(0);
        }
        let room = self.send_buffer(pool).saturating_sub(self.send.bytes()).min(data.len());
        let written = self.send.write(pool, self.layout(), data.get(..room).unwrap_or_default());
        if written == 0 { Err(self.on_no_room(now, pool)) } else { Ok(written) }
    }

    /// Whether what is written now will be sent, or why not.
    pub(super) fn check_writable(&self) -> Result<(), WriteError> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        match self.state {
            _ if self.send.has_fin() => Err(WriteError::Closed),
            State::Established | State::CloseWait => Ok(()),
            State::SynSent | State::SynReceived => Err(WriteError::WouldBlock),
            _ => Err(WriteError::Closed),
        }
    }

    /// The application wanted to write, and shall hear when there is room.
    pub(super) fn on_no_room<P: FramePool>(&mut self, now: Instant, pool: &P) -> WriteError {
        self.write_blocked = true;
        self.offer_room(now, pool);
        WriteError::WouldBlock
    }

    /// Moves received bytes to `out`. `Ok(0)` is the end of the stream, or an empty `out`.
    ///
    /// # Errors
    /// [`ReadError::WouldBlock`] when nothing has come; and once all is read, why no more will.
    pub fn read<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        out: &mut [u8],
    ) -> Result<usize, ReadError> {
        if self.reads_closed {
            return Err(ReadError::Closed);
        }
        if self.recv.is_empty() {
            return self.end_of_stream().map(|()| 0);
        }
        let n = self.recv.read(pool, out);
        self.on_read(now, pool, n);
        Ok(n)
    }

    /// As [`read`](Self::read), and what is copied to `out` can be read once more.
    ///
    /// # Errors
    /// As there.
    pub fn peek<P: FramePool>(&self, pool: &P, out: &mut [u8]) -> Result<usize, ReadError> {
        if self.reads_closed {
            return Err(ReadError::Closed);
        }
        if self.recv.is_empty() {
            return self.end_of_stream().map(|()| 0);
        }
        Ok(self.recv.peek(pool, out))
    }

    /// Nothing is left to read: whether it is the end, and of what kind.
    pub(super) fn end_of_stream(&self) -> Result<(), ReadError> {
        match self.error {
            _ if self.fin_received => Ok(()),
            Some(error) => Err(error.into()),
            None if self.state == State::Closed => Err(ReadError::Closed),
            None => Err(ReadError::WouldBlock),
        }
    }

    /// Whether [`write`](Self::write) would do something else than block. If not, [`Event::Writable`](super::Event::Writable)
    /// tells when.
    pub fn is_writable<P: FramePool>(&mut self, now: Instant, pool: &P) -> bool {
        match self.check_writable() {
            Err(error) => error != WriteError::WouldBlock,
            Ok(()) => {
                let room = self.has_room(pool) && self.send.may_allocate(pool);
                self.write_blocked |= !room;
                self.offer_room(now, pool);
                room
            }
        }
    }

    /// The application has read, so there is room: the peer may have to know.
    pub(super) fn on_read<P: FramePool>(&mut self, now: Instant, pool: &P, n: usize) {
        self.tune_receive_buffer(now, pool, n);
        if self.window_update_is_due() {
            self.acks.require();
        }
    }

    /// Switches Nagle's algorithm off, or on again (RFC 9293 §3.7.4, MUST-17).
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.config.nodelay = nodelay;
    }

    /// Whether Nagle's algorithm is off.
    pub fn nodelay(&self) -> bool {
        self.config.nodelay
    }

    /// Chooses the Differentiated Services Codepoint, six bits, of what is sent from now on (RFC 9293 §3.9.1.9, MUST-48 and
    /// SHLD-21).
    pub fn set_dscp(&mut self, dscp: u8) {
        self.config.dscp = dscp;
    }

    /// The Differentiated Services Codepoint of what is sent.
    pub fn dscp(&self) -> u8 {
        self.config.dscp & IpFields::MAX_DSCP
    }

    /// Chooses the time to live of what is sent from now on (RFC 9293 §3.9.2, MUST-49).
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.config.hop_limit = hop_limit;
    }

    /// What the IP header of the next segment has to say, unchanged (RFC 9293 §3.9.1.9, SHLD-22).
    pub fn ip_fields(&self) -> IpFields {
        self.config.ip_fields()
    }

    /// Whether [`close`](Self::close) resets the connection instead of delivering what was written (SO_LINGER with a time
    /// of 0).
    pub fn set_zero_linger(&mut self, zero_linger: bool) {
        self.config.zero_linger = zero_linger;
    }

    /// Whether the peer has acknowledged all that was written, and our FIN: what [`shutdown_write`](Self::shutdown_write) asks
    /// for is done, or why it never will be. `None` while it may still come.
    pub fn delivered(&self) -> Option<Result<(), Error>> {
        match (self.error, self.state) {
            (Some(error), _) => Some(Err(error)),
            (None, State::FinWait2 | State::TimeWait | State::Closed) => Some(Ok(())),
            _ => None,
        }
    }

    /// Sends no more after what was written: FIN (RFC 9293 §3.10.4). Reading goes on.
    pub fn shutdown_write(&mut self, now: Instant) {
        if self.send.has_fin() {
            return;
        }
        match self.state {
            // Before the handshake is complete FIN is queued, and sent after it.
            State::SynSent | State::SynReceived => self.send.push_fin(),
            State::Established => {
                self.send.push_fin();
                self.set_state(now, State::FinWait1);
            }
            State::CloseWait => {
                self.send.push_fin();
                self.set_state(now, State::LastAck);
            }
            _ => {}
        }
    }

    /// The application is done: [`shutdown_write`](Self::shutdown_write), and no more reads.
    ///
    /// If it leaves something unread, or if more comes later, the peer gets RST instead of FIN: it must know that data
    /// was lost (RFC 9293 §3.6.1, MAY-1 and SHLD-3).
    pub fn close<P: FramePool>(&mut self, now: Instant, pool: &mut P) {
        if self.reads_closed {
            return;
        }
        self.reads_closed = true;
        let is_unread = !self.recv.is_empty();
        // The connection may live on for a while, the frames need not.
        self.recv.clear(pool);
        match self.state {
            State::SynSent => self.finish(now, None),
            State::Closed | State::TimeWait => {}
            _ if is_unread || self.config.zero_linger => self.abort(now),
            _ => {
                self.shutdown_write(now);
                if self.state == State::FinWait2 {
                    self.timers.set(Timer::FinWait2, now + self.config.fin_wait_2);
                }
            }
        }
    }

    /// Ends the connection at once: RST (RFC 9293 §3.10.5).
    pub fn abort(&mut self, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        if !matches!(self.state, State::SynSent | State::TimeWait) {
            self.reset_due = Some(Reset { seq: self.snd.nxt, ack: Some(self.rcv.nxt) });
        }
        self.finish(now, Some(Error::Aborted));
    }
}
