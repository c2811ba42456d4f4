//! Data that arrived out of order (RFC 9293 §3.10.7.4, SHLD-31), until the gap before it is filled; and the SACK blocks that tell the peer of it.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::payload::{COMPACT_LEN, Payload, under_pressure};
use crate::frame::FramePool;

/// Payloads that may wait out of order. The largest window of the defaults, 6 MiB, has 4345 full segments; with less,
/// one loss in a full window would cost more than the lost segment. More lets a peer that sends tiny segments with gaps
/// use more memory and time: each insertion may move half as many entries, of 32 bytes.
pub const MAX_SEGMENTS: usize = 4608;

/// Islands that are remembered in the order in which they were touched: an ACK tells of four (RFC 2018 §3), and some of
/// those may have been joined by then. Fewer, and an older block is left out at times; more is looked through for each
/// segment.
const RECENT: usize = 8;

/// The payloads beyond RCV.NXT, sorted, without overlap. Positions are stream offsets.
#[derive(Debug, Default)]
pub struct Reassembly {
    segments: VecDeque<Held>,
    /// What `segments` cover: ranges that neither overlap nor touch, sorted.
    islands: Vec<Island>,
    /// Where the islands start that were touched last, the latest first. Some may be no more.
    recent: SmallVec<[u64; RECENT]>,
    /// Bytes of payloads that were copied.
    copied: usize,
    /// Where the stream ends, once a FIN told.
    fin: Option<u64>,
}

#[derive(Debug)]
struct Held {
    start: u64,
    payload: Payload,
}

impl Held {
    fn end(&self) -> u64 {
        self.start + self.payload.len() as u64
    }

