//! What the peer has taken in leaves the queue.

use super::{Entry, Mark, SendQueue, Slot};
use crate::{frame::FramePool, time::Instant};

/// What an acknowledgement took from the queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledged {
    /// Entries that are acknowledged as a whole.
    pub entries: usize,
    /// When the latest of them was sent; `None` if one was sent more than once (Karn's algorithm) or all were sacked.
    pub sent_at: Option<Instant>,
    /// Sequence numbers that were not sacked before.
    pub delivered: usize,
    /// FIN is acknowledged.
    pub fin: bool,
    /// Sequence numbers of those that were sent more than once.
    pub repaired: usize,
}

impl SendQueue {
    /// Everything before `una` is acknowledged. `delivered` is told of the entries that were not sacked before, and how many
    /// sequence numbers they have: one by one, but of a run of those that were sent once and are on their way, after the first the last stands for all,
    /// as the end of what was sent last.
    pub fn acknowledge<P: FramePool>(
        &mut self,
        pool: &mut P,
        una: u64,
        mut delivered: impl FnMut(&Entry, usize),
    ) -> Acknowledged {
        let mut acked = Acknowledged::default();
        let mut tell = |acked: &mut Acknowledged, entry: &Entry, len: usize| {
            acked.delivered += len;
            if entry.transmissions == 1 {
                acked.sent_at = acked.sent_at.max(Some(entry.sent_at));
            }
            delivered(entry, len);
        };
        // Entries on their way for the first time: sequence numbers of those behind the first, and the last of them.
        let mut run: Option<(usize, &Entry)> = None;
        for entry in self.entries.range_mut(..self.next) {
            let len = entry.sequence_len();
            if entry.start + len as u64 > una {
                break;
            }
            acked.entries += 1;
            acked.fin |= entry.fin;
            self.sent -= len;
            self.bytes -= entry.len;
            self.chunks -= usize::from(entry.chunks);
            if let Slot::Home(frame) = core::mem::replace(&mut entry.slot, Slot::Away) {
                pool.release_tx(frame);
            }
            let entry: &Entry = entry;
            let once = entry.transmissions == 1;
            let goes_on = once && entry.mark == Mark::InFlight;
            if goes_on && let Some((behind, last)) = &mut run {
                (*behind, *last) = (*behind + len, entry);
                continue;
            }
            acked.repaired += if once { 0 } else { len };
            match entry.mark {
                Mark::Sacked => {
                    self.sacked -= len;
                    self.sacked_entries -= 1;
                    continue;
                }
                Mark::Lost => self.lost -= len,
                Mark::InFlight => {}
            }
            if let Some((behind @ 1.., last)) = run {
                tell(&mut acked, last, behind);
            }
            tell(&mut acked, entry, len);
            run = goes_on.then_some((0, entry));
        }
        if let Some((behind @ 1.., last)) = run {
            tell(&mut acked, last, behind);
        }
        self.entries.drain(..acked.entries);
        self.next -= acked.entries;
        self.completes = self.completes.saturating_sub(acked.entries);
        if acked.repaired > 0 {
            acked.sent_at = None;
        }
        acked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::Umem,
        tcp::send_queue::{Layout, Transmission},
    };

    const MSS: usize = 10;

    fn transmit(pool: &mut Umem, queue: &mut SendQueue, index: usize, ms: u64) {
        let start = queue.get(index).expect("an entry").start;
        let transmission = Transmission { order: ms + 1, ..Transmission::default() };
        let frame = queue.take_for_transmission(index, Instant::from_millis(ms), transmission);
        queue.complete(pool, frame.expect("its frame").into_completed(), start);
    }

    /// Nine segments, sent a millisecond after each other.
    fn nine() -> (Umem, SendQueue) {
        let (mut pool, mut queue) = (Umem::on_heap(64).expect("memory"), SendQueue::default());
        let layout = Layout { payload_at: 66, mss: MSS };
        assert_eq!(queue.write(&mut pool, layout, &[0; 9 * MSS]), 9 * MSS);
        (0..9).for_each(|index| transmit(&mut pool, &mut queue, index, index as u64));
        (pool, queue)
    }

    /// Acknowledges `una`, and returns what was told of: where entries start, and sequence numbers.
    fn told(pool: &mut Umem, queue: &mut SendQueue, una: u64) -> (Vec<(u64, usize)>, Acknowledged) {
        let mut told = Vec::new();
        let acked = queue.acknowledge(pool, una, |entry, len| told.push((entry.start, len)));
        queue.check_invariants(una, 90);
        (told, acked)
    }

    #[test]
    fn of_a_run_the_first_and_the_last_are_told_of() {
        let (mut pool, mut queue) = nine();
        let (told_of, acked) = told(&mut pool, &mut queue, 85);
        assert_eq!(told_of, [(0, 10), (70, 70)]);
        assert_eq!((acked.entries, acked.delivered, acked.repaired), (8, 80, 0));
        assert_eq!(acked.sent_at, Some(Instant::from_millis(7)), "the latest");
        assert_eq!(pool.available(), 63);
        let (told_of, acked) = told(&mut pool, &mut queue, 90);
        assert_eq!((told_of.as_slice(), acked.delivered), (&[(80, 10)][..], 10));
        assert_eq!(pool.available(), 64);
    }

    #[test]
    fn what_was_sacked_is_passed_over_and_what_was_lost_or_sent_again_stands_for_itself() {
        let (mut pool, mut queue) = nine();
        transmit(&mut pool, &mut queue, 6, 20);
        queue.set_sacked(2, 30);
        queue.set_mark(4, Mark::Lost);
        queue.check_invariants(0, 90);
        let (told_of, acked) = told(&mut pool, &mut queue, 80);
        assert_eq!(told_of, [(0, 10), (30, 20), (40, 10), (50, 10), (60, 10), (70, 10)]);
        assert_eq!((acked.entries, acked.delivered, acked.repaired), (8, 70, 10));
        assert_eq!(acked.sent_at, None, "Karn's algorithm");
        assert_eq!((queue.outstanding(), queue.sacked(), queue.lost()), (10, 0, 0));
    }

    #[test]
    fn frames_come_back_in_whatever_order_and_though_their_entry_has_gone() {
        let (mut pool, mut queue) = (Umem::on_heap(64).expect("memory"), SendQueue::default());
        let layout = Layout { payload_at: 66, mss: MSS };
        assert_eq!(queue.write(&mut pool, layout, &[0; 9 * MSS]), 9 * MSS);
        let take = |queue: &mut SendQueue, index| {
            queue.take_for_transmission(index, Instant::ZERO, Transmission::default()).expect("a frame")
        };
        let mut frames: Vec<_> = (0..9).map(|index| Some(take(&mut queue, index))).collect();
        let mut complete = |pool: &mut Umem, queue: &mut SendQueue, index: usize| {
            let frame = frames[index].take().expect("once").into_completed();
            queue.complete(pool, frame, (index * MSS) as u64)
        };
        // In order, and one of them out of it.
        for index in [0, 1, 5, 2, 6] {
            assert!(!complete(&mut pool, &mut queue, index));
        }
        told(&mut pool, &mut queue, 40);
        assert_eq!(pool.available(), 64 - 6, "the NIC still has one");
        for (index, goes_to_the_pool) in [(7, false), (3, true), (4, false), (8, false)] {
            assert_eq!(complete(&mut pool, &mut queue, index), goes_to_the_pool);
        }
        assert!((0..5).all(|index| queue.get(index).is_some_and(Entry::is_home)));
        told(&mut pool, &mut queue, 90);
        assert_eq!(pool.available(), 64);
    }
}
