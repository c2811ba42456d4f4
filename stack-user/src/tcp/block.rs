//! The variables of a connection's two sequence spaces (RFC 9293 §3.3.1).
//!
//! Beside the wrapping sequence numbers there are *stream offsets*: 64 bits, 0 for the first byte after SYN. The
//! queues work with offsets, the wire with sequence numbers, and only this file converts.

use super::seq::SeqNumber;

/// The send sequence space.
#[derive(Clone, Debug)]
pub struct SendSpace {
    /// ISS.
    pub iss: SeqNumber,
    /// SND.UNA: the oldest number that is not acknowledged.
    pub una: SeqNumber,
    /// SND.UNA as a stream offset.
    pub una_offset: u64,
    /// SND.NXT: the next number to send.
    pub nxt: SeqNumber,
    /// SND.WND, scaled: what the peer takes beyond SND.UNA. Unsigned, and wider than the header's field (RFC 9293 §3.1,
    /// MUST-1 and REC-1).
    pub wnd: usize,
    /// MAX.SND.WND: the largest window that the peer has offered (RFC 9293 §3.8.6.2.1, RFC 5961 §5).
    pub max_wnd: usize,
    /// SND.WL1: the sequence number of the segment that updated the window last.
    pub wl1: SeqNumber,
    /// SND.WL2: its acknowledgement number.
    pub wl2: SeqNumber,
    /// Snd.Wind.Shift (RFC 7323 §2.3).
    pub window_shift: u8,
    /// The largest payload that the peer takes, as its SYN says.
    pub peer_mss: u16,
}

/// The largest payload for a peer that does not say (RFC 9293 §3.7.1, MUST-15).
pub const DEFAULT_MSS: u16 = 536;

impl SendSpace {
    /// Nothing sent yet.
    pub fn new(iss: SeqNumber) -> Self {
        Self {
            iss,
            una: iss,
            una_offset: 0,
            nxt: iss,
            wnd: 0,
            max_wnd: 0,
            wl1: SeqNumber(0),
            wl2: SeqNumber(0),
            window_shift: 0,
            peer_mss: DEFAULT_MSS,
        }
    }

    /// The stream offset of a number that is neither before SND.UNA nor before the stream's start.
    pub fn offset(&self, seq: SeqNumber) -> u64 {
        self.una_offset + (seq - self.una) as u64
    }

    /// The sequence number of a stream offset.
    pub fn seq(&self, offset: u64) -> SeqNumber {
        SeqNumber(self.iss.0.wrapping_add(1).wrapping_add(offset as u32))
    }

    /// Our SYN is acknowledged: the stream starts.
    pub fn syn_acknowledged(&mut self) {
        self.una = self.iss + 1;
        self.una_offset = 0;
    }

    /// Moves SND.UNA on, and returns how far.
    pub fn acknowledge(&mut self, ack: SeqNumber) -> usize {
        let n = ack - self.una;
        self.una_offset += n as u64;
        self.una = ack;
        n
    }

    /// Takes over the window of a segment if it is newer than the last (RFC 9293 §3.10.7.4). One that acknowledges
    /// more is newer, whatever its sequence number. Returns whether the window changed.
    pub fn update_window(&mut self, seq: SeqNumber, ack: SeqNumber, window: usize) -> bool {
        let newer =
            self.wl1.before(seq) || (self.wl1 == seq && self.wl2.at_or_before(ack)) || ack.after(self.una);
        if !newer {
            return false;
        }
        let changed = self.wnd != window;
        self.wnd = window;
        self.max_wnd = self.max_wnd.max(window);
        self.wl1 = seq;
        self.wl2 = ack;
        changed
    }
}

/// The receive sequence space; by default, nothing has been received.
#[derive(Clone, Debug, Default)]
pub struct ReceiveSpace {
    /// IRS.
    pub irs: SeqNumber,
    /// RCV.NXT: the next number that we expect.
    pub nxt: SeqNumber,
    /// RCV.NXT as a stream offset.
    pub nxt_offset: u64,
    /// RCV.NXT + RCV.WND: the right edge of the window, as far as we have ever told the peer.
    pub edge: SeqNumber,
    /// The right edge that we mean. What we told may lie up to a unit of the window's scale beyond it; were that the
    /// start of the next rounding, a peer that sends single bytes would move the edge by as much with each.
    pub limit: SeqNumber,
    /// Last.ACK.sent (RFC 7323 §4.3): the latest acknowledgement number that we sent.
    pub last_ack_sent: SeqNumber,
    /// Rcv.Wind.Shift (RFC 7323 §2.3).
    pub window_shift: u8,
}

