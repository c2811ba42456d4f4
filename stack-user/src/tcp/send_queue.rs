//! What the application has written and the peer has not acknowledged: each entry is one segment in the frame that it
//! is sent from, and sent again. A segment that is longer than a chunk lies in several.

mod acknowledge;
mod cut;

use std::{collections::VecDeque, ops::Range};

pub use acknowledge::Acknowledged;

use super::delivery_rate::Stamp;
use crate::{
    frame::{CompletedFrame, FramePool, FreeFrame, TxFrame},
    time::Instant,
    wire::checksum::Sum,
};

/// Chunks that writing leaves in the pool, so that ACKs can be sent and frames received whatever applications write.
/// Lower, and a burst of ACKs finds none; higher, and small pools can't be used to the full.
pub const RESERVED_CHUNKS: usize = 64;

/// Segments that a queue may hold when others have all chunks but the reserve. One, and a peer delays its ACK of it; more, and
/// fewer connections share what there is.
const FIRST_SEGMENTS: usize = 2;

/// The entries, by stream offset; those that were sent come first.
#[derive(Debug, Default)]
pub struct SendQueue {
    entries: VecDeque<Entry>,
    /// Index of the first entry that was never sent.
    next: usize,
    /// Where the next byte that is written goes.
    end: u64,
    /// Bytes of payload in all entries.
    bytes: usize,
    /// Chunks of all entries, those that the NIC has included.
    chunks: usize,
    fin: bool,
    /// Sequence numbers of the sent entries, and of those among them that are marked.
    sent: usize,
    sacked: usize,
    lost: usize,
    /// Entries that are sacked.
    sacked_entries: usize,
    /// Index of the entry whose frame is likely to come back next: the one behind that whose frame came last.
    completes: usize,
}

/// One segment.
#[derive(Debug)]
pub struct Entry {
    /// Stream offset of the first byte.
    pub start: u64,
    /// Bytes of payload.
    pub len: usize,
    /// FIN follows the payload.
    pub fin: bool,
    /// Chunks of its frame.
    chunks: u8,
    /// What we believe of its last transmission.
    pub mark: Mark,
    /// How often it was sent.
    pub transmissions: u32,
    /// When it was sent last.
    pub sent_at: Instant,
    /// The number of its last transmission among all of the connection's.
    pub order: u64,
    /// What is remembered of its last transmission to know how fast the network delivers.
    pub stamp: Stamp,
    /// The sum of the payload, if it is known: taken as it was copied here.
    pub sum: Option<Sum>,
    /// Of a sacked entry: all entries from here to that stream offset are sacked, and perhaps more.
    run_end: u64,
    slot: Slot,
}

/// What there is to remember of a transmission.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transmission {
    /// Its number among all of the connection's.
    pub order: u64,
    /// What had been delivered when it took place.
    pub stamp: Stamp,
}

/// What is believed of a segment that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// On its way.
    InFlight,
    /// The peer says by SACK that it has it.
    Sacked,
    /// Lost, and not sent again since.
    Lost,
}

#[derive(Debug)]
enum Slot {
    /// The frame is here.
    Home(TxFrame),
    /// The NIC has the frame.
    Away,
    /// A FIN alone needs no frame of its own.
    Empty,
}

/// Where payload goes in a frame, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bytes in front of the payload: room for lower headers, and the TCP header.
    pub payload_at: usize,
    /// The largest payload.
    pub mss: usize,
}

impl Entry {
    /// Sequence numbers that the segment takes.
    pub fn sequence_len(&self) -> usize {
        self.len + usize::from(self.fin)
    }

    /// Stream offset behind it, FIN included.
    pub fn end(&self) -> u64 {
        self.start + self.sequence_len() as u64
    }

    /// Whether it can be sent now: the NIC doesn't have its frame.
    pub fn is_home(&self) -> bool {
        !matches!(self.slot, Slot::Away)
    }
}

impl SendQueue {
    /// All up to that stream offset was sent, and is acknowledged.
    pub(super) fn resume(end: u64) -> Self {
        Self { end, ..Self::default() }
    }

    /// Bytes of payload, sent or not.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing, sent or not.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that were sent.
    pub fn sent_entries(&self) -> usize {
        self.next
    }

    /// Whether something was sent and is not acknowledged.
    pub fn has_outstanding(&self) -> bool {
        self.next > 0
    }

