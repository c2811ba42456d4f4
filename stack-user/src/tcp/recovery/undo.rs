//! Undoing a reduction that was for nothing: what was sent again had arrived the first time.
//!
//! Three things tell: DSACKs for all that was sent again (RFC 3708 §2), an ACK that echoes the timestamp of the first
//! transmission (Eifel, RFC 3522), and F-RTO. The response is RFC 4015's.

use crate::time::Instant;

/// What was sent again since the last reduction.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// A reduction that may be undone.
    armed: bool,
    /// SND.UNA then: what is below was not sent again because of it.
    from: u64,
    /// When the first segment was sent again, until the ACK that tells which copy it answers (RetransmitTS in RFC 3522).
    first_at: Option<Instant>,
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

    /// A segment goes out again.
    pub(super) fn on_retransmit(&mut self, now: Instant) {
        if !self.armed {
            return;
        }
        if !self.any {
            self.first_at = Some(now);
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

    /// The first ACK of something since a segment was sent again: whether it answers an earlier copy (RFC 3522 §3.2, step
    /// 5).
    pub(super) fn on_advance(&mut self, answered_at: Option<Instant>) -> bool {
        let first_at = self.first_at.take();
        self.armed && first_at.zip(answered_at).is_some_and(|(first, answered)| answered < first)
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
