//! The memory that frames lie in.

use std::{alloc, collections::VecDeque, error::Error, fmt, io, num::NonZeroU32, ptr::NonNull, sync::Arc};

use xsk_rs::{FrameDesc, config::UmemConfig};

use super::long::{Link, MAX_TX_CHUNKS, Pieces};
use crate::{
    frame::{FramePool, FreeFrame, RxFrame, TxFrame},
    wire::checksum::Sum,
};

/// Bytes in a chunk, where there is no reason for larger ones: a page.
///
/// Lower (2048), and some drivers cut a frame of full size to half of it without a word (igb does); higher, and most
/// kernels refuse it, since their pages are no larger.
pub const CHUNK_SIZE: usize = 4096;

/// Bytes in a chunk at most: a frame of 9000 bytes, the usual long one, fits in one of these, where pages are as large. Higher,
/// and four times the memory is for frames that hardly any network has.
pub const MAX_CHUNK_SIZE: usize = 16_384;

/// Where a frame starts in its chunk: `XDP_PACKET_HEADROOM`, where the kernel puts those that it receives.
///
/// Lower, and an XDP program has no room to put a header in front; higher is wasted, and no choice of ours: the
/// descriptors that xsk-rs hands out point here.
pub const TX_OFFSET: usize = 256;

/// A region cut into chunks of equal size, and the list of those that are free.
///
/// The free list is a stack: the chunk that was released last is the one whose bytes are still in the cache.
pub struct Umem {
    base: NonNull<u8>,
    chunks: u32,
    /// Bytes in a chunk are 2 to the power of this.
    chunk_shift: u32,
    chunk_size: usize,
    free: VecDeque<FreeFrame>,
    /// By chunk: where a long frame goes on behind it.
    pub(super) links: Box<[Link]>,
    /// Chunks that the NIC takes for one frame to send.
    tx_chunks_max: usize,
    /// Keeps the region mapped; so do the views of frames.
    region: Arc<Region>,
}

pub(super) enum Region {
    Heap(#[expect(dead_code, reason = "owns the pages until the end")] HeapRegion),
    Shared(SharedRegion),
}

// SAFETY: a region is memory and a registration of it with the kernel, neither of which belongs to a thread. Its methods
// are called through the one `Umem` that has it; whoever else shares it only keeps it mapped.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

// SAFETY: safe code reaches the region's bytes through references that borrow from the `Umem`, so that sending it to another
// thread moves that access along, or through a view, which owns its chunk's handle and so shares no byte with it.
unsafe impl Send for Umem {}

impl Umem {
    /// A region on the heap, for devices in memory, cut into chunks of [`CHUNK_SIZE`] bytes. Needs no privilege.
    ///
    /// # Errors
    /// When there is no memory for `chunks` chunks.
    pub fn on_heap(chunks: u32) -> io::Result<Self> {
        Self::on_heap_of(chunks, CHUNK_SIZE)
    }

