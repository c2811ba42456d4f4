//! LISTEN (RFC 9293 §3.10.7.2).

use crate::tcp::segment::Segment;

/// What a segment for a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// A SYN: somebody wants a connection.
    Syn,
    /// An ACK of something that we have never sent, or have sent without remembering it.
    Ack,
    /// Nothing that is answered.
    Noise,
}

/// The steps of LISTEN, in the RFC's order.
pub fn on_segment_in_listen(segment: &Segment) -> Knock {
    if segment.rst() {
        // First: it can't be about anything that we know of.
        Knock::Noise
    } else if segment.acknowledges().is_some() {
        // Second.
        Knock::Ack
    } else if segment.syn() && !segment.fin() {
        // Third. What data the SYN carries isn't taken, and comes again (§3.10.7.2 leaves it open to queue it).
        Knock::Syn
    } else {
        // Fourth: no legitimate segment; SYN with FIN is a scanner's.
        Knock::Noise
    }
}
