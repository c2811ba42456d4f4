//! ICMP errors about a connection (RFC 1122 §4.2.3.9, RFC 5927).

use super::{
    Connection, Event,
    error::{Error, Unreachable},
    seq::SeqNumber,
    state::State,
};
use crate::{frame::FramePool, time::Instant};

/// The smallest path MTU that we believe. RFC 791 allows 68; nothing on today's internet is below 552, and a forged
/// error must not make us send crumbs (RFC 5927 §7.2).
const MIN_PATH_MTU: usize = 552;

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
            Unreachable::FragmentationNeeded { mtu } => self.on_smaller_mtu(now, mtu.into()),
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

    fn on_smaller_mtu(&mut self, _now: Instant, mtu: usize) {
        let mtu = mtu.max(MIN_PATH_MTU);
        let mss = mtu - self.ip_header_len() - crate::wire::tcp::Header::LEN;
        if mss >= usize::from(self.snd.peer_mss.min(self.config.mss)).min(self.path_mss) {
            return;
        }
        self.path_mss = mss;
        let mss = self.layout().mss;
        self.congestion.set_mss(mss);
        if self.state.is_synchronized() {
            self.recovery.on_smaller_mss(&mut self.send, mss);
        }
    }
}