    /// The same with chunks of another size, a power of two up to [`MAX_CHUNK_SIZE`].
    ///
    /// # Errors
    /// When there is no memory, or the size is none for a chunk.
    pub fn on_heap_of(chunks: u32, chunk_size: usize) -> io::Result<Self> {
        if !chunk_size.is_power_of_two() || chunk_size <= TX_OFFSET || chunk_size > MAX_CHUNK_SIZE {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let region = HeapRegion::new(chunks, chunk_size)?;
        Ok(Self::over(region.base, chunks, chunk_size, Region::Heap(region)))
    }

    /// A region that the kernel knows too, for AF_XDP sockets, on `huge_pages` or not. `config` must ask for chunks without
    /// headroom of their own.
    ///
    /// # Errors
    /// When the kernel does not register the region: no AF_XDP, no privilege, too much locked memory, too few huge pages.
    pub(super) fn shared(chunks: NonZeroU32, config: UmemConfig, huge_pages: bool) -> io::Result<Self> {
        let chunk_size = config.frame_size().get() as usize;
        let region = SharedRegion::new(chunks, config, huge_pages)?;
        Ok(Self::over(region.base, chunks.get(), chunk_size, Region::Shared(region)))
    }

    fn over(base: NonNull<u8>, chunks: u32, chunk_size: usize, region: Region) -> Self {
        // Pushed backwards, so that the first chunks are handed out first.
        let free = (0..chunks).rev().map(FreeFrame::mint).collect();
        Self {
            base,
            chunks,
            chunk_shift: chunk_size.ilog2(),
            chunk_size,
            free,
            links: vec![Link::default(); chunks as usize].into_boxed_slice(),
            tx_chunks_max: MAX_TX_CHUNKS,
            region: Arc::new(region),
        }
    }

    /// Bytes in a chunk.
    pub fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// What a descriptor's address says: the chunk's number, and the offset in it.
    pub(super) fn chunk_at(&self, address: usize) -> (u32, usize) {
        ((address >> self.chunk_shift) as u32, address & (self.chunk_size() - 1))
    }

    /// The NIC takes frames to send in so many chunks, [`MAX_TX_CHUNKS`] at most.
    pub fn limit_tx_chunks(&mut self, max: usize) {
        self.tx_chunks_max = max.clamp(1, MAX_TX_CHUNKS);
    }

    /// As [`allocate`](FramePool::allocate), but of the free chunks that which was released longest ago.
    pub(super) fn allocate_oldest(&mut self) -> Option<FreeFrame> {
        self.free.pop_front()
    }

    /// What keeps the bytes of views mapped.
    pub(super) fn region(&self) -> Arc<Region> {
        Arc::clone(&self.region)
    }

    /// Copies `bytes` into a chunk, where a NIC puts what it receives. What doesn't fit is cut off.
    pub fn receive(&mut self, frame: FreeFrame, bytes: &[u8]) -> RxFrame {
        let chunk = self.bytes_mut(frame.chunk(), TX_OFFSET, bytes.len());
        let len = chunk.len();
        chunk.copy_from_slice(&bytes[..len]);
        frame.into_rx(TX_OFFSET as u16, len as u16)
    }

    /// What AF_XDP sockets share, if the kernel knows this region.
    pub(super) fn as_shared(&self) -> Option<&SharedRegion> {
        match &*self.region {
            Region::Shared(region) => Some(region),
            Region::Heap(_) => None,
        }
    }

    /// The part of `offset..offset + len` of a chunk that really is in that chunk, from the region's start.
    #[inline]
    fn clamp(&self, chunk: u32, offset: usize, len: usize) -> (usize, usize) {
        if chunk >= self.chunks {
            return (0, 0);
        }
        let size = self.chunk_size();
        let offset = offset.min(size);
        (chunk as usize * size + offset, len.min(size - offset))
    }

    #[inline]
    pub(super) fn bytes(&self, chunk: u32, offset: usize, len: usize) -> &[u8] {
        let (offset, len) = self.clamp(chunk, offset, len);
        // SAFETY: `clamp` keeps the range inside the region, which lives as long as `self`. Whoever asks holds
        // the chunk's only handle, so neither the NIC nor anybody else writes to it, and safe code can't while
        // `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self, chunk: u32, offset: usize, len: usize) -> &mut [u8] {
        let (offset, len) = self.clamp(chunk, offset, len);
        // SAFETY: as in `bytes`; `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }
}

impl FramePool for Umem {
    #[inline]
    fn allocate(&mut self) -> Option<FreeFrame> {
        self.free.pop_back()
    }

    #[inline]
    fn release(&mut self, frame: FreeFrame) {
        debug_assert!(self.free.len() < self.chunks as usize, "a chunk was released twice");
        self.free.push_back(frame);
    }

    #[inline]
    fn available(&self) -> usize {
        self.free.len()
    }

    fn receive(&mut self, frame: FreeFrame, bytes: &[u8]) -> RxFrame {
        Self::receive(self, frame, bytes)
    }

    #[inline]
    fn chunks(&self) -> usize {
        self.chunks as usize
    }

    fn tx_capacity(&self) -> usize {
        self.chunk_size() - TX_OFFSET
    }

    fn tx_frame_capacity(&self) -> usize {
        (self.tx_capacity() * self.tx_chunks_max).min(usize::from(u16::MAX))
    }

    #[inline]
    fn rx_bytes(&self, frame: &RxFrame) -> &[u8] {
        let len = if frame.is_long() { self.first_piece(frame) } else { frame.len() };
        self.bytes(frame.chunk(), frame.offset(), len)
    }

    fn rx_pieces(&self, frame: &RxFrame) -> impl Iterator<Item = &[u8]> + Clone {
        Pieces::new(self, frame.chunk(), frame.is_long(), frame.offset(), frame.len())
    }

    fn tx_bytes(&self, frame: &TxFrame) -> &[u8] {
        // The chunk's end is where the first piece of a long one ends.
        self.bytes(frame.chunk(), TX_OFFSET, frame.len())
    }

    fn tx_pieces(&self, frame: &TxFrame) -> impl Iterator<Item = &[u8]> + Clone {
        Pieces::new(self, frame.chunk(), frame.is_long(), TX_OFFSET, frame.len())
    }

    #[inline]
    fn tx_buffer(&mut self, frame: &mut TxFrame) -> &mut [u8] {
        self.bytes_mut(frame.chunk(), TX_OFFSET, self.chunk_size() - TX_OFFSET)
    }

    fn tx_write(&mut self, frame: &mut TxFrame, at: usize, bytes: &[u8]) -> usize {
        self.write_by(frame, at, bytes, |_, from, to| to.copy_from_slice(from))
    }

    #[inline]
    fn tx_write_summed(&mut self, frame: &mut TxFrame, at: usize, bytes: &[u8]) -> (usize, Sum) {
        if at + bytes.len() > self.tx_capacity() {
            return self.write_summed_by_pieces(frame, at, bytes);
        }
        let room = self.bytes_mut(frame.chunk(), TX_OFFSET + at, bytes.len());
        (room.len(), Sum::of_copy(bytes, room))
    }

    fn tx_read(&self, frame: &TxFrame, at: usize, out: &mut [u8]) -> usize {
        self.read_pieces(frame, at, out)
    }

    fn tx_chunks(&self, frame: &TxFrame) -> usize {
        self.chunks_behind(frame.chunk(), frame.is_long()) + 1
    }

    fn grow_tx(&mut self, frame: &mut TxFrame, chunk: FreeFrame) {
        self.link_tx(frame, chunk);
    }

    fn shrink_tx(&mut self, frame: &mut TxFrame, len: usize) {
        self.unlink_tx(frame, len);
    }

    fn append_rx(&mut self, frame: &mut RxFrame, piece: RxFrame) -> Result<(), RxFrame> {
        self.link_rx(frame, piece)
    }

    #[inline]
    fn split_rx(&mut self, frame: &mut RxFrame) -> Option<RxFrame> {
        if frame.is_long() { self.unlink_rx(frame) } else { None }
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("chunks", &self.chunks)
            .field("chunk_size", &self.chunk_size())
            .field("free", &self.free.len())
            .finish()
    }
}

/// Zeroed pages of our own.
pub(super) struct HeapRegion {
    base: NonNull<u8>,
    layout: alloc::Layout,
}

impl HeapRegion {
    fn new(chunks: u32, chunk_size: usize) -> io::Result<Self> {
        let out_of_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let size = (chunks.max(1) as usize).checked_mul(chunk_size).ok_or_else(out_of_memory)?;
        let layout = alloc::Layout::from_size_align(size, chunk_size).map_err(|_| out_of_memory())?;
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

/// Pages that the kernel has registered as a UMEM, and the descriptor of every chunk in them.
pub(super) struct SharedRegion {
    umem: xsk_rs::Umem,
    base: NonNull<u8>,
    /// By chunk number. A descriptor of xsk-rs can't be made, only kept.
    descs: Vec<FrameDesc>,
}

impl SharedRegion {
    fn new(chunks: NonZeroU32, config: UmemConfig, huge_pages: bool) -> io::Result<Self> {
        let (umem, descs) =
            xsk_rs::Umem::new(config, chunks, huge_pages).map_err(|error| kernel_error(&error))?;
        let size = config.frame_size().get() as usize;
        let laid_out_as_ours =
            descs.iter().enumerate().all(|(chunk, desc)| desc.addr() == chunk * size + TX_OFFSET);
        let Some(first) = descs.first().filter(|_| laid_out_as_ours) else {
            return Err(io::Error::other("the UMEM's chunks are not laid out as asked for"));
        };
        // SAFETY: the descriptor is this UMEM's, and as nobody else has the UMEM yet, nobody uses its chunk.
        let first_data = unsafe { umem.data(first) }.contents().as_ptr();
        // The region is one mapping, of which the view above is the first chunk's data. Memory that came from
        // mmap has no other provenance than its address.
        let base = std::ptr::with_exposed_provenance_mut(first_data.expose_provenance() - TX_OFFSET);
        let base = NonNull::new(base).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { umem, base, descs })
    }

    /// What a socket is created on.
    pub(super) fn xsk(&self) -> &xsk_rs::Umem {
        &self.umem
    }

    /// The descriptor to give chunk `chunk` to the kernel with, its length set to `len`.
    pub(super) fn desc(&self, chunk: u32, len: usize) -> Option<FrameDesc> {
        let mut desc = *self.descs.get(chunk as usize)?;
        if len > 0 {
            // SAFETY: the descriptor is this UMEM's, and the caller holds the chunk's only handle. The cursor
            // only sets the length, and keeps it within the chunk.
            unsafe { self.umem.data_mut(&mut desc) }.cursor().set_pos(len);
        }
        Some(desc)
    }

    /// The region's address: no other region has it.
    pub(super) fn base(&self) -> usize {
        self.base.as_ptr().addr()
    }
}

/// What the kernel said, from an error of xsk-rs: its own text names only the step, the number is its source.
pub(super) fn kernel_error(error: &(dyn Error + 'static)) -> io::Error {
    let os = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let errno = os.and_then(io::Error::raw_os_error);
    errno.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_handed_out_once_and_its_bytes_are_its_own() {
        let mut umem = Umem::on_heap(4).expect("memory");
        let mut frames: Vec<TxFrame> =
            std::iter::from_fn(|| umem.allocate()).map(FreeFrame::into_tx).collect();
        assert_eq!(frames.iter().map(TxFrame::chunk).collect::<Vec<_>>(), [0, 1, 2, 3]);
        for frame in &mut frames {
            let number = frame.chunk() as u8;
            umem.tx_buffer(frame).fill(number);
            frame.set_len(usize::MAX);
        }
        for frame in &frames {
            let bytes = umem.tx_bytes(frame);
            assert_eq!(bytes.len(), umem.tx_capacity(), "a length beyond the chunk ends with the chunk");
            assert!(bytes.iter().all(|&byte| byte == frame.chunk() as u8));
        }
        frames.into_iter().for_each(|frame| umem.release_tx(frame));
        assert_eq!(umem.available(), 4);
    }

    #[test]
    fn a_handle_of_another_umem_reaches_no_byte() {
        let umem = Umem::on_heap(1).expect("memory");
        let stranger = FreeFrame::mint(1).into_rx(0, 100);
        assert!(umem.rx_bytes(&stranger).is_empty());
    }

    #[test]
    fn what_is_received_lies_where_a_nic_puts_it() {
        let mut umem = Umem::on_heap(1).expect("memory");
        let free = umem.allocate().expect("a chunk");
        let frame = umem.receive(free, b"frame");
        assert_eq!((umem.rx_bytes(&frame), frame.offset()), (&b"frame"[..], TX_OFFSET));
    }
}
