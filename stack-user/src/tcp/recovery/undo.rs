//! Undoing a reduction that was for nothing: what was sent again had arrived the first time.
//!
//! Three things tell: DSACKs for all that was sent again (RFC 3708 §2), an ACK that echoes the timestamp of the first
//! transmission (Eifel, RFC 3522), and F-RTO. The response is RFC 4015's.

use crate::time::Instant;

/// What was sent again since the last reduction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Undo {
    /// A reduction that may be undone.
    armed: bool,
    /// SND.UNA then: what is below was not sent again because of it.
    from: u64,
    /// The stream offset of the first segment that was sent again, and when that was (RetransmitTS in RFC 3522), until the
    /// ACK that tells which copy it answers.
    first: Option<(u64, Instant)>,
    /// Segments sent again that no DSACK was seen for.
    unexplained: usize,
    /// Any was sent again.
    any: bool,
    /// Reductions undone.
    count: u64,
}

impl Undo {
    /// The window was reduced.
    pub(super) fn arm(&mut self, una: u64) {
        *self = Self { armed: true, from: una, count: self.count, ..Self::default() };
    }

    /// The window was reduced for a reason that can't turn out to be none.
    pub(super) fn disarm(&mut self) {
        *self = Self { count: self.count, ..Self::default() };
    }

    /// The segment that starts at `start` goes out again.
    pub(super) fn on_retransmit(&mut self, now: Instant, start: u64) {
        if !self.armed {
            return;
        }
        if !self.any {
            self.first = Some((start, now));
        }
        self.any = true;
        self.unexplained += 1;
    }

    /// The peer got `segments` twice that end at `end`. Returns whether all that was sent again is now known to have
    /// been for nothing (RFC 3708 §2).
    pub(super) fn on_dsack(&mut self, end: u64, segments: usize) -> bool {
        if !self.armed || !self.any || end <= self.from {
            return false;
        }
        self.unexplained = self.unexplained.saturating_sub(segments);
        self.unexplained == 0
    }

    /// SND.UNA moved to `una`. The first ACK that covers the first segment that was sent again decides: whether it answers
    /// an earlier copy (RFC 3522 §3.2, steps 4 and 5). One of what lies below it, which an earlier recovery had repaired,
    /// does not.
    pub(super) fn on_advance(&mut self, una: u64, answered_at: Option<Instant>) -> bool {
        let Some((_, first_at)) = self.first.take_if(|&mut (start, _)| una > start) else { return false };
        self.armed && answered_at.is_some_and(|answered| answered < first_at)
    }

    /// It is undone.
    pub(super) fn done(&mut self) {
        *self = Self { count: self.count + 1, ..Self::default() };
    }

    /// Reductions undone so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// A reduction when SND.UNA was 1000, and two segments sent again at 10 and 20 ms.
    fn recovering() -> Undo {
        let mut undo = Undo::default();
        undo.arm(1000);
        undo.on_retransmit(at(10), 1000);
        undo.on_retransmit(at(20), 2000);
        undo
    }

    #[test]
    fn all_must_have_come_twice_rfc3708_2() {
        let mut undo = recovering();
        assert!(!undo.on_dsack(2000, 1));
        assert!(!undo.on_dsack(1000, 1), "of an earlier recovery");
        assert!(undo.on_dsack(3000, 1));
        assert!(recovering().on_dsack(3000, 2), "both at once");
        let mut nothing = Undo::default();
        nothing.arm(0);
        assert!(!nothing.on_dsack(2000, 1), "nothing was sent again");
    }

    #[test]
    fn the_first_ack_decides_rfc3522_3_2() {
        assert!(recovering().on_advance(2000, Some(at(9))));
        assert!(!recovering().on_advance(2000, Some(at(10))));
        assert!(!recovering().on_advance(2000, None), "no timestamps");
        let mut undo = recovering();
        assert!(!undo.on_advance(2000, Some(at(15))));
        assert!(!undo.on_advance(2000, Some(at(9))), "a later one may be an old ACK");
    }

    #[test]
    fn an_ack_below_what_was_sent_again_does_not_decide_rfc3522_3_2() {
        let mut undo = Undo::default();
        undo.arm(1000);
        undo.on_retransmit(at(10), 3000);
        assert!(!undo.on_advance(2000, Some(at(9))) && !undo.on_advance(3000, Some(at(9))));
        assert!(undo.on_advance(3001, Some(at(9))), "a part of it is enough");
    }

    #[test]
    fn what_is_done_or_disarmed_is_not_undone_again_rfc4015_3() {
        let mut undo = recovering();
        undo.done();
        assert!(!undo.on_advance(2000, Some(at(9))) && !undo.on_dsack(3000, 2));
        assert_eq!(undo.count(), 1);
        let mut undo = recovering();
        undo.disarm();
        assert!(!undo.on_advance(2000, Some(at(9))) && !undo.on_dsack(3000, 2));
    }
}