impl ReceiveSpace {
    /// The peer's SYN came with this number.
    pub fn synchronize(&mut self, irs: SeqNumber, window: usize) {
        self.irs = irs;
        self.nxt = irs + 1;
        self.edge = self.nxt + window;
        self.limit = self.edge;
        self.last_ack_sent = self.nxt;
    }

    /// RCV.WND.
    pub fn wnd(&self) -> usize {
        self.edge - self.nxt
    }

    /// Moves RCV.NXT on.
    pub fn advance(&mut self, n: usize) {
        self.nxt += n;
        self.nxt_offset += n as u64;
        // Only a FIN can lie beyond the window: it needs no room.
        self.edge = self.edge.max(self.nxt);
        self.limit = self.limit.max(self.nxt);
    }

    /// The stream offset of a number in or near the window. Numbers before the stream's start give `None`.
    pub fn offset(&self, seq: SeqNumber) -> Option<u64> {
        self.nxt_offset.checked_add_signed(seq.distance(self.nxt).into())
    }

    /// The sequence number of a stream offset.
    pub fn seq(&self, offset: u64) -> SeqNumber {
        SeqNumber(self.irs.0.wrapping_add(1).wrapping_add(offset as u32))
    }

    /// The acceptability test of RFC 9293 §3.4 (table 6) for a segment of `len` sequence numbers.
    ///
    /// Two cases are wider than the table. A segment without data at the right edge is acceptable: its sender has
    /// filled the window, and its ACK counts even if what filled the window was lost. And so is data at RCV.NXT
    /// when the window is closed, for its ACK (§3.10.7.4 asks for that); its data is trimmed off.
    pub fn is_acceptable(&self, seq: SeqNumber, len: usize) -> bool {
        if len == 0 {
            return seq.at_or_after(self.nxt) && seq.at_or_before(self.edge);
        }
        let last = seq + (len - 1);
        let starts_inside = seq.at_or_after(self.nxt) && seq.before(self.edge);
        let ends_inside = last.at_or_after(self.nxt) && last.before(self.edge);
        let covers_all = seq.at_or_before(self.nxt) && last.at_or_after(self.nxt);
        starts_inside || ends_inside || covers_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(window: usize) -> ReceiveSpace {
        let mut space = ReceiveSpace::default();
        space.synchronize(SeqNumber(u32::MAX - 1), window);
        assert_eq!(space.nxt, SeqNumber(u32::MAX));
        space
    }

    #[test]
    fn acceptability_rfc9293_3_4() {
        let rcv = space(100);
        let at = |n: i32| SeqNumber(rcv.nxt.0.wrapping_add_signed(n));
        assert!(rcv.is_acceptable(at(0), 0) && rcv.is_acceptable(at(99), 0));
        assert!(rcv.is_acceptable(at(100), 0), "the peer filled the window");
        assert!(!rcv.is_acceptable(at(101), 0) && !rcv.is_acceptable(at(-1), 0));
        assert!(rcv.is_acceptable(at(-5), 6) && !rcv.is_acceptable(at(-5), 5));
        assert!(rcv.is_acceptable(at(99), 50) && !rcv.is_acceptable(at(100), 1));
        assert!(rcv.is_acceptable(at(-10), 200), "larger than the window on both sides");

        let closed = space(0);
        assert!(closed.is_acceptable(closed.nxt, 0));
        assert!(closed.is_acceptable(closed.nxt, 1), "for the sake of its ACK");
        assert!(!closed.is_acceptable(closed.nxt + 1, 1) && !closed.is_acceptable(closed.nxt - 1, 1));
    }

    #[test]
    fn offsets_go_on_where_numbers_wrap() {
        let mut rcv = space(1 << 20);
        assert_eq!(rcv.offset(rcv.nxt), Some(0));
        assert_eq!(rcv.offset(rcv.nxt - 1), None);
        rcv.advance(70_000);
        assert_eq!(rcv.offset(rcv.nxt + 5), Some(70_005));
        assert_eq!(rcv.seq(70_005), rcv.nxt + 5);
    }

    #[test]
    fn an_older_segment_does_not_update_the_window_rfc9293_3_10_7_4() {
        let mut snd = SendSpace::new(SeqNumber(0));
        snd.wl1 = SeqNumber(10);
        snd.wl2 = SeqNumber(5);
        snd.una = SeqNumber(5);
        assert!(!snd.update_window(SeqNumber(9), SeqNumber(5), 1), "older sequence number");
        assert!(!snd.update_window(SeqNumber(10), SeqNumber(4), 1), "older acknowledgement");
        assert!(snd.update_window(SeqNumber(10), SeqNumber(5), 2));
        assert!(snd.update_window(SeqNumber(9), SeqNumber(6), 3), "acknowledges more");
        assert_eq!((snd.wnd, snd.max_wnd), (3, 3));
    }
}
