//! The SACK scoreboard (RFC 6675 §3): which of the sent segments the peer has, and which are lost. The marks themselves
//! are in the send queue.
//!
//! What it costs: a SACK block is found by binary search. Each segment that it newly covers costs O(1), once, and what
//! it repeats is skipped by runs, at O(log n) amortized per block however the blocks are cut. A loss costs O(log n)
//! when it is marked, and again when the segment is sent. So no sequence of ACKs makes one cost as much as the window.

use core::{cmp::Reverse, ops::Range};
use std::collections::BinaryHeap;

use crate::tcp::send_queue::{Entry, Mark, SendQueue};

/// What is known beside the marks in the send queue.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    /// Where the lost segments start, the lowest first: they are repaired in that order (RFC 6675 §4, NextSeg). Those
    /// that are sacked or acknowledged instead are dropped when they come up.
    lost: BinaryHeap<Reverse<u64>>,
    /// Entries and runs that were looked at.
    #[cfg(test)]
    pub(super) work: usize,
}

impl Scoreboard {
    /// The peer has `block`; `delivered` is told of each segment for which that is new. Segments that the block covers
    /// in part are not marked. Blocks that are not of the outstanding data change nothing.
    pub(super) fn sack(
        &mut self,
        queue: &mut SendQueue,
        block: Range<u64>,
        mut delivered: impl FnMut(&Entry),
    ) {
        let range = queue.sent_in(block);
        let Some(run_end) = range.end.checked_sub(1).and_then(|last| queue.get(last)).map(Entry::end) else {
            return;
        };
        let mut index = range.start;
        while index < range.end {
            #[cfg(test)]
            {
                self.work += 1;
            }
            match queue.get(index) {
                Some(entry) if entry.mark == Mark::Sacked => index = queue.skip_sacked(index),
                Some(entry) => {
                    delivered(entry);
                    queue.set_sacked(index, run_end);
                    index += 1;
                }
                None => return,
            }
        }
    }

    /// A segment is lost.
    pub(super) fn mark_lost(&mut self, queue: &mut SendQueue, index: usize) {
        if let Some(start) =
            queue.get(index).filter(|entry| entry.mark != Mark::Lost).map(|entry| entry.start)
        {
            queue.set_mark(index, Mark::Lost);
            self.lost.push(Reverse(start));
        }
    }

    /// The lowest lost segment.
    pub(super) fn first_lost(&mut self, queue: &SendQueue) -> Option<usize> {
        while let Some(&Reverse(start)) = self.lost.peek() {
            if let Some(index) = lost(queue, start) {
                return Some(index);
            }
            self.lost.pop();
        }
        None
    }

    /// A lost segment was cut in two: its tail is lost, too.
    pub(super) fn on_split(&mut self, queue: &SendQueue, tail: usize) {
        if let Some(entry) = queue.get(tail).filter(|entry| entry.mark == Mark::Lost) {
            self.lost.push(Reverse(entry.start));
        }
    }

    /// The segment that starts at `start` is sent again, so it is not the next to repair.
    pub(super) fn on_retransmit(&mut self, start: u64) {
        if self.lost.peek() == Some(&Reverse(start)) {
            self.lost.pop();
        }
    }

    /// What was taken for lost is not: it counts as in flight again. Returns order and start of each.
    pub(super) fn reinstate(&mut self, queue: &mut SendQueue) -> Vec<(u64, u64)> {
        let mut records = Vec::new();
        for Reverse(start) in core::mem::take(&mut self.lost) {
            if let Some(index) = lost(queue, start)
                && let Some(entry) = queue.get(index)
            {
                records.push((entry.order, entry.start));
                queue.set_mark(index, Mark::InFlight);
            }
        }
        records
    }

    /// The peer has thrown away what it had sacked (RFC 2018 §8): all of that is lost.
    pub(super) fn renege(&mut self, queue: &mut SendQueue) {
        for index in 0..queue.sent_entries() {
            if queue.get(index).is_some_and(|entry| entry.mark == Mark::Sacked) {
                self.mark_lost(queue, index);
            }
        }
        self.rebuild(queue);
    }

    /// Drops what is stale, so that reneging again and again does not pile it up.
    fn rebuild(&mut self, queue: &SendQueue) {
        self.lost.clear();
        let sent = (0..queue.sent_entries()).filter_map(|index| queue.get(index));
        self.lost.extend(sent.filter(|entry| entry.mark == Mark::Lost).map(|entry| Reverse(entry.start)));
    }

    /// Panics if the heap contradicts the queue.
    pub(super) fn check_invariants(&self, queue: &SendQueue) {
        let mut known: Vec<u64> = self
            .lost
            .iter()
            .map(|&Reverse(start)| start)
            .filter(|&start| lost(queue, start).is_some())
            .collect();
        known.sort_unstable();
        let sent = (0..queue.sent_entries()).filter_map(|index| queue.get(index));
        let marked: Vec<u64> =
            sent.filter(|entry| entry.mark == Mark::Lost).map(|entry| entry.start).collect();
        assert_eq!(known, marked, "each lost segment is known once");
    }
}

fn lost(queue: &SendQueue, start: u64) -> Option<usize> {
    let index = queue.find(start)?;
    queue.get(index).filter(|entry| entry.mark == Mark::Lost).map(|_| index)
}
