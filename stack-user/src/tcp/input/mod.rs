//! Segments in (RFC 9293 §3.10.7): one file for each kind of state.

mod acknowledgment;
pub(super) mod listen;
mod syn_received;
mod syn_sent;
mod synchronized;
mod text;

use super::{Connection, segment::Segment, state::State, trace};
use crate::{
    frame::{FramePool, RxFrame},
    telemetry::DropReason,
    time::Instant,
};

impl Connection {
    /// Processes a segment that was found to belong to this connection. `payload` is what follows its header; it is
    /// kept, or given back to the pool.
    ///
    /// # Errors
    /// Why the segment was dropped, for the counters. If it has to be answered, the answer is due all the same.
    pub fn handle_segment<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        segment: &Segment,
        payload: RxFrame,
    ) -> Result<(), DropReason> {
        self.counts.segments_received += 1;
        // Whoever keeps the frame takes it out.
        let mut payload = Some(payload);
        let result = match self.state {
            State::Closed => Err(DropReason::TcpNoConnection),
            State::SynSent => self.on_segment_in_syn_sent(now, pool, segment, &mut payload),
            _ => self.on_segment(now, pool, segment, &mut payload),
        };
        if let Some(frame) = payload {
            pool.release_rx(frame);
        }
        if let Err(reason) = result {
            self.trace(now, || trace::Kind::Drop { reason });
        }
        self.offer_room(now, pool);
        result
    }

    /// Whether the next segments may be answered with challenge ACKs, as far as all connections together are concerned
    /// (RFC 5961 §7).
    pub fn permit_challenges(&mut self, permit: bool) {
        self.may_challenge = permit;
    }

    /// Whether the next segments may be copied to wait, as far as the memory of all connections together is concerned.
    pub fn permit_copies(&mut self, permit: bool) {
        self.may_copy = permit;
    }

    /// What waits to be read or put in order takes another amount of memory now, in bytes besides the frames: as much as it
    /// was when this was last asked, and as much as it is.
    pub fn account_memory(&mut self) -> (usize, usize) {
        let now = self.recv.memory() + self.reassembly.memory();
        (core::mem::replace(&mut self.accounted, now), now)
    }

    /// Whether there was a challenge ACK since the last call.
    pub fn take_challenged(&mut self) -> bool {
        core::mem::take(&mut self.has_challenged)
    }

    /// Answers a segment that is not acceptable with an ACK, within limits (RFC 5961 §7).
    fn challenge(&mut self, now: Instant) {
        if self.may_challenge && self.challenges.allow(now) {
            self.has_challenged = true;
            self.acks.require();
        }
    }
}
