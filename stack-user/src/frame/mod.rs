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
//! itself goes: every path that is done with a frame gives it back (`RxFrame::into_free`, then
//! [`FramePool::release`]), and the tests count.

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
    chunk: u32,
    /// Bytes from the chunk's start to the first byte of the view.
    offset: u16,
    /// Bytes in the view.
    len: u16,
}

/// A chunk that holds bytes to send. They start at the pool's fixed TX offset, so only the length varies.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not released leaks its chunk"]
pub struct TxFrame {
    chunk: u32,
    len: u16,
}

/// A chunk that the NIC has sent and given back; its bytes are still there, to retransmit from.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not released leaks its chunk"]
pub struct CompletedFrame {
    chunk: u32,
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

    /// Bytes that a [`TxFrame`] can hold.
    fn tx_capacity(&self) -> usize;

    /// The bytes of a received frame.
    fn rx_bytes(&self, frame: &RxFrame) -> &[u8];

    /// The bytes of a frame to send, as long as its length says.
    fn tx_bytes(&self, frame: &TxFrame) -> &[u8];

    /// All of a frame's room ([`tx_capacity`](Self::tx_capacity) bytes), whatever its length says.
    fn tx_buffer(&mut self, frame: &mut TxFrame) -> &mut [u8];

    /// Copies `bytes` into a chunk, as if they had been received. What doesn't fit is cut off.
    fn receive(&mut self, frame: FreeFrame, bytes: &[u8]) -> RxFrame;

    /// Gives back a received frame.
    fn release_rx(&mut self, frame: RxFrame) {
        self.release(frame.into_free());
    }

    /// Gives back a frame that is not going to be sent (any more).
    fn release_tx(&mut self, frame: TxFrame) {
        self.release(frame.into_free());
    }
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
        TxFrame { chunk: self.chunk, len: 0 }
    }

    /// The chunk after a device wrote `len` bytes at `offset` into it.
    pub(crate) fn into_rx(self, offset: u16, len: u16) -> RxFrame {
        RxFrame { chunk: self.chunk, offset, len }
    }
}

impl RxFrame {
    /// The chunk's number in its UMEM.
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Bytes from the chunk's start to the first byte of the view.
    pub fn offset(&self) -> usize {
        usize::from(self.offset)
    }

    /// Bytes in the view.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the view has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts `n` bytes off the front; more than there are leaves an empty view.
    pub fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len()) as u16;
        self.offset += n;
        self.len -= n;
    }

    /// Keeps at most the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len.try_into().unwrap_or(u16::MAX));
    }

    /// Done with the bytes.
    pub fn into_free(self) -> FreeFrame {
        FreeFrame { chunk: self.chunk }
    }
}

impl TxFrame {
    /// The chunk's number in its UMEM.
    pub fn chunk(&self) -> u32 {
        self.chunk
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

    /// Done with the bytes.
    pub fn into_free(self) -> FreeFrame {
        FreeFrame { chunk: self.chunk }
    }
}

impl CompletedFrame {
    /// The handle of a chunk that a completion ring named. The device that put the frame of that chunk on its
    /// TX ring, and so swallowed its handle, is the only one that may call this.
    pub(crate) fn mint(chunk: u32) -> Self {
        Self { chunk }
    }

    /// The chunk's number in its UMEM.
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Back to a frame that can be sent again; `len` is its length.
    pub fn into_tx(self, len: usize) -> TxFrame {
        let mut frame = TxFrame { chunk: self.chunk, len: 0 };
        frame.set_len(len);
        frame
    }

    /// Done with the bytes.
    pub fn into_free(self) -> FreeFrame {
        FreeFrame { chunk: self.chunk }
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
