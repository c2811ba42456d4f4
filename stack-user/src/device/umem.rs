//! The memory that frames lie in.

use std::{alloc, fmt, ptr::NonNull};

use crate::frame::{FramePool, FreeFrame, RxFrame, TxFrame};

/// Bytes in a chunk. A page: smaller, and igb cuts larger frames silently; larger needs huge pages.
pub const CHUNK_SIZE: usize = 4096;

/// Where a frame to send starts in its chunk: XDP_PACKET_HEADROOM, where xsk-rs has every frame start.
pub const TX_OFFSET: usize = 256;

/// A region cut into chunks of [`CHUNK_SIZE`] bytes, and the list of those that are free.
///
/// The free list is a stack: the chunk that was released last is the one whose bytes are still in the cache.
pub struct Umem {
    base: NonNull<u8>,
    chunks: u32,
    free: Vec<FreeFrame>,
    /// Keeps the region mapped.
    _region: Region,
}

enum Region {
    Heap(HeapRegion),
}

// SAFETY: `Umem` is the only way to the region's bytes (the pointer is never handed out), and it gives out
// references that borrow from itself, so sending it to another thread moves that exclusive access along.
unsafe impl Send for Umem {}

impl Umem {
    /// A region on the heap, for devices in memory. Needs no privilege.
    ///
    /// # Errors
    /// When there is no memory for `chunks` chunks.
    pub fn on_heap(chunks: u32) -> std::io::Result<Self> {
        let region = HeapRegion::new(chunks)?;
        Ok(Self::over(region.base, chunks, Region::Heap(region)))
    }

    fn over(base: NonNull<u8>, chunks: u32, region: Region) -> Self {
        // Pushed backwards, so that the first chunks are handed out first.
        let free = (0..chunks).rev().map(FreeFrame::mint).collect();
        Self { base, chunks, free, _region: region }
    }

    /// A received frame's bytes, to change them: what a faulty wire does.
    pub fn rx_bytes_mut(&mut self, frame: &mut RxFrame) -> &mut [u8] {
        let (offset, len) = self.clamp(frame.chunk(), frame.offset(), frame.len());
        // SAFETY: as in `bytes`; `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }

    /// The part of `offset..offset + len` of a chunk that really is in that chunk, from the region's start.
    fn clamp(&self, chunk: u32, offset: usize, len: usize) -> (usize, usize) {
        if chunk >= self.chunks {
            return (0, 0);
        }
        let offset = offset.min(CHUNK_SIZE);
        (chunk as usize * CHUNK_SIZE + offset, len.min(CHUNK_SIZE - offset))
    }

    fn bytes(&self, chunk: u32, offset: usize, len: usize) -> &[u8] {
        let (offset, len) = self.clamp(chunk, offset, len);
        // SAFETY: `clamp` keeps the range inside the region, which lives as long as `self`. Whoever asks holds
        // the chunk's only handle, so neither the NIC nor anybody else writes to it, and safe code can't while
        // `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
    }
}

impl FramePool for Umem {
    fn allocate(&mut self) -> Option<FreeFrame> {
        self.free.pop()
    }

    fn release(&mut self, frame: FreeFrame) {
        debug_assert!(self.free.len() < self.chunks as usize, "a chunk was released twice");
        self.free.push(frame);
    }

    fn available(&self) -> usize {
        self.free.len()
    }

    fn chunks(&self) -> usize {
        self.chunks as usize
    }

    fn tx_capacity(&self) -> usize {
        CHUNK_SIZE - TX_OFFSET
    }

    fn rx_bytes(&self, frame: &RxFrame) -> &[u8] {
        self.bytes(frame.chunk(), frame.offset(), frame.len())
    }

    fn tx_bytes(&self, frame: &TxFrame) -> &[u8] {
        self.bytes(frame.chunk(), TX_OFFSET, frame.len())
    }

    fn tx_buffer(&mut self, frame: &mut TxFrame) -> &mut [u8] {
        let (offset, len) = self.clamp(frame.chunk(), TX_OFFSET, CHUNK_SIZE - TX_OFFSET);
        // SAFETY: as in `bytes`; `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem").field("chunks", &self.chunks).field("free", &self.free.len()).finish()
    }
}

/// Zeroed pages of our own.
struct HeapRegion {
    base: NonNull<u8>,
    layout: alloc::Layout,
}

impl HeapRegion {
    fn new(chunks: u32) -> std::io::Result<Self> {
        let out_of_memory = || std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let size = (chunks.max(1) as usize).checked_mul(CHUNK_SIZE).ok_or_else(out_of_memory)?;
        let layout = alloc::Layout::from_size_align(size, CHUNK_SIZE).map_err(|_| out_of_memory())?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        Ok(Self { base, layout })
    }
}

impl Drop for HeapRegion {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc_zeroed` with this layout, and is freed once.
        unsafe { alloc::dealloc(self.base.as_ptr(), self.layout) }
    }
}
