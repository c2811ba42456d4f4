//! Loss detection without SACK (RFC 5681 §3.2, RFC 6582): duplicate ACKs stand for segments that have arrived.

use super::DUP_THRESH;

/// Duplicate ACKs since SND.UNA moved.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NewReno {
    duplicates: usize,
    /// Segments that were outstanding when the first of them came: there can't be more of them, whatever is sent since
    /// (RFC 5681 §3.2). A peer that makes them up gets nothing for it.
    limit: usize,
    /// Bytes that counted as delivered for duplicate ACKs: the ACK that covers them tells nothing new (RFC 9937 §6.2).
    credited: usize,
}

impl NewReno {
    /// Segments that have left the network though SND.UNA did not move.
    pub(super) fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// A duplicate ACK, while so many segments are outstanding. Returns the bytes that it stands for.
    pub(super) fn on_duplicate_ack(&mut self, outstanding: usize, mss: usize) -> usize {
        if self.limit == 0 {
            self.limit = outstanding;
        }
        if self.duplicates >= self.limit {
            return 0;
        }
        self.duplicates += 1;
        self.credited += mss;
        mss
    }

    /// RFC 6582 §3.2, step 1, and RFC 5681 §3.2, step 2.
    pub(super) fn tells_loss(&self) -> bool {
        self.duplicates >= DUP_THRESH
    }

    /// SND.UNA moved over `bytes` in `entries` segments. Returns the bytes that duplicate ACKs had not told.
    pub(super) fn on_ack(&mut self, bytes: usize, entries: usize, recovering: bool) -> usize {
        let told = self.credited.min(bytes);
        if recovering {
            // Those that left the network above the hole may be among what is acknowledged now.
            self.duplicates = self.duplicates.saturating_sub(entries.saturating_sub(1));
            self.credited -= told;
            self.limit = 0;
        } else {
            self.forget();
        }
        bytes - told
    }

    /// A recovery has ended, or the timer expired.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