    /// Bytes of it on the heap.
    fn copied(&self) -> usize {
        if let Payload::Heap(bytes) = &self.payload { bytes.len() } else { 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Island {
    start: u64,
    end: u64,
}

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Some of it is new.
    New,
    /// All of it was here already.
    Duplicate,
    /// There is no room for more payloads.
    Full,
}

impl Reassembly {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes of memory, besides the pool's: what was copied, and what is known of each payload.
    pub fn memory(&self) -> usize {
        self.copied + self.segments.len() * (size_of::<Held>() + size_of::<Island>())
    }

    /// Whether a frame waits as it is: small ones are copied, and all when chunks are scarce.
    pub fn keeps<P: FramePool>(pool: &P, len: usize) -> bool {
        len > COMPACT_LEN && !under_pressure(pool)
    }

    /// Takes a payload that starts at `start`, beyond RCV.NXT. Where it overlaps another, one copy is kept.
    pub fn insert<P: FramePool>(&mut self, pool: &mut P, mut start: u64, mut payload: Payload) -> Inserted {
        let end = start + payload.len() as u64;
        if payload.is_empty() || self.contains(start, end) {
            if !payload.is_empty() {
                // Its island is told right behind the duplicate (RFC 2883 §4, rule 4).
                self.touch(start, end);
            }
            payload.release(pool);
            return Inserted::Duplicate;
        }
        let at = self.segments.partition_point(|held| held.start <= start);
        if let Some(before) = at.checked_sub(1).and_then(|at| self.segments.get(at)) {
            let overlap = before.end().saturating_sub(start) as usize;
            payload.trim_front(overlap);
            start += overlap as u64;
        }
        // Those behind it that it covers make room; one that it covers in part cuts it.
        while self.segments.get(at).is_some_and(|next| next.end() <= end) {
            if let Some(covered) = self.segments.remove(at) {
                self.copied -= covered.copied();
                covered.payload.release(pool);
            }
        }
        if let Some(next) = self.segments.get(at) {
            payload.truncate(next.start.saturating_sub(start) as usize);
        }
        if self.segments.len() >= MAX_SEGMENTS {
            payload.release(pool);
            return Inserted::Full;
        }
        self.touch(start, start + payload.len() as u64);
        self.keep(pool, at, start, payload);
        Inserted::New
    }

    /// Stores a payload at its place. Small ones, and all when chunks are scarce, go to the heap, behind the payload
    /// before them if that is there too and they touch.
    fn keep<P: FramePool>(&mut self, pool: &mut P, at: usize, start: u64, payload: Payload) {
        if Self::keeps(pool, payload.len()) {
            self.segments.insert(at, Held { start, payload });
            return;
        }
        self.copied += payload.len();
        let before = at.checked_sub(1).and_then(|at| self.segments.get_mut(at));
        match before {
            Some(Held { start: first, payload: Payload::Heap(bytes) })
                if *first + bytes.len() as u64 == start && bytes.len() < COMPACT_LEN * 8 =>
            {
                bytes.extend_from_slice(payload.bytes(pool));
            }
            _ => {
                let bytes = payload.bytes(pool).to_vec();
                self.segments.insert(at, Held { start, payload: Payload::Heap(bytes) });
            }
        }
        payload.release(pool);
    }

    /// Joins `start..end` with the islands that it overlaps or touches.
    fn touch(&mut self, start: u64, end: u64) {
        let first = self.islands.partition_point(|island| island.end < start);
        let last = self.islands.partition_point(|island| island.start <= end);
        let joined = self.islands.get(first..last).unwrap_or_default();
        let island = Island {
            start: joined.first().map_or(start, |island| island.start.min(start)),
            end: joined.last().map_or(end, |island| island.end.max(end)),
        };
        self.islands.splice(first..last, [island]);
        self.recent.retain(|&mut start| start < island.start || start > island.end);
        self.recent.truncate(RECENT - 1);
        self.recent.insert(0, island.start);
    }

    /// The payload that continues the stream at `nxt`, if the gap before it is filled.
    pub fn take_next<P: FramePool>(&mut self, pool: &mut P, nxt: u64) -> Option<Payload> {
        while self.segments.front().is_some_and(|held| held.start <= nxt) {
            let mut held = self.segments.pop_front()?;
            self.copied -= held.copied();
            held.payload.trim_front((nxt - held.start) as usize);
            if !held.payload.is_empty() {
                return Some(held.payload);
            }
            held.payload.release(pool);
        }
        None
    }

    /// RCV.NXT has moved to `nxt`: islands that it has reached are no islands any more.
    pub fn advance(&mut self, nxt: u64) {
        let reached = self.islands.partition_point(|island| island.start <= nxt);
        self.islands.drain(..reached);
    }

    /// Up to `limit` ranges for the SACK option: the one that the latest segment fell into first, as RFC 2018 §4
    /// demands, then those that were touched before it. When too few of those are remembered, the lowest others follow:
    /// as many as fit are told.
    pub fn sack_ranges(&self, limit: usize) -> impl Iterator<Item = (u64, u64)> + use<> {
        let is_there = |&start: &u64| {
            let at = self.islands.binary_search_by_key(&start, |island| island.start).ok()?;
            self.islands.get(at).map(|island| (island.start, island.end))
        };
        let mut found: SmallVec<[_; RECENT]> = self.recent.iter().filter_map(is_there).take(limit).collect();
        if found.len() < limit {
            // Each of those found hides one at most.
            let lowest = self.islands.iter().map(|island| (island.start, island.end)).take(limit);
            let remembered = found.len();
            for island in lowest {
                if found.len() < limit && !found[..remembered].contains(&island) {
                    found.push(island);
                }
            }
        }
        found.into_iter()
    }

    /// Whether `start..end` is here already; else the part of it that a DSACK block may name is empty.
    pub fn contains(&self, start: u64, end: u64) -> bool {
        self.around(start, end).is_some()
    }

    /// The range that waits here and that all of `start..end` is part of.
    pub fn around(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let after = self.islands.partition_point(|island| island.start <= start);
        let island = after.checked_sub(1).and_then(|at| self.islands.get(at))?;
        (end <= island.end).then_some((island.start, island.end))
    }

    /// The first part of `start..end` that is here already.
    pub fn first_overlap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let at = self.islands.partition_point(|island| island.end <= start);
        let island = self.islands.get(at).filter(|island| island.start < end)?;
        Some((island.start.max(start), island.end.min(end)))
    }

    /// A FIN ends the stream at `end`. The first one counts: a peer can't move its end.
    pub fn set_fin(&mut self, end: u64) {
        self.fin.get_or_insert(end);
    }

    /// Where the stream ends, if that is known.
    pub fn fin(&self) -> Option<u64> {
        self.fin
    }

    /// Throws everything away.
    pub fn clear<P: FramePool>(&mut self, pool: &mut P) {
        for held in self.segments.drain(..) {
            held.payload.release(pool);
        }
        self.islands = Vec::new();
        self.recent.clear();
        self.copied = 0;
    }

    /// Panics if the queue contradicts itself.
    pub fn check_invariants(&self, nxt: u64) {
        let mut end = nxt;
        for held in &self.segments {
            assert!(held.start >= end && !held.payload.is_empty(), "sorted, without overlap, beyond RCV.NXT");
            assert!(self.contains(held.start, held.end()), "in an island");
            end = held.end();
        }
        assert!(
            self.segments.front().is_none_or(|held| held.start > nxt),
            "what is in order has been delivered"
        );
        assert!(self.islands.windows(2).all(|pair| pair[0].end < pair[1].start), "islands apart");
        assert_eq!(self.segments.iter().map(Held::copied).sum::<usize>(), self.copied, "bytes on the heap");
        let held: u64 = self.segments.iter().map(|held| held.end() - held.start).sum();
        assert_eq!(held, self.islands.iter().map(|island| island.end - island.start).sum::<u64>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::Umem, rng::Rng, tcp::testing::rx_frame};

    fn insert(
        queue: &mut Reassembly,
        pool: &mut Umem,
        data: &[u8],
        range: core::ops::Range<usize>,
    ) -> Inserted {
        let frame = rx_frame(pool, &data[range.clone()]);
        let inserted = queue.insert(pool, range.start as u64, Payload::Frame(frame));
        queue.check_invariants(0);
        inserted
    }

    #[test]
    fn as_many_blocks_are_told_as_there_are_rfc2018_4() {
        let mut pool = Umem::on_heap(64).expect("memory");
        let data = vec![0; 9000];
        let mut queue = Reassembly::default();
        for start in (500..6500).step_by(500) {
            insert(&mut queue, &mut pool, &data, start..start + 100);
        }
        // One that covers all that were touched last: the others are not remembered any more.
        insert(&mut queue, &mut pool, &data, 2400..6200);
        let blocks: Vec<_> = queue.sack_ranges(4).collect();
        assert_eq!(blocks, [(2400, 6200), (500, 600), (1000, 1100), (1500, 1600)]);
        queue.clear(&mut pool);
    }

    #[test]
    fn the_latest_block_comes_first_rfc2018_4() {
        let mut pool = Umem::on_heap(32).expect("memory");
        let data = vec![0; 9000];
        let mut queue = Reassembly::default();
        for start in [1000, 3000, 5000, 7000] {
            insert(&mut queue, &mut pool, &data, start..start + 1000);
        }
        insert(&mut queue, &mut pool, &data, 4000..4500);
        let blocks: Vec<_> = queue.sack_ranges(3).collect();
        assert_eq!(blocks, [(3000, 4500), (7000, 8000), (5000, 6000)]);
        insert(&mut queue, &mut pool, &data, 4500..5000);
        let blocks: Vec<_> = queue.sack_ranges(3).collect();
        assert_eq!(blocks, [(3000, 6000), (7000, 8000), (1000, 2000)]);
        queue.clear(&mut pool);
        assert_eq!(pool.available(), 32);
    }

    #[test]
    fn what_several_payloads_cover_is_a_duplicate_rfc2883_4() {
        let mut pool = Umem::on_heap(8).expect("memory");
        let data = vec![0; 600];
        let mut queue = Reassembly::default();
        assert_eq!(insert(&mut queue, &mut pool, &data, 1..514), Inserted::New);
        assert_eq!(insert(&mut queue, &mut pool, &data, 4..517), Inserted::New);
        assert_eq!(insert(&mut queue, &mut pool, &data, 4..517), Inserted::Duplicate);
        queue.clear(&mut pool);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn any_order_and_overlap_gives_the_stream_once_and_loses_no_frame() {
        for seed in 0..200 {
            let mut rng = Rng::from_seed(seed);
            let mut pool = Umem::on_heap(256).expect("memory");
            let data: Vec<u8> = (0..20_000).map(|_| rng.next_u32() as u8).collect();
            let (mut queue, mut got) = (Reassembly::default(), Vec::new());
            while got.len() < data.len() {
                let start = got.len() + rng.below((data.len() - got.len()) as u64) as usize;
                let start = if rng.chance(0.2) { got.len() } else { start };
                let end = (start + 1 + rng.below(1400) as usize).min(data.len());
                let frame = rx_frame(&mut pool, &data[start..end]);
                queue.insert(&mut pool, start as u64, Payload::Frame(frame));
                while let Some(payload) = queue.take_next(&mut pool, got.len() as u64) {
                    got.extend_from_slice(payload.bytes(&pool));
                    payload.release(&mut pool);
                }
                queue.advance(got.len() as u64);
                queue.check_invariants(got.len() as u64);
            }
            assert!(got == data && queue.is_empty(), "seed {seed}");
            assert_eq!(pool.available(), 256, "seed {seed}");
        }
    }

    #[test]
    fn tiny_segments_with_gaps_are_bounded() {
        let mut pool = Umem::on_heap(8).expect("memory");
        let data = vec![0; 3 * MAX_SEGMENTS];
        let mut queue = Reassembly::default();
        let results: Vec<_> = (1..=MAX_SEGMENTS + 1)
            .map(|i| insert_unchecked(&mut queue, &mut pool, &data[i..=i], 2 * i))
            .collect();
        assert!(results[..MAX_SEGMENTS].iter().all(|&result| result == Inserted::New));
        assert_eq!(results[MAX_SEGMENTS], Inserted::Full);
        assert_eq!(pool.available(), 8, "no chunk is pinned");
    }

    fn insert_unchecked(queue: &mut Reassembly, pool: &mut Umem, bytes: &[u8], at: usize) -> Inserted {
        let frame = rx_frame(pool, bytes);
        queue.insert(pool, at as u64, Payload::Frame(frame))
    }
}
