//! Loss recovery: when to believe that something is lost, and when to send it again.
//!
//! Losses are found by SACK (RFC 6675) where the peer speaks it, by three duplicate ACKs (RFC 5681, RFC 6582) where it
//! doesn't, and by the retransmission timer (RFC 6298) where nothing else helps. All three end in the same way: entries
//! of the send queue are marked as lost, the congestion window is told once, and the output sends what is marked as
//! soon as the window has room. What is marked comes from here; the rest of TCP doesn't know how it was found.

mod scoreboard;

use core::ops::Range;

use scoreboard::Scoreboard;

use super::{
    congestion::{CongestionControl, Signal},
    send_queue::{Acknowledged, Mark, SendQueue},
};
use crate::time::Instant;

/// Duplicate ACKs, or sacked segments above one that is not, that mean a loss (RFC 5681 §3.2, RFC 6675 §2).
pub const DUP_THRESH: usize = 3;

/// What has been lost, and how far the repair has come.
#[derive(Debug, Default)]
pub struct Recovery {
    phase: Phase,
    /// RecoveryPoint (RFC 6675 §5), `recover` (RFC 6582 §3.2): SND.NXT when the loss was found.
    point: u64,
    /// Duplicate ACKs since SND.UNA moved: without SACK, each stands for one segment that has left the network.
    duplicate_acks: usize,
    /// The first retransmission of a recovery goes out whatever the window says (RFC 6675 §5, step 4.3).
    must_retransmit: bool,
    /// The one rescue retransmission of a recovery was sent (RFC 6675 §5, RescueRxt).
    rescued: bool,
    scoreboard: Scoreboard,
    transmissions: u64,
}

/// How the connection fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is known to be lost.
    #[default]
    Open,
    /// Duplicate ACKs or SACKs told of a loss.
    FastRecovery,
    /// The retransmission timer expired.
    Loss,
}

impl Recovery {
    /// How the connection fares.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes that are believed to be on their way (RFC 6675 §4, pipe).
    pub fn pipe(&self, queue: &SendQueue, mss: usize) -> usize {
        queue.in_flight().saturating_sub(self.duplicate_acks * mss)
    }

    /// The peer's SACK blocks, as stream offsets. Returns whether they tell something new.
    pub fn on_sack(&mut self, queue: &mut SendQueue, blocks: impl Iterator<Item = Range<u64>>) -> bool {
        let mut news = false;
        for block in blocks {
            news |= self.scoreboard.sack(queue, block);
        }
        news
    }

    /// A duplicate ACK as RFC 5681 §2 defines it, from a peer without SACK.
    pub fn on_duplicate_ack(&mut self, queue: &SendQueue) {
        self.duplicate_acks = (self.duplicate_acks + 1).min(queue.sent_entries());
    }

    /// SND.UNA moved to `una`. Call before [`find_losses`](Self::find_losses).
    pub fn on_ack(&mut self, queue: &mut SendQueue, una: u64, acked: &Acknowledged, sack: bool) {
        self.scoreboard.on_ack(acked);
        if una >= self.point || self.phase == Phase::Open {
            self.phase = Phase::Open;
            self.duplicate_acks = 0;
            self.must_retransmit = false;
            return;
        }
        // Those that left the network above the hole may be among what is acknowledged now.
        self.duplicate_acks = self.duplicate_acks.saturating_sub(acked.entries.saturating_sub(1));
        if !sack && self.phase == Phase::FastRecovery {
            // A partial ACK: the segment after it is lost, too (RFC 6582 §3.2, step 3).
            if queue.get(0).is_some_and(|entry| entry.transmissions == 1) {
                queue.set_mark(0, Mark::Lost);
            }
            self.must_retransmit = true;
        }
    }

    /// Marks what the last ACK shows to be lost, and starts a recovery if none is under way.
    pub fn find_losses(
        &mut self,
        now: Instant,
        queue: &mut SendQueue,
        una_nxt: Range<u64>,
        mss: usize,
        congestion: &mut dyn CongestionControl,
    ) {
        let in_flight = queue.outstanding();
        let mut found = self.scoreboard.find_losses(queue, mss);
        // RFC 6582 §3.2, step 1: duplicates of the data that was just repaired are no news.
        let fresh = una_nxt.start > self.point || self.point == 0;
        if self.phase == Phase::Open && self.duplicate_acks >= DUP_THRESH && fresh && queue.has_outstanding()
        {
            queue.set_mark(0, Mark::Lost);
            found = true;
        }
        if found && self.phase == Phase::Open {
            self.phase = Phase::FastRecovery;
            self.point = una_nxt.end;
            self.must_retransmit = true;
            self.rescued = false;
            congestion.on_congestion(now, Signal::Loss, in_flight);
        }
    }

    /// The retransmission timer expired: all that is outstanding counts as lost. What the peer sacked does, too: it may
    /// have thrown it away since (RFC 2018 §8); what it still has, the next SACKs tell.
    pub fn on_timeout(
        &mut self,
        now: Instant,
        queue: &mut SendQueue,
        nxt: u64,
        congestion: &mut dyn CongestionControl,
    ) {
        if self.phase == Phase::Loss {
            congestion.restart_from_one_segment();
        } else {
            congestion.on_congestion(now, Signal::Timeout, queue.outstanding());
        }
        for index in 0..queue.sent_entries() {
            queue.set_mark(index, Mark::Lost);
        }
        self.phase = Phase::Loss;
        self.point = nxt;
        self.duplicate_acks = 0;
        self.must_retransmit = true;
        self.rescued = true;
        self.scoreboard.forget();
    }

    /// The path carries smaller segments only: those that are larger were lost, and congestion is not why.
    pub fn on_smaller_mss(&mut self, queue: &mut SendQueue, mss: usize) {
        for index in 0..queue.sent_entries() {
            if queue.get(index).is_some_and(|entry| entry.len > mss && entry.mark == Mark::InFlight) {
                queue.set_mark(index, Mark::Lost);
            }
        }
        self.must_retransmit = true;
    }

    /// The entry to send again next, if its frame is here; and whether it goes whatever the window says.
    pub fn next_retransmission(&mut self, queue: &SendQueue) -> Option<(usize, bool)> {
        let index = self.scoreboard.first_lost(queue)?;
        Some((index, self.must_retransmit))
    }

    /// When all is sent, all losses are repaired and still a hole is there, one more copy of the last segment gets ACKs
    /// to flow again (RFC 6675 §5, NextSeg rule 4).
    pub fn rescue(&mut self, queue: &SendQueue) -> Option<usize> {
        if self.phase != Phase::FastRecovery || self.rescued || queue.sacked() == 0 {
            return None;
        }
        let index = (0..queue.sent_entries())
            .rev()
            .find(|&index| queue.get(index).is_some_and(|entry| entry.mark == Mark::InFlight))?;
        self.rescued = true;
        queue.get(index).filter(|entry| entry.is_home()).map(|_| index)
    }

    /// A segment goes out; returns the number of its transmission.
    pub fn on_transmit(&mut self, start: u64, again: bool) -> u64 {
        self.transmissions += 1;
        if again {
            self.must_retransmit = false;
            self.scoreboard.on_retransmit(start, self.transmissions);
        }
        self.transmissions
    }
}
