//! Ownership of a frame is a type.
//!
//! The memory that the NIC reads and writes (the UMEM) is cut into *chunks* of equal size. Whoever holds the
//! handle of a chunk owns it; handles are neither `Copy` nor `Clone`, so a chunk has exactly one owner:
//!
//! ```text
//!                allocate                    fill ring, then a frame arrives
//!   FramePool ────────────▶ FreeFrame ──────────────────────────────────────▶ RxFrame ──▶ connection
//!       ▲                       │                                                │            │
//!       │ release               │ into_tx                                        │ into_free  │ into_free
//!       │                       ▼                                                ▼            ▼
//!       └─────────────────── TxFrame ──▶ TX ring ──▶ CompletedFrame ──▶ connection, or FramePool again
//! ```
//!
//! A handle holds no pointer: bytes are reached through the pool that the chunk belongs to, which checks the
//! range. Handles are 8 bytes, so queues of them stay small. Dropping a handle leaks its chunk until the pool
//! itself goes: every path that is done with a frame gives it back ([`FramePool::release_rx`] and its like), and the
//! tests count.
//!
//! # Long frames
//!
//! A frame that is longer than a chunk lies in several, its *pieces*. It has one handle all the same: that of its first
//! chunk, marked as [long](RxFrame::is_long). The pool knows which chunk comes next, and owns the others on behalf of the
//! handle. So a frame moves, waits, is lost or given back as one thing, and whoever has no business with its bytes need
//! not know that it is long; what is not long costs a look at one bit. A handle's length is that of the whole frame.
//!
//! - *In*, pieces lie as the NIC cut them. Headers must be in the first; payload is read piece by piece
//!   ([`FramePool::rx_pieces`]), or the frame is taken apart into frames of one chunk ([`FramePool::split_rx`]), which is how
//!   TCP queues it. Nothing is copied together.
//! - *Out*, every piece but the last is full, so a byte's place follows from its number. A piece starts where any frame
//!   does, since descriptors point there: when a long segment has to be cut, its bytes are moved, as those of a short one
//!   are.

use std::borrow::Cow;

use crate::wire::checksum::Sum;

/// Chunks that one frame lies in at most. The kernel's limit is `CONFIG_MAX_SKB_FRAGS`, which is 45 at most, and the linear
/// part. Lower, and frames that such a kernel sends are refused; higher, and a frame of empty pieces holds more chunks.
pub const MAX_CHUNKS: usize = 46;

/// A chunk's number, and whether its frame goes on in another chunk.
#[derive(Debug, PartialEq, Eq)]
struct Chunk(u32);

impl Chunk {
    /// No UMEM has so many chunks that the number would need this bit.
    const LONG: u32 = 1 << 31;

    fn new(number: u32, is_long: bool) -> Self {
        Self(number & !Self::LONG | if is_long { Self::LONG } else { 0 })
    }

    fn number(&self) -> u32 {
        self.0 & !Self::LONG
    }

    fn is_long(&self) -> bool {
        self.0 & Self::LONG != 0
    }

    /// Only the pool can give back what lies behind the first chunk.
    fn into_free(self) -> FreeFrame {
        debug_assert!(!self.is_long(), "a long frame is given back as a whole");
        FreeFrame { chunk: self.number() }
    }
}

/// An empty chunk: nobody reads or writes it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not released leaks its chunk"]
pub struct FreeFrame {
    chunk: u32,
}

/// A chunk that holds received bytes. Trimming it narrows the view, it moves no byte.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not released leaks its chunk"]
pub struct RxFrame {
    chunk: Chunk,
    /// Bytes from the chunk's start to the first byte of the view.
    offset: u16,
    /// Bytes in the view, those in further chunks included.
    len: u16,
}

/// A chunk that holds bytes to send. They start at the pool's fixed TX offset, so only the length varies.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not released leaks its chunk"]
pub struct TxFrame {
    chunk: Chunk,
    len: u16,
}

/// A chunk that the NIC has sent and given back; its bytes are still there, to retransmit from.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not released leaks its chunk"]
pub struct CompletedFrame {
    chunk: Chunk,
}

/// The chunks of one UMEM that nobody uses, and access to the bytes of those that somebody does.
pub trait FramePool {
    /// Takes an empty chunk, or `None` when all are in use.
    fn allocate(&mut self) -> Option<FreeFrame>;

