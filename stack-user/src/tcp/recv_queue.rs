//! Data that arrived in order and that the application has not read yet.

use std::collections::VecDeque;

use super::payload::{COMPACT_LEN, Payload, under_pressure};
use crate::frame::{FramePool, RxFrame};

/// A queue of frames, and of bytes copied out of small frames.
#[derive(Debug, Default)]
pub struct RecvQueue {
    parts: Parts,
    /// The bytes of all `Part::Heap`s, in order.
    heap: VecDeque<u8>,
    len: usize,
}

#[derive(Debug)]
enum Part {
    Frame(RxFrame),
    /// That many bytes of `heap`.
    Heap(usize),
}

/// Parts in order. The first lies in the connection itself: who asks and is answered has no more than one at a time, and of very
/// many connections a list of one would be another line of memory to wait for.
#[derive(Debug, Default)]
struct Parts {
    /// `None` if there is none.
    first: Option<Part>,
    others: VecDeque<Part>,
}

impl Parts {
    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    fn iter(&self) -> impl Iterator<Item = &Part> {
        self.first.iter().chain(&self.others)
    }

    fn last_mut(&mut self) -> Option<&mut Part> {
        self.others.back_mut().or(self.first.as_mut())
    }

    #[inline]
    fn push(&mut self, part: Part) {
        match self.first {
            None => self.first = Some(part),
            Some(_) => self.others.push_back(part),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Part> {
        let first = self.first.take();
        self.first = self.others.pop_front();
        first
    }
}

impl RecvQueue {
    /// Bytes to read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory, besides the pool's. A part counts, wherever it lies.
    pub fn memory(&self) -> usize {
        self.heap.len() + self.parts.len() * size_of::<Part>()
    }

    /// Appends a payload.
    #[inline]
    pub fn push<P: FramePool>(&mut self, pool: &mut P, payload: Payload) {
        self.len += payload.len();
        match payload {
            Payload::Frame(frame) if self.keeps(pool, &frame) => self.parts.push(Part::Frame(frame)),
            payload => self.push_copy(pool, payload),
        }
    }

    fn push_copy<P: FramePool>(&mut self, pool: &mut P, payload: Payload) {
        let bytes = payload.bytes(pool);
        self.heap.extend(bytes);
        match self.parts.last_mut() {
            Some(Part::Heap(len)) => *len += bytes.len(),
            _ => self.parts.push(Part::Heap(bytes.len())),
        }
        payload.release(pool);
    }

    /// Whether a frame may wait as it is.
    #[inline]
    pub fn keeps<P: FramePool>(&self, pool: &P, frame: &RxFrame) -> bool {
        let small = frame.len() <= COMPACT_LEN && !self.parts.is_empty();
        !small && !under_pressure(pool)
    }

    /// Moves bytes to `out` and releases the frames that are read to their end. Returns how many bytes.
    pub fn read<P: FramePool>(&mut self, pool: &mut P, out: &mut [u8]) -> usize {
        let mut done = 0;
        let mut next = self.parts.first.take();
        while let Some(room) = out.get_mut(done..).filter(|room| !room.is_empty()) {
            let Some(part) = next else { break };
            let (n, rest) = match part {
                Part::Frame(mut frame) => {
                    let n = copy(pool.rx_bytes(&frame), room);
                    if n < frame.len() {
                        frame.trim_front(n);
                        (n, Some(Part::Frame(frame)))
                    } else {
                        pool.release_rx(frame);
                        (n, None)
                    }
                }
                Part::Heap(len) => {
                    let limit = room.len().min(len);
                    let n = read_heap(&mut self.heap, &mut room[..limit]);
                    (n, (n < len).then_some(Part::Heap(len - n)))
                }
            };
            done += n;
            next = rest.or_else(|| self.parts.others.pop_front());
        }
        self.parts.first = next;
        self.len -= done;
        done
    }

    /// Copies bytes to `out` as [`read`](Self::read) does, and leaves them here.
    pub fn peek<P: FramePool>(&self, pool: &P, out: &mut [u8]) -> usize {
        let (mut done, mut heap) = (0, 0);
        for part in self.parts.iter() {
            let Some(room) = out.get_mut(done..).filter(|room| !room.is_empty()) else { break };
            done += match part {
                Part::Frame(frame) => copy(pool.rx_bytes(frame), room),
                Part::Heap(len) => {
                    let from = heap;
                    heap += len;
                    self.heap.range(from..heap).zip(room).map(|(byte, slot)| *slot = *byte).count()
                }
            };
        }
        done
    }

    /// Takes the bytes that came first, as they lie: a frame's, or those that were copied together. Whoever gets a frame
    /// may keep it for long, so when chunks are scarce its bytes are copied.
    pub fn take<P: FramePool>(&mut self, pool: &mut P) -> Option<Payload> {
        let payload = match self.parts.pop()? {
            Part::Frame(frame) if under_pressure(pool) => {
                let bytes = pool.rx_bytes(&frame).to_vec();
                pool.release_rx(frame);
                Payload::Heap(bytes)
            }
            Part::Frame(frame) => Payload::Frame(frame),
            Part::Heap(len) => Payload::Heap(self.heap.drain(..len).collect()),
        };
        self.len -= payload.len();
        Some(payload)
    }

    /// Throws everything away.
    pub fn clear<P: FramePool>(&mut self, pool: &mut P) {
        while let Some(part) = self.parts.pop() {
            if let Part::Frame(frame) = part {
                pool.release_rx(frame);
            }
        }
        self.heap = VecDeque::new();
        self.len = 0;
    }

    /// Frames that the queue holds.
    pub fn frames(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Frame(_))).count()
    }

