//! Frames whose bytes are reached without the UMEM at hand, for whoever reads or writes them in place.
//!
//! A view owns its frame's handle, and so the chunk: neither the NIC nor anybody else touches it until the frame is given
//! back. And it keeps the region mapped, however long it lives.

use std::{
    fmt,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
    slice,
    sync::Arc,
};

use super::umem::{Region, Umem};
use crate::frame::{FramePool, RxFrame, TxFrame};

/// Some bytes of a chunk.
struct Bytes {
    start: NonNull<u8>,
    len: usize,
    /// Keeps them mapped.
    _region: Arc<Region>,
}

// SAFETY: the bytes are plain memory that only the view's owner has access to: it holds the chunk's only handle.
unsafe impl Send for Bytes {}
// SAFETY: as above; shared, they are only read.
unsafe impl Sync for Bytes {}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: the range lay in the region when it was made from a slice, the region is mapped as long as we are, and
        // the view that we are part of holds the chunk's only handle.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above; the region is writable, and `&mut self` makes the borrow exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// A received frame, to be read in place.
#[must_use = "a view that is not given back leaks its chunk"]
pub struct RxView {
    frame: RxFrame,
    bytes: Bytes,
}

/// A frame to send, to be written in place.
#[must_use = "a view that is not given back leaks its chunk"]
pub struct TxView {
    frame: TxFrame,
    bytes: Bytes,
}

impl Umem {
    /// The bytes of a received frame, for longer than this UMEM can be borrowed.
    pub fn view(&self, frame: RxFrame) -> RxView {
        let bytes = self.rx_bytes(&frame);
        let bytes = Bytes { start: NonNull::from(bytes).cast(), len: bytes.len(), _region: self.region() };
        RxView { frame, bytes }
    }

    /// A range of the bytes of a frame to send, as far as it lies in the frame, for longer than this UMEM can be borrowed.
    pub fn view_mut(&mut self, mut frame: TxFrame, range: Range<usize>) -> TxView {
        let buffer = self.tx_buffer(&mut frame);
        let end = range.end.min(buffer.len());
        let part = buffer.get_mut(range.start.min(end)..end).unwrap_or_default();
        let (start, len) = (NonNull::from(&mut *part).cast(), part.len());
        TxView { frame, bytes: Bytes { start, len, _region: self.region() } }
    }
}

impl RxView {
    /// The frame, to be given back.
    pub fn into_frame(self) -> RxFrame {
        self.frame
    }
}

impl TxView {
    /// The frame, to be sent or given back.
    pub fn into_frame(self) -> TxFrame {
        self.frame
    }
}

impl Deref for RxView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl Deref for TxView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl DerefMut for TxView {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut_slice()
    }
}

impl fmt::Debug for RxView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame.fmt(f)
    }
}

impl fmt::Debug for TxView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FreeFrame;

    #[test]
    fn a_view_outlives_the_umem() {
        let mut umem = Umem::on_heap(2).expect("memory");
        let free = umem.allocate().expect("a chunk");
        let frame = umem.receive(free, b"received");
        let view = umem.view(frame);
        let frame = umem.allocate().map(FreeFrame::into_tx).expect("a chunk");
        let mut written = umem.view_mut(frame, 100..107);
        written.copy_from_slice(b"written");
        drop(umem);
        let reader = std::thread::spawn(move || view.to_vec());
        assert_eq!(reader.join().expect("read"), b"received");
        assert_eq!(&*written, b"written");
        let _ = written.into_frame();
    }

    #[test]
    fn what_is_written_lies_in_the_frame() {
        let mut umem = Umem::on_heap(1).expect("memory");
        let frame = umem.allocate().map(FreeFrame::into_tx).expect("a chunk");
        let mut view = umem.view_mut(frame, 54..58);
        view.copy_from_slice(b"data");
        let mut frame = view.into_frame();
        frame.set_len(58);
        assert_eq!(&umem.tx_bytes(&frame)[54..], b"data");
        umem.release_tx(frame);
        assert_eq!(umem.available(), 1);
    }

    #[test]
    fn a_range_beyond_the_frame_is_cut_off() {
        let mut umem = Umem::on_heap(1).expect("memory");
        let capacity = umem.tx_capacity();
        for (range, len) in
            [(capacity - 1..usize::MAX, 1), (capacity..capacity + 1, 0), (usize::MAX..usize::MAX, 0)]
        {
            let frame = umem.allocate().map(FreeFrame::into_tx).expect("a chunk");
            let view = umem.view_mut(frame, range);
            assert_eq!(view.len(), len);
            umem.release_tx(view.into_frame());
        }
        let stranger = FreeFrame::mint(1).into_rx(0, 100);
        assert!(umem.view(stranger).is_empty());
    }
}