    /// Gives a chunk back.
    fn release(&mut self, frame: FreeFrame);

    /// Chunks that `allocate` can still hand out.
    fn available(&self) -> usize;

    /// Chunks in the UMEM, whoever owns them. Every chunk number is below this.
    fn chunks(&self) -> usize;

    /// Bytes of a frame to send that one chunk can hold.
    fn tx_capacity(&self) -> usize;

    /// Bytes of a frame to send, in as many chunks as the NIC takes for one: [`tx_capacity`](Self::tx_capacity) or more.
    fn tx_frame_capacity(&self) -> usize;

    /// The bytes of a received frame: of a long one, those in its first chunk.
    fn rx_bytes(&self, frame: &RxFrame) -> &[u8];

    /// The bytes of a received frame, chunk by chunk.
    fn rx_pieces(&self, frame: &RxFrame) -> impl Iterator<Item = &[u8]> + Clone;

    /// The bytes of a frame to send, as long as its length says: of a long one, those in its first chunk.
    fn tx_bytes(&self, frame: &TxFrame) -> &[u8];

    /// The bytes of a frame to send, chunk by chunk.
    fn tx_pieces(&self, frame: &TxFrame) -> impl Iterator<Item = &[u8]> + Clone;

    /// All of the room in a frame's first chunk ([`tx_capacity`](Self::tx_capacity) bytes), whatever its length says.
    fn tx_buffer(&mut self, frame: &mut TxFrame) -> &mut [u8];

    /// Copies `bytes` into a frame to send, from its byte `at` on, and returns how many: its chunks may have less room.
    fn tx_write(&mut self, frame: &mut TxFrame, at: usize, bytes: &[u8]) -> usize;

    /// The same, and the sum of what was copied, for a checksum.
    fn tx_write_summed(&mut self, frame: &mut TxFrame, at: usize, bytes: &[u8]) -> (usize, Sum);

    /// Copies bytes of a frame to send, from `at` on, whatever its length says, and returns how many.
    fn tx_read(&self, frame: &TxFrame, at: usize, out: &mut [u8]) -> usize;

    /// Chunks of a frame to send.
    fn tx_chunks(&self, frame: &TxFrame) -> usize;

    /// Makes a frame to send longer by the room in another chunk.
    fn grow_tx(&mut self, frame: &mut TxFrame, chunk: FreeFrame);

    /// Gives back the chunks that `len` bytes of a frame to send do not need.
    fn shrink_tx(&mut self, frame: &mut TxFrame, len: usize);

    /// Copies `bytes` into a chunk, as if they had been received. What doesn't fit is cut off.
    fn receive(&mut self, frame: FreeFrame, bytes: &[u8]) -> RxFrame;

    /// Puts what was received behind a frame at its end.
    ///
    /// # Errors
    /// The piece, if the frame would have more than [`MAX_CHUNKS`], or more bytes than a handle can say (65535).
    fn append_rx(&mut self, frame: &mut RxFrame, piece: RxFrame) -> Result<(), RxFrame>;

    /// Takes a long frame apart: `frame` keeps what is in its first chunk, and what is behind it is a frame of its own. `None`
    /// if it is not long.
    fn split_rx(&mut self, frame: &mut RxFrame) -> Option<RxFrame>;

    /// Cuts `n` bytes off the front, and gives back the chunks that are left empty, but for the last.
    fn trim_rx(&mut self, frame: &mut RxFrame, n: usize) {
        let mut n = n.min(frame.len());
        while frame.is_long() {
            let first = self.rx_bytes(frame).len();
            if n < first {
                break;
            }
            let Some(rest) = self.split_rx(frame) else { break };
            n -= first;
            self.release(core::mem::replace(frame, rest).into_free());
        }
        frame.trim_front(n);
    }

    /// Copies `bytes` into as many chunks as it takes, as if they had been received; `None` if there are not as many, or
    /// there are more bytes than a frame can have.
    fn receive_whole(&mut self, bytes: &[u8]) -> Option<RxFrame> {
        let free = self.allocate()?;
        let mut frame = self.receive(free, bytes);
        while let Some(rest) = bytes.get(frame.len()..).filter(|rest| !rest.is_empty()) {
            let piece = self.allocate().map(|free| self.receive(free, rest));
            let appended = piece.map(|piece| self.append_rx(&mut frame, piece));
            match appended {
                Some(Ok(())) => {}
                refused => {
                    if let Some(Err(piece)) = refused {
                        self.release_rx(piece);
                    }
                    self.release_rx(frame);
                    return None;
                }
            }
        }
        Some(frame)
    }

