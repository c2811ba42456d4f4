//! What loss recovery tells for statistics.

use super::Recovery;
use crate::time::Duration;

/// Since the connection was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Sequence numbers.
    pub(super) delivered: u64,
    /// Segments sent again.
    pub(super) retransmitted: u64,
    /// ACKs with a DSACK.
    pub(super) dsacks: u64,
    /// Segments that DSACKs have told, as far as they were sent again.
    pub(super) dsacked_segments: u64,
}

impl Recovery {
    /// Sequence numbers that the peer has told to have, in order or not, since the connection was opened. Never falls.
    pub fn delivered(&self) -> u64 {
        self.counts.delivered
    }

    /// Segments that were marked as lost since the connection was opened.
    pub fn segments_lost(&self) -> u64 {
        self.scoreboard.marked()
    }

    /// DSACKs that came since the connection was opened (RFC 2883).
    pub fn dsacks(&self) -> u64 {
        self.counts.dsacks
    }

    /// Reductions of the window that were undone because nothing had been lost.
    pub fn undone(&self) -> u64 {
        self.undo.count()
    }

    /// Tail loss probes sent (RFC 8985 §7.3).
    pub fn probes(&self) -> u64 {
        self.tlp.count()
    }

    /// Whether segments are known to overtake each other (RFC 8985 §5.3, RACK.reordering_seen).
    pub fn reordering_seen(&self) -> bool {
        self.rack.reordering_seen()
    }

    /// How long a segment that was overtaken may take longer than the one that overtook it (RFC 8985 §5.3, RACK.reo_wnd).
    pub fn reo_wnd(&self) -> Duration {
        self.rack.reo_wnd()
    }

    /// How fast the network delivered lately, in bytes per second, and whether the application was what limited it.
    pub fn delivery_rate(&self) -> Option<(u64, bool)> {
        self.rate.latest()
    }
}
