//! The SACK scoreboard (RFC 6675 §3): which of the sent segments the peer has, and which it must have missed.

use core::ops::Range;
use std::collections::VecDeque;

use super::DUP_THRESH;
use crate::tcp::send_queue::{Acknowledged, Mark, SendQueue};

/// What is known beside the marks in the send queue.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    /// Stream offset behind the highest sacked byte (RFC 6675 §2, HighSACK).
    highest_sacked: u64,
    /// Below this offset, everything that was sent once has been judged.
    judged: u64,
    /// No entry below this offset is marked as lost.
    first_lost: u64,
    /// The highest transmission number of a segment that was sent once and has arrived.
    delivered: u64,
    /// Retransmissions by number, with the offset of their entries: the oldest first.
    retransmissions: VecDeque<(u64, u64)>,
    /// Something arrived since losses were looked for.
    news: bool,
}

impl Scoreboard {
    /// The peer has `block`. Returns whether that is new. Blocks that are not of the outstanding data change nothing: a
    /// DSACK, an old one, or nonsense.
    pub(super) fn sack(&mut self, queue: &mut SendQueue, block: Range<u64>) -> bool {
        let mut news = false;
        for index in queue.sent_in(block) {
            let Some(entry) = queue.get(index).filter(|entry| entry.mark != Mark::Sacked) else { continue };
            self.highest_sacked = self.highest_sacked.max(entry.end());
            if entry.transmissions == 1 {
                self.delivered = self.delivered.max(entry.order);
            }
            queue.set_mark(index, Mark::Sacked);
            news = true;
        }
        self.news |= news;
        news
    }

    /// Something was acknowledged in order.
    pub(super) fn on_ack(&mut self, acked: &Acknowledged) {
        self.delivered = self.delivered.max(acked.order.unwrap_or(0));
        self.news = true;
    }

    /// A segment was sent again.
    pub(super) fn on_retransmit(&mut self, start: u64, order: u64) {
        self.retransmissions.push_back((order, start));
    }

    /// The marks were cleared.
    pub(super) fn forget(&mut self) {
        (self.highest_sacked, self.judged, self.first_lost) = (0, 0, 0);
        self.retransmissions.clear();
    }

    /// Marks the segments that must be lost; returns whether there are any.
    pub(super) fn find_losses(&mut self, queue: &mut SendQueue, mss: usize) -> bool {
        if !core::mem::take(&mut self.news) {
            return false;
        }
        let first = self.find_lost_segments(queue, mss);
        let again = self.find_lost_retransmissions(queue);
        first || again
    }

    /// IsLost (RFC 6675 §4): three sacked segments, or more than two segments' worth of sacked bytes, lie above it.
    fn find_lost_segments(&mut self, queue: &mut SendQueue, mss: usize) -> bool {
        let (mut segments, mut bytes) = (0, 0);
        let mut boundary = queue.sent_in(0..self.highest_sacked).end;
        while segments < DUP_THRESH && bytes <= (DUP_THRESH - 1) * mss {
            let Some(entry) = boundary.checked_sub(1).and_then(|index| queue.get(index)) else {
                return false;
            };
            boundary -= 1;
            if entry.mark == Mark::Sacked {
                segments += 1;
                bytes += entry.len;
            }
        }
        let Some(limit) = queue.get(boundary).map(|entry| entry.start) else { return false };
        let mut found = false;
        for index in queue.sent_in(self.judged..limit) {
            let once = |entry: &&crate::tcp::send_queue::Entry| {
                entry.mark == Mark::InFlight && entry.transmissions == 1
            };
            if queue.get(index).filter(once).is_some() {
                self.mark_lost(queue, index);
                found = true;
            }
        }
        self.judged = self.judged.max(limit);
        found
    }

    /// A retransmission is lost when something that was sent three transmissions later, or more, has arrived.
    fn find_lost_retransmissions(&mut self, queue: &mut SendQueue) -> bool {
        let mut found = false;
        while let Some(&(order, start)) = self.retransmissions.front() {
            let index = queue.find(start);
            let entry = index.and_then(|index| queue.get(index));
            let waits = entry.is_some_and(|entry| entry.order == order && entry.mark == Mark::InFlight);
            if waits && order + DUP_THRESH as u64 > self.delivered {
                break;
            }
            self.retransmissions.pop_front();
            if let Some(index) = index.filter(|_| waits) {
                self.mark_lost(queue, index);
                found = true;
            }
        }
        found
    }

    fn mark_lost(&mut self, queue: &mut SendQueue, index: usize) {
        if let Some(entry) = queue.get(index) {
            self.first_lost = self.first_lost.min(entry.start);
            queue.set_mark(index, Mark::Lost);
        }
    }

    /// The first lost entry whose frame is here.
    pub(super) fn first_lost(&mut self, queue: &SendQueue) -> Option<usize> {
        if queue.lost() == 0 {
            self.first_lost = u64::MAX;
            return None;
        }
        let lost = |index: &usize| queue.get(*index).is_some_and(|entry| entry.mark == Mark::Lost);
        let from = queue.sent_in(self.first_lost..u64::MAX).start;
        let from = if self.first_lost == u64::MAX { 0 } else { from };
        let mut candidates = (from..queue.sent_entries()).filter(lost);
        let first = candidates.next().or_else(|| (0..from).find(lost))?;
        self.first_lost = queue.get(first).map_or(0, |entry| entry.start);
        let home = |index: &usize| queue.get(*index).is_some_and(|entry| entry.is_home());
        Some(first).filter(home).or_else(|| candidates.find(home))
    }
}
