//! Segments of another size: one is cut in two, or takes bytes from the next.

use super::{Entry, SendQueue, Slot};
use crate::frame::{FramePool, TxFrame};

/// Copies `len` bytes from a place in one frame to a place in another: through the stack and in parts, since two frames
/// of one pool can't be borrowed at once.
fn copy_between<P: FramePool>(
    pool: &mut P,
    (from, from_at): (&TxFrame, usize),
    (to, to_at): (&mut TxFrame, usize),
    len: usize,
) {
    let mut part = [0; 256];
    let mut done = 0;
    while done < len {
        let n = part.len().min(len - done);
        pool.tx_read(from, from_at + done, &mut part[..n]);
        pool.tx_write(to, to_at + done, &part[..n]);
        done += n;
    }
}

/// Moves `len` bytes of a frame from one place to one before it, likewise.
fn move_forward<P: FramePool>(pool: &mut P, frame: &mut TxFrame, from: usize, to: usize, len: usize) {
    let mut part = [0; 256];
    let mut done = 0;
    while done < len {
        let n = part.len().min(len - done);
        pool.tx_read(frame, from + done, &mut part[..n]);
        pool.tx_write(frame, to + done, &part[..n]);
        done += n;
    }
}

impl SendQueue {
    /// Cuts an entry in two after `len` bytes, by copying the first part into another frame: the window or a smaller
    /// path MTU forces it. Returns whether that was possible; not if the pool is down to its reserve.
    pub fn split<P: FramePool>(&mut self, pool: &mut P, index: usize, len: usize, payload_at: usize) -> bool {
        if !Self::may_cut(pool, index) {
            return false;
        }
        let Some(entry) = self.entries.get_mut(index) else { return false };
        let Slot::Home(tail) = &mut entry.slot else { return false };
        debug_assert!(len > 0 && len < entry.len);
        let Some(mut head) = pool.allocate_tx(payload_at + len) else { return false };
        copy_between(pool, (tail, payload_at), (&mut head, payload_at), len);
        let rest = entry.len - len;
        move_forward(pool, tail, payload_at + len, payload_at, rest);
        pool.shrink_tx(tail, payload_at + rest);
        let chunks = [&head, tail].map(|frame| pool.tx_chunks(frame) as u8);
        self.chunks += usize::from(chunks[0]) + usize::from(chunks[1]) - usize::from(entry.chunks);
        let first = Entry {
            start: entry.start,
            len,
            fin: false,
            chunks: chunks[0],
            sum: None,
            slot: Slot::Home(head),
            ..*entry
        };
        entry.sum = None;
        entry.start += len as u64;
        entry.len = rest;
        entry.chunks = chunks[1];
        self.entries.insert(index, first);
        if index < self.next {
            self.next += 1;
        }
        true
    }