    /// Makes sure that a frame to send has room for `len` bytes. If there are not enough chunks, `false`: it stays as it was.
    fn reserve_tx(&mut self, frame: &mut TxFrame, len: usize) -> bool {
        let wanted = len.div_ceil(self.tx_capacity()).max(1);
        let more = wanted.saturating_sub(self.tx_chunks(frame));
        if len > self.tx_frame_capacity() || more > self.available() {
            return false;
        }
        for _ in 0..more {
            let Some(chunk) = self.allocate() else { return false };
            self.grow_tx(frame, chunk);
        }
        true
    }

    /// An empty frame with room for `len` bytes; `None` if there are not enough chunks.
    fn allocate_tx(&mut self, len: usize) -> Option<TxFrame> {
        let mut frame = self.allocate()?.into_tx();
        if len > self.tx_capacity() && !self.reserve_tx(&mut frame, len) {
            self.release_tx(frame);
            return None;
        }
        Some(frame)
    }

    /// All bytes of a received frame together: where they lie if that is in one chunk, else as a copy.
    fn rx_gather(&self, frame: &RxFrame) -> Cow<'_, [u8]> {
        match frame.is_long() {
            false => Cow::Borrowed(self.rx_bytes(frame)),
            true => Cow::Owned(self.rx_pieces(frame).flatten().copied().collect()),
        }
    }

    /// All bytes of a frame to send together, likewise.
    fn tx_gather(&self, frame: &TxFrame) -> Cow<'_, [u8]> {
        match frame.is_long() {
            false => Cow::Borrowed(self.tx_bytes(frame)),
            true => Cow::Owned(self.tx_pieces(frame).flatten().copied().collect()),
        }
    }

    /// Gives back a received frame.
    #[inline]
    fn release_rx(&mut self, mut frame: RxFrame) {
        while let Some(rest) = self.split_rx(&mut frame) {
            self.release(core::mem::replace(&mut frame, rest).into_free());
        }
        self.release(frame.into_free());
    }

    /// Gives back a frame that is not going to be sent (any more).
    fn release_tx(&mut self, mut frame: TxFrame) {
        if frame.is_long() {
            self.shrink_tx(&mut frame, 0);
        }
        self.release(frame.into_free());
    }

    /// Gives back a frame that has been sent.
    fn release_completed(&mut self, frame: CompletedFrame) {
        self.release_tx(frame.into_tx(0));
    }
}

/// The pieces of a frame without `header_len` bytes at the front, which are in the first.
pub(crate) fn behind<'a>(
    header_len: usize,
    pieces: impl Iterator<Item = &'a [u8]> + Clone,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    let mut skip = header_len;
    pieces.map(move |piece| {
        let header = core::mem::take(&mut skip);
        piece.get(header..).unwrap_or_default()
    })
}

impl FreeFrame {
    /// A handle for a chunk that has none. Only a UMEM that lays out its chunks may call this, once for each.
    pub(crate) fn mint(chunk: u32) -> Self {
        Self { chunk }
    }

    /// The chunk's number in its UMEM.
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// The chunk as a frame to write; it is empty at first.
    pub fn into_tx(self) -> TxFrame {
        TxFrame { chunk: Chunk::new(self.chunk, false), len: 0 }
    }

    /// The chunk after a device wrote `len` bytes at `offset` into it.
    pub(crate) fn into_rx(self, offset: u16, len: u16) -> RxFrame {
        RxFrame { chunk: Chunk::new(self.chunk, false), offset, len }
    }
}

impl RxFrame {
    /// What the pool keeps of a frame behind its first chunk, as a frame.
    pub(crate) fn piece(chunk: u32, is_long: bool, offset: u16, len: u16) -> Self {
        Self { chunk: Chunk::new(chunk, is_long), offset, len }
    }

    /// The pool has put a piece of `len` bytes at the end.
    pub(crate) fn appended(&mut self, len: u16) {
        self.chunk = Chunk::new(self.chunk(), true);
        self.len += len;
    }

