//! The receive window: how much we offer, and when we tell that it has grown.

use super::{block::ReceiveSpace, options::MAX_WINDOW_SCALE, seq::SeqNumber};

/// The shift that makes a buffer of this size fit in the header's 16 bits (RFC 7323 §2.3).
pub fn shift_for(buffer: usize) -> u8 {
    (0..MAX_WINDOW_SCALE).find(|&shift| buffer >> shift <= usize::from(u16::MAX)).unwrap_or(MAX_WINDOW_SCALE)
}

/// The window of a SYN, which is never scaled (RFC 7323 §2.2).
pub fn for_syn(buffer: usize) -> u16 {
    buffer.try_into().unwrap_or(u16::MAX)
}

/// The right edge to offer when `free` bytes of a buffer of `buffer` bytes are free.
///
/// It never moves left (RFC 9293 §3.8.6, SHLD-14), stays where it is while nobody reads (§3.8.6.1, MAY-8), and it moves right by a worthwhile step only: a segment, or half of
/// the buffer if that is less (§3.8.6.2.2, MUST-39).
pub fn edge_to_offer(rcv: &ReceiveSpace, free: usize, buffer: usize, mss: usize) -> SeqNumber {
    let possible = rcv.nxt + free;
    let gain = possible - rcv.limit;
    if gain >= mss.min(buffer / 2) { possible } else { rcv.limit }
}

/// The header's window field for an edge. Rounded up: rounded down it would take back what was offered before. The
/// buffer has to bear up to 2^shift - 1 bytes more, and no more than that, since rounding starts from the edge that is
/// meant. So the edge that is told can go back by less than a unit, which senders have to bear (RFC 7323 §2.4).
pub fn field(rcv: &ReceiveSpace, edge: SeqNumber) -> u16 {
    let unit = 1 << rcv.window_shift;
    (edge - rcv.nxt).div_ceil(unit).try_into().unwrap_or(u16::MAX)
}

/// Whether the application has read so much that the peer should know at once: it has no more than half left of what it was ever `told` it
/// may send, and gains two segments, or half of the buffer. Whoever has more left hears of it with the next ACK.
pub fn update_is_due(rcv: &ReceiveSpace, free: usize, buffer: usize, told: usize, mss: usize) -> bool {
    let gain = edge_to_offer(rcv, free, buffer, mss) - rcv.limit;
    let left = rcv.limit - rcv.nxt;
    gain > 0 && left * 2 <= told && (gain >= 2 * mss || gain * 2 >= buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(offered: usize, shift: u8) -> ReceiveSpace {
        let mut rcv = ReceiveSpace::default();
        rcv.synchronize(SeqNumber(0), offered);
        rcv.window_shift = shift;
        rcv
    }

    #[test]
    fn the_shift_is_as_small_as_can_be_rfc7323_2_3() {
        assert_eq!((shift_for(65_535), shift_for(65_536), shift_for(1 << 20)), (0, 1, 5));
        assert_eq!(shift_for(usize::MAX), 14);
    }

    #[test]
    fn the_edge_never_moves_left_and_moves_right_in_steps_must_39() {
        let rcv = space(1000, 0);
        assert_eq!(edge_to_offer(&rcv, 500, 8000, 1460), rcv.edge);
        assert_eq!(edge_to_offer(&rcv, 1000 + 1459, 8000, 1460), rcv.edge);
        assert_eq!(edge_to_offer(&rcv, 1000 + 1460, 8000, 1460), rcv.nxt + 2460);
        assert_eq!(edge_to_offer(&rcv, 1000 + 500, 1000, 1460), rcv.nxt + 1500, "a small buffer: by halves");
    }

    #[test]
    fn the_field_rounds_up() {
        let rcv = space(1000, 5);
        assert_eq!(field(&rcv, rcv.edge), 32);
        assert_eq!(field(&rcv, rcv.nxt), 0);
    }

    #[test]
    fn an_update_is_due_when_the_peer_gains_much() {
        let due = |offered, free, buffer, told| update_is_due(&space(offered, 0), free, buffer, told, 1460);
        assert!(!due(0, 1460, 100_000, 100_000));
        assert!(due(0, 2920, 100_000, 100_000));
        assert!(due(0, 1000, 2000, 2000) && !due(0, 999, 2000, 2000), "a small buffer: by halves");

        assert!(!due(60_000, 100_000, 100_000, 100_000), "the next ACK will tell");
        assert!(!due(65_000, 1_000_000, 1_000_000, 65_535), "what a SYN could not say is no shortage");
        assert!(due(32_000, 1_000_000, 1_000_000, 65_535));
        assert!(!due(0, 0, 1, 1));
        // What was told lay 127 bytes beyond what was meant, and the peer was told less than that since.
        let mut rcv = space(2000, 7);
        rcv.nxt += 1104;
        rcv.edge = rcv.nxt + 1023;
        assert!(update_is_due(&rcv, 2000, 2000, 2000, 1460));
    }
}