    /// Makes the first entry that was never sent `len` bytes long, with bytes of those behind it: a probe of the path's
    /// MTU. Returns whether there were as many.
    pub fn lengthen_unsent<P: FramePool>(&mut self, pool: &mut P, len: usize, payload_at: usize) -> bool {
        loop {
            let mut unsent = self.entries.range_mut(self.next..);
            let (Some(first), Some(second)) = (unsent.next(), unsent.next()) else { return false };
            if first.len >= len {
                return true;
            }
            let (Slot::Home(to), Slot::Home(from)) = (&mut first.slot, &mut second.slot) else {
                return false;
            };
            let n = second.len.min(len - first.len);
            if !pool.reserve_tx(to, payload_at + first.len + n) {
                return false;
            }
            copy_between(pool, (from, payload_at), (to, payload_at + first.len), n);
            let rest = second.len - n;
            move_forward(pool, from, payload_at + n, payload_at, rest);
            pool.shrink_tx(from, payload_at + rest);
            let (before, chunks) =
                (first.chunks + second.chunks, [&*to, from].map(|frame| pool.tx_chunks(frame) as u8));
            [first.chunks, second.chunks] = chunks;
            self.chunks = self.chunks + usize::from(chunks[0] + chunks[1]) - usize::from(before);
            first.len += n;
            (first.sum, second.sum) = (None, None);
            second.start += n as u64;
            second.len = rest;
            if second.sequence_len() == 0
                && let Some(Entry { slot: Slot::Home(frame), chunks, .. }) =
                    self.entries.remove(self.next + 1)
            {
                self.chunks -= usize::from(chunks);
                pool.release_tx(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::Umem,
        tcp::send_queue::{Layout, Transmission},
        time::Instant,
    };

    /// What an MTU of 9000 makes of it: a segment lies in three chunks of 4096 bytes.
    const JUMBO: Layout = Layout { payload_at: 34 + 32, mss: 8948 };

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    /// The payload of all entries, in order.
    fn payload(queue: &SendQueue, pool: &Umem, layout: Layout) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in &queue.entries {
            let Slot::Home(frame) = &entry.slot else { panic!("the NIC has it") };
            let mut bytes = vec![0; entry.len];
            assert_eq!(pool.tx_read(frame, layout.payload_at, &mut bytes), entry.len);
            assert_eq!(pool.tx_chunks(frame), usize::from(entry.chunks));
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn a_segment_lies_in_as_many_chunks_as_it_needs_and_takes_them_one_by_one() {
        let mut pool = Umem::on_heap(64).expect("memory");
        let mut queue = SendQueue::default();
        let data = data(20_000);
        for (from, to, chunks) in
            [(0, 100, 1), (100, 3774, 1), (3774, 3775, 2), (3775, 8948, 3), (8948, 20_000, 7)]
        {
            assert_eq!(queue.write(&mut pool, JUMBO, &data[from..to]), to - from);
            assert_eq!((queue.chunks, pool.available()), (chunks, 64 - chunks));
            queue.check_invariants(0, 0);
        }
        assert_eq!(queue.entries.iter().map(|entry| entry.len).collect::<Vec<_>>(), [8948, 8948, 2104]);
        assert_eq!(payload(&queue, &pool, JUMBO), data);
        queue.clear(&mut pool);
        assert_eq!(pool.available(), 64);
    }

    #[test]
    fn a_long_segment_is_cut_into_short_ones_and_gives_back_what_they_do_not_need() {
        let mut pool = Umem::on_heap(64).expect("memory");
        let mut queue = SendQueue::default();
        let data = data(8948);
        queue.write(&mut pool, JUMBO, &data);
        let small = Layout { mss: 1448, ..JUMBO };
        let mut index = 0;
        while queue.get(index).is_some_and(|entry| entry.len > small.mss) {
            assert!(queue.split(&mut pool, index, small.mss, small.payload_at));
            index += 1;
            queue.check_invariants(0, 0);
        }
        assert_eq!(payload(&queue, &pool, small), data);
        assert_eq!((queue.entries.len(), queue.chunks, pool.available()), (7, 7, 57));
        queue.clear(&mut pool);
        assert_eq!(pool.available(), 64);
    }

    #[test]
    fn short_segments_are_joined_to_a_long_one() {
        let mut pool = Umem::on_heap(64).expect("memory");
        let mut queue = SendQueue::default();
        let data = data(12_000);
        let small = Layout { mss: 1448, ..JUMBO };
        queue.write(&mut pool, small, &data);
        assert!(queue.lengthen_unsent(&mut pool, 8948, small.payload_at));
        queue.check_invariants(0, 0);
        assert_eq!(queue.get(0).map(|entry| (entry.len, entry.chunks)), Some((8948, 3)));
        assert_eq!(payload(&queue, &pool, small), data);
        queue.clear(&mut pool);
        assert_eq!(pool.available(), 64);
    }

    #[test]
    fn a_long_frame_that_was_sent_comes_home_whole() {
        let mut pool = Umem::on_heap(64).expect("memory");
        let mut queue = SendQueue::default();
        let data = data(8948);
        queue.write(&mut pool, JUMBO, &data);
        let frame = queue.take_for_transmission(0, Instant::ZERO, Transmission::default()).expect("a frame");
        queue.complete(&mut pool, frame.into_completed(), 0);
        assert_eq!(payload(&queue, &pool, JUMBO), data);
        let frame = queue.take_for_transmission(0, Instant::ZERO, Transmission::default()).expect("again");
        queue.acknowledge(&mut pool, 8948, |_, _| {});
        assert_eq!((queue.chunks, pool.available()), (0, 61), "the NIC still has it");
        queue.complete(&mut pool, frame.into_completed(), 0);
        assert_eq!(pool.available(), 64);
    }

    #[test]
    fn chunks_are_what_a_queue_has_its_share_of() {
        let mut pool = Umem::on_heap(64).expect("memory");
        let mut queue = SendQueue::default();
        let data = data(1 << 20);
        let written = queue.write(&mut pool, JUMBO, &data);
        // Half of the chunks, if nobody else has any.
        assert_eq!((queue.chunks, pool.available()), (32, 32));
        assert_eq!(written, 10 * 8948 + 2 * 3840 - JUMBO.payload_at);
        queue.clear(&mut pool);
    }
}
