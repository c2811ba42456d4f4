//! ICMP errors about a connection (RFC 1122 §4.2.3.9, RFC 5927).

use super::{
    Connection, Event,
    error::{Error, Unreachable},
    seq::SeqNumber,
    state::State,
};
use crate::{frame::FramePool, time::Instant};

impl Connection {
    /// The peer can't be reached, or not by packets of this size. `quoted_seq` is the sequence number of the segment
    /// that the error quotes; an error about a segment that is not outstanding is forged or late, and counts nothing
    /// (RFC 5927 §4.1).
    ///
    /// While the connection is being opened, an error that will not pass by itself ends it at once, and another is
    /// reported as the reason if no answer comes (RFC 9293 §3.9.2.2, SHLD-25). Once it is open, no error ends it (RFC 1122 §4.2.3.9, MUST-56;
    /// RFC 5927 §5.2): the way may come back, and if not, the time-out names the last error as the reason.
    pub fn handle_unreachable<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        kind: Unreachable,
        quoted_seq: Option<SeqNumber>,
    ) {
        let outstanding = |seq: SeqNumber| seq.at_or_after(self.snd.una) && seq.before(self.snd.nxt);
        if self.state == State::Closed || quoted_seq.is_some_and(|seq| !outstanding(seq)) {
            return;
        }
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        match kind {
            Unreachable::FragmentationNeeded { mtu } => {
                if let Some(quoted) = quoted_seq.filter(|_| !opening) {
                    self.on_packet_too_big(now, mtu.into(), quoted);
                }
            }
            Unreachable::Port if opening => self.fail(now, pool, Error::Refused),
            Unreachable::Protocol | Unreachable::Admin | Unreachable::NoNeighbour if opening => {
                self.fail(now, pool, Error::Unreachable(kind));
            }
            _ => {
                self.soft_error = Some(kind);
                self.events.push(Event::Unreachable(kind));
            }
        }
    }
}