    /// Panics if the queue contradicts itself.
    pub fn check_invariants(&self) {
        assert!(!self.parts.is_empty() || self.parts.others.is_empty(), "others without a first");
        let parts = self.parts.iter().map(|part| match part {
            Part::Frame(frame) => frame.len(),
            Part::Heap(len) => *len,
        });
        assert_eq!(parts.sum::<usize>(), self.len, "length of the receive queue");
        let heap = self.parts.iter().map(|part| if let Part::Heap(len) = part { *len } else { 0 });
        assert_eq!(heap.sum::<usize>(), self.heap.len(), "bytes on the heap");
    }
}

#[inline]
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let n = from.len().min(to.len());
    to[..n].copy_from_slice(&from[..n]);
    n
}

fn read_heap(heap: &mut VecDeque<u8>, out: &mut [u8]) -> usize {
    let (first, second) = heap.as_slices();
    let n = copy(first, out);
    let n = n + copy(second, &mut out[n..]);
    heap.drain(..n);
    n
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{device::Umem, tcp::testing::rx_frame};

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Read(usize),
        Take,
        Clear,
        /// Somebody else takes nearly all chunks, or gives them back.
        Pressure(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![1..40_usize, 400..1500_usize].prop_map(Step::Push),
            3 => (0..900_usize).prop_map(Step::Read),
            1 => Just(Step::Take),
            1 => any::<bool>().prop_map(Step::Pressure),
            1 => prop_oneof![9 => Just(Step::Take), 1 => Just(Step::Clear)],
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_done_bytes_stay_in_order_and_frames_go_back(steps in proptest::collection::vec(step(), 1..80)) {
            let mut pool = Umem::on_heap(64).expect("memory");
            let (mut queue, mut expected, mut held) = (RecvQueue::default(), VecDeque::<u8>::new(), Vec::new());
            let mut next = 0_u8;
            for step in steps {
                match step {
                    Step::Push(len) if pool.available() > 0 => {
                        let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                        expected.extend(&bytes);
                        let frame = rx_frame(&mut pool, &bytes);
                        queue.push(&mut pool, Payload::Frame(frame));
                    }
                    Step::Push(_) => {}
                    Step::Read(len) => {
                        let (mut peeked, mut got) = (vec![0; len], vec![0; len]);
                        let n = queue.peek(&pool, &mut peeked);
                        prop_assert_eq!((queue.read(&mut pool, &mut got), &got), (n, &peeked));
                        prop_assert_eq!(n, len.min(expected.len()));
                        prop_assert!(expected.drain(..n).eq(got[..n].iter().copied()));
                    }
                    Step::Take => match queue.take(&mut pool) {
                        Some(payload) => {
                            let n = payload.len();
                            prop_assert!(n > 0 && expected.drain(..n).eq(payload.bytes(&pool).iter().copied()));
                            payload.release(&mut pool);
                        }
                        None => prop_assert!(expected.is_empty()),
                    },
                    Step::Clear => {
                        queue.clear(&mut pool);
                        expected.clear();
                    }
                    Step::Pressure(true) => while pool.available() > 4 {
                        held.push(pool.allocate().expect("a chunk"));
                    },
                    Step::Pressure(false) => held.drain(..).for_each(|frame| pool.release(frame)),
                }
                queue.check_invariants();
                prop_assert_eq!(queue.len(), expected.len());
                prop_assert_eq!(pool.available() + held.len() + queue.frames(), 64);
                prop_assert!(queue.memory() >= queue.heap.len() + queue.frames() * size_of::<Part>());
            }
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in_and_frames_go_back() {
        let mut pool = Umem::on_heap(16).expect("memory");
        let mut queue = RecvQueue::default();
        let data: Vec<u8> = (0..6000u32).map(|i| i as u8).collect();
        for part in
            [&data[..1400], &data[1400..1410], &data[1410..1420], &data[1420..2800], &data[2800..6000]]
        {
            let frame = rx_frame(&mut pool, part);
            queue.push(&mut pool, Payload::Frame(frame));
            queue.check_invariants();
        }
        assert_eq!(queue.frames(), 3, "two small ones were copied");
        let mut out = Vec::new();
        let mut buffer = [0; 777];
        while !queue.is_empty() {
            let n = queue.read(&mut pool, &mut buffer);
            out.extend_from_slice(&buffer[..n]);
            queue.check_invariants();
        }
        assert_eq!(out, data);
        assert_eq!(pool.available(), 16);
    }

    #[test]
    fn a_peer_that_sends_single_bytes_pins_one_frame() {
        let mut pool = Umem::on_heap(16).expect("memory");
        let mut queue = RecvQueue::default();
        for _ in 0..1000 {
            let frame = rx_frame(&mut pool, b"x");
            queue.push(&mut pool, Payload::Frame(frame));
        }
        assert_eq!((queue.len(), queue.frames()), (1000, 1));
        queue.clear(&mut pool);
        assert_eq!(pool.available(), 16);
    }

    #[test]
    fn under_pressure_nothing_is_pinned() {
        let mut pool = Umem::on_heap(16).expect("memory");
        let held: Vec<_> = (0..13).map(|_| pool.allocate().expect("a chunk")).collect();
        let mut queue = RecvQueue::default();
        let frame = rx_frame(&mut pool, &[7; 1400]);
        queue.push(&mut pool, Payload::Frame(frame));
        assert_eq!((queue.len(), queue.frames(), pool.available()), (1400, 0, 3));
        held.into_iter().for_each(|frame| pool.release(frame));
    }
}
