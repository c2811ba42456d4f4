//! The SACK scoreboard (RFC 6675 §3, RFC 8985 §4 (1)): which of the sent segments the peer has, and which are lost. The marks themselves
//! are in the send queue.
//!
//! What it costs: a SACK block is found by binary search. Each segment that it newly covers costs O(1), once, and what
//! it repeats is skipped by runs, at O(log n) amortized per block however the blocks are cut. A loss costs O(log n)
//! when it is marked, and again when the segment is sent. What goes through all of the window, reneging, is looked after
//! once in a window.

use core::{cmp::Reverse, ops::Range};
use std::collections::BinaryHeap;

use super::delivery::Losses;
use crate::tcp::send_queue::{Entry, Mark, SendQueue};

/// What is known beside the marks in the send queue.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    /// Where the lost segments start, the lowest first: they are repaired in that order (RFC 6675 §4, NextSeg). Those
    /// that are sacked or acknowledged instead are dropped when they come up.
    lost: BinaryHeap<Reverse<u64>>,
    /// How many segments were ever marked as lost.
    marked: u64,
    /// What they were like.
    pub(super) losses: Losses,
    /// Entries and runs that were looked at.
    #[cfg(test)]
    pub(super) work: usize,
}

impl Scoreboard {
    /// Nothing is in flight, and so many segments were once marked as lost.
    pub(super) fn resume(marked: u64) -> Self {
        Self { marked, ..Self::default() }
    }

