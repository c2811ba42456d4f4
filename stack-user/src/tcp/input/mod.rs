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

    /// Answers a segment that is not acceptable with an ACK, within limits (RFC 5961 §7).
    fn challenge(&mut self, now: Instant) {
        if self.challenges.allow(now) {
            self.acks.require();
        }
    }
}