    /// The first entry that was never sent.
    pub fn unsent(&self) -> Option<&Entry> {
        self.entries.get(self.next)
    }

    /// How many entries with `len` bytes of payload come first among those that were never sent, `max` at most; the last of all
    /// entries is none of them, since more may be written to it.
    pub fn full_unsent(&self, len: usize, max: usize) -> usize {
        let behind = self.entries.len().saturating_sub(self.next + 1).min(max);
        self.entries
            .range(self.next..self.next + behind)
            .take_while(|entry| entry.len == len && entry.is_home())
            .count()
    }

    /// Whether the last entry that was sent starts at `start`, is full with `len` bytes, and was sent at this time and never before.
    pub fn was_sent_last(&self, start: u64, len: usize, now: Instant) -> bool {
        let last = self.next.checked_sub(1).and_then(|last| self.entries.get(last));
        last.is_some_and(|last| {
            (last.start, last.len, last.sent_at, last.transmissions) == (start, len, now, 1) && !last.fin
        })
    }

    /// Bytes that were never sent.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent().map_or(0, |first| (self.end - u64::from(self.fin) - first.start) as usize)
    }

    /// Whether the entry that starts at `start` is there and sacked.
    pub fn is_sacked(&self, start: u64) -> bool {
        self.find(start).and_then(|index| self.get(index)).is_some_and(|entry| entry.mark == Mark::Sacked)
    }

    /// Whether something follows the first entry that was never sent.
    pub fn has_more_unsent(&self) -> bool {
        self.entries.len() > self.next + 1
    }

    /// An entry.
    pub fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// The index of the entry that starts at `start`.
    pub fn find(&self, start: u64) -> Option<usize> {
        // Segments are of one size, but for a few: most lie where that would have them.
        let first = self.entries.front()?;
        let guess = start.checked_sub(first.start)? / first.sequence_len().max(1) as u64;
        if self.entries.get(guess as usize).is_some_and(|entry| entry.start == start) {
            return Some(guess as usize);
        }
        self.entries.binary_search_by_key(&start, |entry| entry.start).ok()
    }

    /// The indices of the sent entries that lie in `range` as a whole.
    pub fn sent_in(&self, range: Range<u64>) -> Range<usize> {
        let first = self.entries.partition_point(|entry| entry.start < range.start);
        let last = self.entries.partition_point(|entry| entry.end() <= range.end);
        first..last.min(self.next).max(first)
    }

    /// Pipe (RFC 6675 §2): sequence numbers that are believed to be on their way.
    pub fn in_flight(&self) -> usize {
        self.sent - self.sacked - self.lost
    }

    /// Sequence numbers that were sent and are not acknowledged.
    pub fn outstanding(&self) -> usize {
        self.sent
    }

    /// Sequence numbers that are marked as lost.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Sequence numbers that are sacked.
    pub fn sacked(&self) -> usize {
        self.sacked
    }

    /// Entries that are sacked (RFC 8985 §5.3, RACK.segs_sacked).
    pub fn sacked_entries(&self) -> usize {
        self.sacked_entries
    }

    /// Whether FIN is in the queue, or was.
    pub fn has_fin(&self) -> bool {
        self.fin
    }

    /// Whether the queue has its share of the pool's chunks: as many as it leaves free. So one connection may have half of
    /// what nobody else uses, `n` have a part of `n + 1` each, and one such part always stays free; no fixed share would
    /// give one what it needs and leave something for many. A peer with a tiny MSS gets there long before the send
    /// buffer is full of bytes.
    ///
    /// Who waits for its share to grow needs no wake-up when others let go: it has chunks, and each ACK of them is one.
    /// Who has none is not full, even if nobody has any to give.
    pub fn is_full<P: FramePool>(&self, pool: &P) -> bool {
        !self.entries.is_empty() && self.chunks >= pool.available()
    }

    /// Whether writing may take another chunk of those that all connections share. A queue that is (almost) empty may use
    /// half of the reserve: else those with much to send, who take each chunk that their ACKs free, would leave it nothing
    /// for as long as they like.
    pub fn may_allocate<P: FramePool>(&self, pool: &P) -> bool {
        let reserve = Self::reserve(pool);
        let kept = if self.entries.len() < FIRST_SEGMENTS { reserve / 2 } else { reserve };
        pool.available() > kept
    }

    /// Whether cutting an entry may take a chunk. As writing, it leaves the reserve: a path that carries less makes every
    /// segment that is on its way two or three, and ACKs have to come and go all the same. But for the acknowledgement of
    /// the first entry everything waits, and it gives the chunk back. So that one takes what no writing takes, all but a
    /// quarter of the reserve.
    fn may_cut<P: FramePool>(pool: &P, index: usize) -> bool {
        let reserve = Self::reserve(pool);
        pool.available() > if index == 0 { reserve / 4 } else { reserve }
    }

    /// In a pool that is small itself, so is the reserve.
    fn reserve<P: FramePool>(pool: &P) -> usize {
        RESERVED_CHUNKS.min(pool.chunks() / 4)
    }

    /// Copies bytes into frames, the last one that was not sent first (RFC 9293 §3.9.1.2, SHLD-27 and
    /// MAY-16), and returns how many; less than all when the
    /// queue is full or the pool is down to its reserve.
    pub fn write<P: FramePool>(&mut self, pool: &mut P, layout: Layout, data: &[u8]) -> usize {
        debug_assert!(!self.fin, "nothing follows FIN");
        let mut done = 0;
        let mut last_has_room = self.last_has_room(layout);
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let written = match last_has_room {
                true => self.write_to_last(pool, layout, rest),
                false => self.write_to_new(pool, layout, rest),
            };
            let Some(n) = written else { break };
            done += n;
            self.bytes += n;
            self.end += n as u64;
            last_has_room = n < layout.mss && self.last_has_room(layout);
        }
        done
    }

    /// Copies bytes behind those of the last entry, as many as its present chunks take, which are made more if they take none;
    /// then another is asked for.
    fn write_to_last<P: FramePool>(&mut self, pool: &mut P, layout: Layout, rest: &[u8]) -> Option<usize> {
        if !self.last_has_chunks(pool, layout) && !self.grow_last(pool) {
            return None;
        }
        let Entry { len, sum, slot: Slot::Home(frame), .. } = self.entries.back_mut()? else { return None };
        let wanted = rest.len().min(layout.mss - *len);
        let (n, more) = pool.tx_write_summed(frame, layout.payload_at + *len, &rest[..wanted]);
        *sum = sum.map(|sum| sum.add_at(*len, more));
        *len += n;
        Some(n)
    }

    /// Copies bytes into an entry of their own, as many as a chunk takes.
    fn write_to_new<P: FramePool>(&mut self, pool: &mut P, layout: Layout, rest: &[u8]) -> Option<usize> {
        if self.is_full(pool) || !self.may_allocate(pool) {
            return None;
        }
        let mut frame = pool.allocate()?.into_tx();
        let (n, sum) =
            pool.tx_write_summed(&mut frame, layout.payload_at, &rest[..rest.len().min(layout.mss)]);
        self.push(Slot::Home(frame), 1, n, Some(sum));
        Some(n)
    }

    /// A frame for somebody to write into, and to [`push_written`](Self::push_written) then. `None` as far as
    /// [`write`](Self::write) would write nothing.
    pub fn reserve_frame<P: FramePool>(&self, pool: &mut P) -> Option<TxFrame> {
        let may = !self.is_full(pool) && self.may_allocate(pool);
        if may { pool.allocate().map(FreeFrame::into_tx) } else { None }
    }

    /// Appends a frame that `len` bytes of payload were written into, at the layout's place.
    pub fn push_written(&mut self, frame: TxFrame, len: usize) {
        debug_assert!(!self.fin && len > 0, "nothing follows FIN, and nothing is no segment");
        // Somebody else has put them there.
        self.push(Slot::Home(frame), 1, len, None);
        self.bytes += len;
        self.end += len as u64;
    }

    fn last_has_room(&self, layout: Layout) -> bool {
        self.next < self.entries.len() && self.entries.back().is_some_and(|entry| entry.len < layout.mss)
    }

    /// Whether the last entry's chunks have room for another byte.
    fn last_has_chunks<P: FramePool>(&self, pool: &P, layout: Layout) -> bool {
        let last = self.entries.back();
        last.is_some_and(|last| layout.payload_at + last.len < usize::from(last.chunks) * pool.tx_capacity())
    }

    /// Makes the last entry's frame longer by a chunk, as far as one may be had.
    fn grow_last<P: FramePool>(&mut self, pool: &mut P) -> bool {
        if self.is_full(pool) || !self.may_allocate(pool) {
            return false;
        }
        let Some(Entry { slot: Slot::Home(frame), chunks, .. }) = self.entries.back_mut() else {
            return false;
        };
        let Some(chunk) = pool.allocate() else { return false };
        pool.grow_tx(frame, chunk);
        *chunks += 1;
        self.chunks += 1;
        true
    }

    #[inline]
    fn push(&mut self, slot: Slot, chunks: u8, len: usize, sum: Option<Sum>) {
        self.chunks += usize::from(chunks);
        self.entries.push_back(Entry {
            start: self.end,
            len,
            fin: false,
            chunks,
            mark: Mark::InFlight,
            transmissions: 0,
            sent_at: Instant::ZERO,
            order: 0,
            stamp: Stamp::default(),
            sum,
            run_end: 0,
            slot,
        });
    }

    /// Ends the stream: FIN goes with the last data if that was not sent yet, else alone.
    pub fn push_fin(&mut self) {
        debug_assert!(!self.fin);
        if self.next == self.entries.len() {
            self.push(Slot::Empty, 0, 0, Some(Sum::new()));
        }
        if let Some(last) = self.entries.back_mut() {
            last.fin = true;
        }
        self.fin = true;
        self.end += 1;
    }

    /// Gives out the frame of an entry to be sent, and notes the transmission. `None` for a FIN alone, and if the NIC
    /// has the frame.
    pub fn take_for_transmission(
        &mut self,
        index: usize,
        now: Instant,
        transmission: Transmission,
    ) -> Option<TxFrame> {
        if self.entries.get(index).is_some_and(|entry| entry.transmissions > 0) {
            self.set_mark(index, Mark::InFlight);
        }
        let entry = self.entries.get_mut(index)?;
        if entry.transmissions == 0 {
            debug_assert_eq!(index, self.next, "entries are sent in order");
            self.next += 1;
            self.sent += entry.sequence_len();
        }
        entry.transmissions += 1;
        entry.sent_at = now;
        entry.order = transmission.order;
        entry.stamp = transmission.stamp;
        match core::mem::replace(&mut entry.slot, Slot::Away) {
            Slot::Home(frame) => Some(frame),
            slot => {
                entry.slot = slot;
                None
            }
        }
    }

    /// Gives out the frames of the first `n` entries that were never sent, with `len` bytes each, and notes their transmissions,
    /// which begin with `first`: each has the number after the one before, and what was in flight then is more by that one. Each
    /// frame comes with where its entry starts, and with the sum of its payload if that is known.
    pub fn take_followers(
        &mut self,
        n: usize,
        len: usize,
        now: Instant,
        first: Transmission,
        mut each: impl FnMut(u64, Option<Sum>, TxFrame),
    ) {
        let Transmission { mut order, mut stamp } = first;
        let end = (self.next + n).min(self.entries.len());
        for entry in self.entries.range_mut(self.next..end) {
            debug_assert_eq!((entry.transmissions, entry.sequence_len()), (0, len), "they are new, and full");
            (entry.transmissions, entry.sent_at, entry.order, entry.stamp) = (1, now, order, stamp);
            order += 1;
            stamp.in_flight = stamp.in_flight.saturating_add(len as u32);
            if let Slot::Home(frame) = core::mem::replace(&mut entry.slot, Slot::Away) {
                each(entry.start, entry.sum, frame);
            }
        }
        self.sent += (end - self.next) * len;
        self.next = end;
    }

    /// The NIC is done with the frame of the entry that starts at `start`. If the entry is acknowledged, the frame goes
    /// to the pool. Returns whether it did.
    pub fn complete<P: FramePool>(&mut self, pool: &mut P, frame: CompletedFrame, start: u64) -> bool {
        let is_next = self.entries.get(self.completes).is_some_and(|entry| entry.start == start);
        let index = if is_next { Some(self.completes) } else { self.find(start) };
        self.completes = index.map_or(self.completes, |index| index + 1);
        match index.and_then(|index| self.entries.get_mut(index)) {
            Some(entry) if matches!(entry.slot, Slot::Away) => {
                entry.slot = Slot::Home(frame.into_tx(0));
                false
            }
            _ => {
                pool.release_completed(frame);
                true
            }
        }
    }

    /// Changes what is believed of a sent entry.
    pub fn set_mark(&mut self, index: usize, mark: Mark) {
        let sent = index < self.next;
        let Some(entry) = self.entries.get_mut(index).filter(|_| sent) else { return };
        let (old, len) = (core::mem::replace(&mut entry.mark, mark), entry.sequence_len());
        match old {
            Mark::InFlight => {}
            Mark::Sacked => {
                self.sacked -= len;
                self.sacked_entries -= 1;
            }
            Mark::Lost => self.lost -= len,
        }
        match mark {
            Mark::InFlight => {}
            Mark::Sacked => {
                self.sacked += len;
                self.sacked_entries += 1;
            }
            Mark::Lost => self.lost += len,
        }
    }

    /// Marks an entry as sacked, one of a run that is sacked as a whole up to `run_end`.
    pub fn set_sacked(&mut self, index: usize, run_end: u64) {
        self.set_mark(index, Mark::Sacked);
        if let Some(entry) = self.entries.get_mut(index) {
            entry.run_end = run_end;
        }
    }

    /// The index behind what is known to be sacked from `index` on, which is sacked. Where one run borders on the next,
    /// the knowledge is joined, so that the same way is shorter the next time (path halving, as in a union-find).
    pub fn skip_sacked(&mut self, index: usize) -> usize {
        let Some(end) = self.entries.get(index).map(|entry| entry.run_end) else { return index + 1 };
        let next = self.entries.partition_point(|entry| entry.start < end).max(index + 1);
        let joined =
            self.entries.get(next).filter(|entry| entry.mark == Mark::Sacked).map(|entry| entry.run_end);
        if let (Some(joined), Some(entry)) = (joined, self.entries.get_mut(index)) {
            entry.run_end = joined;
        }
        next
    }

    /// Gives all frames that are here back.
    pub fn clear<P: FramePool>(&mut self, pool: &mut P) {
        for entry in self.entries.drain(..) {
            if let Slot::Home(frame) = entry.slot {
                pool.release_tx(frame);
            }
        }
        (self.next, self.bytes, self.sent, self.sacked, self.lost) = (0, 0, 0, 0, 0);
        (self.sacked_entries, self.chunks, self.completes) = (0, 0, 0);
    }

    /// Panics if the queue contradicts itself.
    pub fn check_invariants(&self, una: u64, nxt: u64) {
        let mut at = self.entries.front().map_or(self.end, |entry| entry.start);
        let (mut bytes, mut sent, mut sacked, mut lost, mut sacked_entries) = (0, 0, 0, 0, 0);
        let chunks = self.entries.iter().map(|entry| usize::from(entry.chunks));
        assert_eq!(chunks.sum::<usize>(), self.chunks, "chunks");
        for (index, entry) in self.entries.iter().enumerate() {
            assert_eq!(entry.start, at, "entries follow each other");
            assert_eq!(self.find(entry.start), Some(index), "an entry is found by where it starts");
            assert!(entry.sequence_len() > 0, "no entry is empty");
            assert!(!entry.fin || index + 1 == self.entries.len(), "FIN comes last");
            at = entry.end();
            bytes += entry.len;
            assert_eq!(index < self.next, entry.transmissions > 0, "sent entries come first");
            if index < self.next {
                let len = entry.sequence_len();
                sent += len;
                sacked += if entry.mark == Mark::Sacked { len } else { 0 };
                sacked_entries += usize::from(entry.mark == Mark::Sacked);
                lost += if entry.mark == Mark::Lost { len } else { 0 };
            } else {
                assert_eq!(entry.mark, Mark::InFlight);
            }
        }
        assert_eq!(at, self.end, "the queue ends where the next write goes");
        assert_eq!((bytes, sent, sacked, lost), (self.bytes, self.sent, self.sacked, self.lost), "counters");
        assert_eq!(sacked_entries, self.sacked_entries, "sacked entries");
        let first_unsent = self.entries.get(self.next).map_or(self.end, |entry| entry.start);
        assert_eq!(first_unsent, nxt, "SND.NXT is where the unsent entries start");
        if let Some(first) = self.entries.front() {
            assert!(
                first.start <= una && (una < first.end() || self.next == 0),
                "SND.UNA is in the first entry"
            );
        }
    }
}