    /// The peer has `block` (RFC 2018 §5); `delivered` is told of each segment for which that is new. Segments that the block covers
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
        if let Some(entry) = queue.get(index).filter(|entry| entry.mark != Mark::Lost) {
            let start = entry.start;
            self.losses.on_lost(entry);
            queue.set_mark(index, Mark::Lost);
            self.lost.push(Reverse(start));
            self.marked += 1;
        }
    }

    /// Segments that were marked as lost since the connection was opened.
    pub(super) fn marked(&self) -> u64 {
        self.marked
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
        #[cfg(test)]
        {
            self.work += queue.sent_entries();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::Umem,
        rng::Rng,
        tcp::send_queue::{Layout, Transmission},
        time::Instant,
    };

    const LEN: u64 = 10;

    /// `n` segments that were sent.
    fn sent(n: u64) -> (Umem, SendQueue) {
        let mut pool = Umem::on_heap(8 * n as u32).expect("memory");
        let mut queue = SendQueue::default();
        let layout = Layout { payload_at: 0, mss: LEN as usize };
        assert_eq!(queue.write(&mut pool, layout, &vec![0; (n * LEN) as usize]), (n * LEN) as usize);
        for index in 0..n as usize {
            let sent = Transmission { order: index as u64 + 1, ..Transmission::default() };
            let frame = queue.take_for_transmission(index, Instant::ZERO, sent).expect("its frame");
            queue.complete(&mut pool, frame.into_completed(), index as u64 * LEN);
        }
        (pool, queue)
    }

    /// Nothing is sacked any more.
    fn forget(scoreboard: &mut Scoreboard, queue: &mut SendQueue) {
        scoreboard.renege(queue);
        scoreboard.reinstate(queue);
        scoreboard.work = 0;
    }

    /// The run of sacked segments around `index`, as a receiver reports it (RFC 2018 §4).
    fn run(queue: &SendQueue, index: usize) -> Range<u64> {
        let sacked = |i: usize| queue.get(i).is_some_and(|entry| entry.mark == Mark::Sacked);
        let first = (0..index).rev().take_while(|&i| sacked(i)).last().unwrap_or(index);
        let last = (index + 1..).take_while(|&i| sacked(i)).last().unwrap_or(index);
        first as u64 * LEN..(last as u64 + 1) * LEN
    }

    /// Segments arrive in 10 000 orders, each ACK has the newest block and repeats two before it (RFC 2018 §4): what is
    /// looked at is never more than a few entries for a block.
    #[test]
    fn no_order_of_arrival_makes_sacks_dear() {
        const SEGMENTS: usize = 64;
        let (_pool, mut queue) = sent(SEGMENTS as u64);
        let mut scoreboard = Scoreboard::default();
        let mut rng = Rng::from_seed(1);
        let bit_reversed = |i: usize| (i as u8).reverse_bits() as usize >> 2;
        for permutation in 0..10_000 {
            let mut order: Vec<usize> = match permutation {
                0 => (0..SEGMENTS).collect(),
                1 => (0..SEGMENTS).rev().collect(),
                2 => (0..SEGMENTS).step_by(2).chain((1..SEGMENTS).step_by(2)).collect(),
                3 => (0..SEGMENTS).step_by(2).chain((1..SEGMENTS).step_by(2).rev()).collect(),
                4 => (0..SEGMENTS).map(bit_reversed).collect(),
                _ => (0..SEGMENTS).collect(),
            };
            for i in (1..SEGMENTS).filter(|_| permutation > 4) {
                order.swap(i, rng.below(i as u64 + 1) as usize);
            }
            let mut blocks = 0;
            let mut recent = Vec::new();
            for &index in &order {
                recent.insert(0, index);
                recent.truncate(3);
                for &index in &recent {
                    let block = run(&queue, index);
                    scoreboard.sack(&mut queue, block, |_| {});
                    blocks += 1;
                }
            }
            assert_eq!(queue.sacked_entries(), SEGMENTS);
            let bound = SEGMENTS + 3 * blocks;
            assert!(scoreboard.work <= bound, "permutation {permutation}: {} for {blocks}", scoreboard.work);
            forget(&mut scoreboard, &mut queue);
        }
    }

    #[test]
    fn a_block_that_is_repeated_costs_nothing_to_speak_of() {
        let (_pool, mut queue) = sent(1000);
        let mut scoreboard = Scoreboard::default();
        // Crumbs first, so that nothing is known to be one run.
        for i in (1..1000).step_by(2).chain((2..1000).step_by(2)) {
            scoreboard.sack(&mut queue, i * LEN..(i + 1) * LEN, |_| {});
        }
        scoreboard.work = 0;
        for _ in 0..10_000 {
            scoreboard.sack(&mut queue, LEN..1000 * LEN, |_| panic!("nothing is new"));
        }
        assert!(scoreboard.work < 12_000, "{} for 10 000 blocks", scoreboard.work);
        // From any place on, and to any place.
        let mut rng = Rng::from_seed(2);
        scoreboard.work = 0;
        for _ in 0..10_000 {
            let (a, b) = (rng.below(999) + 1, rng.below(999) + 1);
            scoreboard.sack(&mut queue, a.min(b) * LEN..(a.max(b) + 1) * LEN, |_| panic!("nothing is new"));
        }
        assert!(scoreboard.work < 40_000, "{} for 10 000 blocks", scoreboard.work);
    }

    #[test]
    fn losses_are_repaired_from_the_lowest_on_rfc6675_4() {
        let (_pool, mut queue) = sent(10);
        let mut scoreboard = Scoreboard::default();
        for index in [7, 2, 5] {
            scoreboard.mark_lost(&mut queue, index);
            scoreboard.mark_lost(&mut queue, index);
        }
        scoreboard.check_invariants(&queue);
        assert_eq!(scoreboard.first_lost(&queue), Some(2));
        scoreboard.sack(&mut queue, 20..30, |_| {});
        assert_eq!(scoreboard.first_lost(&queue), Some(5), "sacked meanwhile");
        assert_eq!(scoreboard.reinstate(&mut queue), [(6, 50), (8, 70)]);
        assert_eq!((scoreboard.first_lost(&queue), queue.lost()), (None, 0));
    }

    #[test]
    fn what_is_reneged_upon_is_lost_rfc2018_8() {
        let (_pool, mut queue) = sent(10);
        let mut scoreboard = Scoreboard::default();
        scoreboard.sack(&mut queue, 30..60, |_| {});
        scoreboard.renege(&mut queue);
        scoreboard.check_invariants(&queue);
        assert_eq!((queue.sacked(), queue.lost(), scoreboard.first_lost(&queue)), (0, 30, Some(3)));
    }
}