    /// The pool has taken all away that is not among the first `len` bytes.
    pub(crate) fn only_first(&mut self, len: usize) {
        self.chunk = Chunk::new(self.chunk(), false);
        self.truncate(len);
    }

    /// The (first) chunk's number in its UMEM.
    pub fn chunk(&self) -> u32 {
        self.chunk.number()
    }

    /// Whether the frame goes on in another chunk.
    pub fn is_long(&self) -> bool {
        self.chunk.is_long()
    }

    /// Bytes from the chunk's start to the first byte of the view.
    pub fn offset(&self) -> usize {
        usize::from(self.offset)
    }

    /// Bytes in the view, those in further chunks included.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the view has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts `n` bytes off the front; more than there are leaves an empty view. Of a long frame, they must be in its first
    /// chunk, as headers are; [`FramePool::trim_rx`] cuts off any number.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len()) as u16;
        self.offset = self.offset.saturating_add(n);
        self.len -= n;
    }

    /// Keeps at most the first `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len.try_into().unwrap_or(u16::MAX));
    }

    /// Done with the bytes of a frame in one chunk. A long one is given back as a whole, by the pool.
    #[inline]
    pub fn into_free(self) -> FreeFrame {
        self.chunk.into_free()
    }
}

impl TxFrame {
    /// The pool has put a chunk at the end, or taken all away but the first.
    pub(crate) fn set_long(&mut self, is_long: bool) {
        self.chunk = Chunk::new(self.chunk(), is_long);
    }

    /// The (first) chunk's number in its UMEM.
    pub fn chunk(&self) -> u32 {
        self.chunk.number()
    }

    /// Whether the frame goes on in another chunk.
    pub fn is_long(&self) -> bool {
        self.chunk.is_long()
    }

    /// Bytes to send.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets how many bytes to send.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.try_into().unwrap_or(u16::MAX);
    }

    /// The frame was sent, or dropped as if it had been: for whoever plays the NIC.
    pub fn into_completed(self) -> CompletedFrame {
        CompletedFrame { chunk: self.chunk }
    }

    /// Done with the bytes of a frame in one chunk. A long one is given back as a whole, by the pool.
    pub fn into_free(self) -> FreeFrame {
        self.chunk.into_free()
    }
}

impl CompletedFrame {
    /// The handle of a chunk that a completion ring named. The device that put the frame of that chunk on its
    /// TX ring, and so swallowed its handle, is the only one that may call this.
    pub(crate) fn mint(chunk: u32) -> Self {
        Self { chunk: Chunk::new(chunk, false) }
    }

    /// The same for a long frame, all of whose chunks have come back.
    pub(crate) fn mint_long(chunk: u32) -> Self {
        Self { chunk: Chunk::new(chunk, true) }
    }

    /// The (first) chunk's number in its UMEM.
    pub fn chunk(&self) -> u32 {
        self.chunk.number()
    }

    /// Whether the frame goes on in another chunk.
    pub fn is_long(&self) -> bool {
        self.chunk.is_long()
    }

    /// Back to a frame that can be sent again; `len` is its length.
    pub fn into_tx(self, len: usize) -> TxFrame {
        let mut frame = TxFrame { chunk: self.chunk, len: 0 };
        frame.set_len(len);
        frame
    }

    /// Done with the bytes of a frame in one chunk. A long one is given back as a whole, by the pool.
    pub fn into_free(self) -> FreeFrame {
        self.chunk.into_free()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_narrows_the_view_and_never_passes_its_end() {
        let mut frame = FreeFrame::mint(3).into_rx(256, 100);
        frame.trim_front(54);
        assert_eq!((frame.offset(), frame.len()), (310, 46));
        frame.truncate(40);
        assert_eq!(frame.len(), 40);
        frame.truncate(4000);
        assert_eq!(frame.len(), 40);
        frame.trim_front(41);
        assert!(frame.is_empty());
        assert_eq!(frame.into_free().chunk(), 3);
    }

    #[test]
    fn handles_stay_small() {
        assert_eq!(size_of::<Option<RxFrame>>(), 12);
        assert_eq!(size_of::<RxFrame>(), 8);
        assert_eq!(size_of::<TxFrame>(), 8);
    }
}
