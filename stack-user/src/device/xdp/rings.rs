//! The four rings of a queue, each with only the verb that makes sense on it.
//!
//! A ring swallows handles on one side and gives new ones out on the other; between the two, the chunk is the
//! kernel's. This file is where handles end and begin, so it is where a chunk could be lost or doubled.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use crate::{
    device::{BURST, CHUNK_SIZE, Umem},
    frame::{CompletedFrame, FramePool, FreeFrame, RxFrame, TxFrame},
};

/// Empty chunks, ours to give, for the kernel to receive into.
pub(super) struct FillRing {
    ring: FillQueue,
}

/// Received frames, ours to take.
pub(super) struct RxRing {
    ring: RxQueue,
    descs: [FrameDesc; BURST],
    /// Within a frame that fills several chunks, of which none is wanted.
    in_long_frame: bool,
}

/// Frames, ours to give, for the kernel to send.
pub(super) struct TxRing {
    ring: TxQueue,
    size: u32,
    descs: Vec<FrameDesc>,
}

/// Frames that have been sent, ours to take back.
pub(super) struct CompletionRing {
    ring: CompQueue,
    descs: [FrameDesc; BURST],
}

/// What one look at the RX ring brought.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Taken {
    /// Descriptors, and so chunks, that came back from the kernel.
    pub(super) chunks: usize,
    /// Of these, the ones that carry no usable frame and went straight to the pool.
    pub(super) refused: usize,
}

impl FillRing {
    pub(super) fn new(ring: FillQueue) -> Self {
        Self { ring }
    }

    /// Gives up to `count` of the pool's chunks to the kernel. Returns how many.
    pub(super) fn give(&mut self, umem: &mut Umem, count: usize) -> usize {
        let mut given = 0;
        while given < count {
            let batch = BURST.min(count - given).min(self.ring.nb_free(BURST as u32) as usize);
            let mut chunks = [const { None }; BURST];
            let mut descs = [FrameDesc::default(); BURST];
            let mut filled = 0;
            while filled < batch
                && let Some(chunk) = umem.allocate()
            {
                let Some(desc) = desc_of(umem, chunk.chunk(), 0) else {
                    umem.release(chunk);
                    break;
                };
                descs[filled] = desc;
                chunks[filled] = Some(chunk);
                filled += 1;
            }
            // SAFETY: the descriptors are of chunks whose only handles are in `chunks`, which end here.
            let taken = unsafe { self.ring.produce(&descs[..filled]) };
            // All or none are taken; none, if the kernel's side of the ring moved back, which it doesn't.
            chunks.into_iter().skip(taken).flatten().for_each(|chunk| umem.release(chunk));
            given += taken;
            if taken == 0 {
                break;
            }
        }
        given
    }

    /// Whether the kernel found the ring empty, and does not look again until it is woken.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

impl RxRing {
    pub(super) fn new(ring: RxQueue) -> Self {
        Self { ring, descs: [FrameDesc::default(); BURST], in_long_frame: false }
    }

    /// Takes up to `count` frames.
    pub(super) fn take(&mut self, umem: &mut Umem, frames: &mut Vec<RxFrame>, count: usize) -> Taken {
        // SAFETY: the ring is of the UMEM's own socket, so what it names are the UMEM's chunks.
        let chunks = unsafe { self.ring.consume(&mut self.descs[..count.min(BURST)]) };
        let mut refused = 0;
        for desc in &self.descs[..chunks] {
            let chunk = FreeFrame::mint((desc.addr() / CHUNK_SIZE) as u32);
            let (offset, len) = (desc.addr() % CHUNK_SIZE, desc.lengths().data());
            let is_whole = !self.in_long_frame && !desc.has_more_frames() && offset + len <= CHUNK_SIZE;
            self.in_long_frame = desc.has_more_frames();
            if is_whole {
                frames.push(chunk.into_rx(offset as u16, len as u16));
            } else {
                refused += 1;
                umem.release(chunk);
            }
        }
        Taken { chunks, refused }
    }

    /// Whether a frame waits.
    pub(super) fn has_frames(&mut self) -> bool {
        self.ring.nb_avail_exact() > 0
    }

    /// Wakes a kernel that waits for us to refill the fill ring.
    pub(super) fn wake(&mut self) -> io::Result<()> {
        self.ring.poll(0).map(|_| ())
    }
}

impl TxRing {
    pub(super) fn new(ring: TxQueue, size: u32) -> Self {
        Self { ring, size, descs: Vec::with_capacity(BURST) }
    }

    /// Gives the kernel frames to send, which `frames` yields. There must be [room](Self::room) for all.
    /// Returns how many were given; the others are completed at once, as if they had been sent and lost.
    pub(super) fn give(
        &mut self,
        umem: &Umem,
        frames: impl Iterator<Item = TxFrame>,
        refused: &mut Vec<CompletedFrame>,
    ) -> usize {
        self.descs.clear();
        let mut batch: [Option<TxFrame>; BURST] = [const { None }; BURST];
        for frame in frames.take(BURST) {
            // A frame without bytes is refused by the kernel, with all that follow it.
            match desc_of(umem, frame.chunk(), frame.len()).filter(|desc| desc.lengths().data() > 0) {
                Some(desc) => {
                    batch[self.descs.len()] = Some(frame);
                    self.descs.push(desc);
                }
                None => refused.push(frame.into_completed()),
            }
        }
        // SAFETY: the descriptors are of chunks whose only handles are in `batch`, which end here.
        let given = unsafe { self.ring.produce(&self.descs) };
        refused.extend(batch.into_iter().skip(given).flatten().map(TxFrame::into_completed));
        given
    }

    /// Descriptors in the ring.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Frames that fit.
    pub(super) fn room(&mut self) -> usize {
        self.ring.nb_free_exact() as usize
    }

    /// Frames that the kernel has not looked at yet.
    pub(super) fn unsent(&mut self) -> usize {
        self.size as usize - self.room().min(self.size as usize)
    }

    /// Whether the kernel sends nothing until it is woken. In copy mode that is always so.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// Has the kernel send: all of the ring in zero-copy mode, a few dozen frames in copy mode. That it is busy, out
    /// of buffers or without a link is not told: what is still on the ring then is [unsent](Self::unsent).
    pub(super) fn wake(&self) -> io::Result<()> {
        self.ring.wakeup()
    }

    /// Counters of the socket.
    pub(super) fn statistics(&self) -> io::Result<xsk_rs::socket::XdpStatistics> {
        self.ring.fd().xdp_statistics()
    }
}

impl AsFd for TxRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its socket open.
        unsafe { BorrowedFd::borrow_raw(self.ring.fd().as_raw_fd()) }
    }
}

impl CompletionRing {
    pub(super) fn new(ring: CompQueue) -> Self {
        Self { ring, descs: [FrameDesc::default(); BURST] }
    }

    /// Takes back all frames that have been sent. Returns how many.
    pub(super) fn take(&mut self, done: &mut Vec<CompletedFrame>) -> usize {
        let mut taken = 0;
        loop {
            // SAFETY: the ring is of the UMEM's own socket, so what it names are the UMEM's chunks.
            let count = unsafe { self.ring.consume(&mut self.descs) };
            done.extend(
                self.descs[..count]
                    .iter()
                    .map(|desc| CompletedFrame::mint((desc.addr() / CHUNK_SIZE) as u32)),
            );
            taken += count;
            if count < BURST {
                return taken;
            }
        }
    }
}

fn desc_of(umem: &Umem, chunk: u32, len: usize) -> Option<FrameDesc> {
    umem.as_shared().and_then(|region| region.desc(chunk, len))
}
