//! The four rings of a queue, each with only the verb that makes sense on it.
//!
//! A ring swallows handles on one side and gives new ones out on the other; between the two, the chunk is the
//! kernel's. This file is where handles end and begin, so it is where a chunk could be lost or doubled.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use super::{lent::Lent, long::LongFrames};
use crate::{
    device::{BURST, Umem},
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
    unfinished: Unfinished,
}

/// What there is of a frame of several chunks, whose last one has not come yet.
enum Unfinished {
    /// The next chunk begins a frame.
    Nothing,
    /// Its first chunks.
    Frame(RxFrame),
    /// It can't be used: the rest of it goes to the pool as it comes.
    Refused,
}

/// What the kernel says of a chunk that it has received into.
#[derive(Debug, Clone, Copy)]
struct Received {
    /// Where its bytes begin, from the beginning of the UMEM.
    address: usize,
    len: usize,
    /// The next one is of the same frame.
    goes_on: bool,
}

impl Unfinished {
    /// Takes chunks back from the kernel, and the frames that are whole with them.
    fn take(
        &mut self,
        umem: &mut Umem,
        lent: &mut Lent,
        frames: &mut Vec<RxFrame>,
        received: impl Iterator<Item = Received>,
    ) -> Taken {
        let mut taken = Taken::default();
        for Received { address, len, goes_on } in received {
            let (chunk, offset) = umem.chunk_at(address);
            if !lent.take_back(chunk) {
                taken.strays = 1;
                break;
            }
            taken.chunks += 1;
            let chunk = FreeFrame::mint(chunk);
            let is_alone = matches!(self, Self::Nothing) && !goes_on;
            if offset + len > umem.chunk_size() {
                umem.release(chunk);
                taken.refused += refuse(umem, self, goes_on);
                continue;
            }
            let piece = chunk.into_rx(offset as u16, len as u16);
            if is_alone {
                frames.push(piece);
            } else {
                let (frame, is_refused) = join(umem, self, piece, goes_on);
                frames.extend(frame);
                taken.refused += is_refused;
            }
        }
        taken
    }
}

/// A flag of a descriptor: the next one is of the same frame.
const XDP_PKT_CONTD: u32 = 1;

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
    /// Frames that could not be used, and went straight to the pool.
    pub(super) refused: usize,
    /// Descriptors of chunks that the kernel did not have. They are none of these, and nothing that follows was taken.
    pub(super) strays: usize,
}

/// What went onto the TX ring.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Given {
    pub(super) frames: usize,
    pub(super) chunks: usize,
}

impl FillRing {
    pub(super) fn new(ring: FillQueue) -> Self {
        Self { ring }
    }

    /// Gives up to `count` of the pool's chunks to the kernel. Returns how many. With `oldest`, those that were released
    /// longest ago.
    pub(super) fn give(&mut self, umem: &mut Umem, lent: &mut Lent, count: usize, oldest: bool) -> usize {
        let mut given = 0;
        while given < count {
            let batch = BURST.min(count - given).min(self.ring.nb_free(BURST as u32) as usize);
            let mut chunks = [const { None }; BURST];
            let mut descs = [FrameDesc::default(); BURST];
            let mut filled = 0;
            while filled < batch
                && let Some(chunk) = if oldest { umem.allocate_oldest() } else { umem.allocate() }
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
            chunks.iter().take(taken).flatten().for_each(|chunk| lent.lend(chunk.chunk()));
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
        Self { ring, descs: [FrameDesc::default(); BURST], unfinished: Unfinished::Nothing }
    }

    /// Takes up to `count` descriptors, and the frames that are whole with them.
    pub(super) fn take(
        &mut self,
        umem: &mut Umem,
        lent: &mut Lent,
        frames: &mut Vec<RxFrame>,
        count: usize,
    ) -> Taken {
        // SAFETY: the ring is of the UMEM's own socket, so what it names are the UMEM's chunks.
        let chunks = unsafe { self.ring.consume(&mut self.descs[..count.min(BURST)]) };
        let received = self.descs[..chunks].iter().map(|desc| Received {
            address: desc.addr(),
            len: desc.lengths().data(),
            goes_on: desc.has_more_frames(),
        });
        self.unfinished.take(umem, lent, frames, received)
    }

    /// Chunks of a frame that is not finished: neither the kernel's any more, nor anybody else's.
    pub(super) fn unfinished(&self, umem: &Umem) -> usize {
        match &self.unfinished {
            Unfinished::Frame(frame) => umem.rx_pieces(frame).count(),
            Unfinished::Nothing | Unfinished::Refused => 0,
        }
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

    /// Gives the kernel frames from the front of `frames`, a burst's worth of descriptors at most, and no more than `room`,
    /// which there [must be](Self::room). All of a frame's chunks go, or none. A frame that can't be sent is completed at
    /// once, as if it had been sent and lost.
    pub(super) fn give(
        &mut self,
        umem: &Umem,
        frames: &mut VecDeque<TxFrame>,
        room: usize,
        long: &mut LongFrames,
        refused: &mut Vec<CompletedFrame>,
    ) -> Given {
        self.descs.clear();
        let mut batch: [Option<TxFrame>; BURST] = [const { None }; BURST];
        let mut count = 0;
        while let Some(frame) = frames.pop_front() {
            let chunks = if frame.is_long() { umem.tx_chunks(&frame) } else { 1 };
            if self.descs.len() + chunks > room.min(BURST) && chunks <= self.size as usize {
                frames.push_front(frame);
                break;
            }
            if chunks <= room && self.describe(umem, &frame) {
                if frame.is_long() {
                    long.leave(umem, &frame);
                }
                batch[count] = Some(frame);
                count += 1;
            } else {
                refused.push(frame.into_completed());
            }
        }
        // SAFETY: the descriptors are of chunks whose only handles are in `batch`, which end here.
        let given = unsafe { self.ring.produce(&self.descs) };
        if given == 0 {
            // All or none are taken; none, if the kernel's side of the ring moved back, which it doesn't.
            for frame in batch.into_iter().flatten() {
                long.forget(umem, &frame);
                refused.push(frame.into_completed());
            }
            return Given::default();
        }
        Given { frames: count, chunks: given }
    }

    /// Appends the descriptors of a frame; not if it has no bytes, since the kernel would refuse it with all that follow it.
    fn describe(&mut self, umem: &Umem, frame: &TxFrame) -> bool {
        if !frame.is_long() {
            let desc = desc_of(umem, frame.chunk(), umem.tx_bytes(frame).len());
            let desc = desc.filter(|desc| desc.lengths().data() > 0);
            self.descs.extend(desc);
            return desc.is_some();
        }
        let before = self.descs.len();
        let mut chunk = Some(frame.chunk());
        for piece in umem.tx_pieces(frame) {
            let desc = chunk.and_then(|chunk| desc_of(umem, chunk, piece.len()));
            let Some(mut desc) = desc.filter(|desc| desc.lengths().data() > 0) else {
                self.descs.truncate(before);
                return false;
            };
            desc.set_options(XDP_PKT_CONTD);
            self.descs.push(desc);
            chunk = chunk.and_then(|chunk| umem.next_chunk(chunk));
        }
        if let Some(last) = self.descs.last_mut() {
            last.set_options(0);
        }
        true
    }

    /// Descriptors in the ring.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Descriptors that fit.
    pub(super) fn room(&mut self) -> usize {
        self.ring.nb_free_exact() as usize
    }

    /// Descriptors that the kernel has not looked at yet.
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

    /// Takes back all chunks that have been sent, and the frames that are whole with them. Returns how many chunks.
    pub(super) fn take(
        &mut self,
        umem: &Umem,
        long: &mut LongFrames,
        done: &mut Vec<CompletedFrame>,
    ) -> usize {
        let mut taken = 0;
        loop {
            // SAFETY: the ring is of the UMEM's own socket, so what it names are the UMEM's chunks.
            let count = unsafe { self.ring.consume(&mut self.descs) };
            done.extend(
                self.descs[..count].iter().filter_map(|desc| long.come_back(umem.chunk_at(desc.addr()).0)),
            );
            taken += count;
            if count < BURST {
                return taken;
            }
        }
    }
}

/// Puts a chunk behind those of its frame that have come before. The frame, if it is whole now, or whether it was refused.
fn join(
    umem: &mut Umem,
    unfinished: &mut Unfinished,
    piece: RxFrame,
    goes_on: bool,
) -> (Option<RxFrame>, usize) {
    let joined = match std::mem::replace(unfinished, Unfinished::Nothing) {
        Unfinished::Nothing => Ok(piece),
        Unfinished::Frame(mut frame) => match umem.append_rx(&mut frame, piece) {
            Ok(()) => Ok(frame),
            Err(piece) => {
                umem.release_rx(frame);
                Err(piece)
            }
        },
        Unfinished::Refused => Err(piece),
    };
    match joined {
        Ok(frame) if goes_on => {
            *unfinished = Unfinished::Frame(frame);
            (None, 0)
        }
        Ok(frame) => (Some(frame), 0),
        Err(piece) => {
            umem.release_rx(piece);
            *unfinished = if goes_on { Unfinished::Refused } else { Unfinished::Nothing };
            (None, usize::from(!goes_on))
        }
    }
}

/// A chunk of a frame can't be used, and so neither can the others. Returns 1 with the last of them.
fn refuse(umem: &mut Umem, unfinished: &mut Unfinished, goes_on: bool) -> usize {
    if let Unfinished::Frame(frame) = std::mem::replace(unfinished, Unfinished::Nothing) {
        umem.release_rx(frame);
    }
    if goes_on {
        *unfinished = Unfinished::Refused;
    }
    usize::from(!goes_on)
}

fn desc_of(umem: &Umem, chunk: u32, len: usize) -> Option<FrameDesc> {
    umem.as_shared().and_then(|region| region.desc(chunk, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(umem: &mut Umem, bytes: &[u8]) -> RxFrame {
        let free = umem.allocate().expect("a chunk");
        umem.receive(free, bytes)
    }

    /// What a driver says that it has received: as many bytes as a chunk has.
    fn received(umem: &Umem, chunk: u32, goes_on: bool) -> Received {
        Received { address: chunk as usize * umem.chunk_size(), len: umem.chunk_size(), goes_on }
    }

    #[test]
    fn a_driver_that_hands_over_what_it_does_not_have_is_believed_no_more() {
        let mut umem = Umem::on_heap(4).expect("memory");
        let mut lent = Lent::new(4);
        let mut unfinished = Unfinished::Nothing;
        let held: Vec<_> = std::iter::from_fn(|| umem.allocate()).collect();
        held.iter().take(3).for_each(|free| lent.lend(free.chunk()));
        let mut frames = Vec::new();
        let said = [0, 1, 0, 2].map(|chunk| received(&umem, chunk, false));
        let taken = unfinished.take(&mut umem, &mut lent, &mut frames, said.into_iter());
        assert_eq!((taken.chunks, taken.refused, taken.strays), (2, 0, 1));
        assert_eq!(frames.iter().map(RxFrame::chunk).collect::<Vec<_>>(), [0, 1], "none has two owners");
        let never = [received(&umem, 3, false)];
        assert_eq!(unfinished.take(&mut umem, &mut lent, &mut frames, never.into_iter()).strays, 1);
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn chunks_of_one_frame_are_joined_and_one_that_says_too_much_spoils_it() {
        let mut umem = Umem::on_heap(8).expect("memory");
        let mut lent = Lent::new(8);
        let mut unfinished = Unfinished::Nothing;
        std::iter::from_fn(|| umem.allocate()).for_each(|free| lent.lend(free.chunk()));
        let mut frames = Vec::new();
        let mut said = [(0, true), (1, true), (2, false), (3, true), (4, true), (5, false), (6, false)]
            .map(|(chunk, goes_on)| received(&umem, chunk, goes_on));
        said[4].len += 1;
        let taken = unfinished.take(&mut umem, &mut lent, &mut frames, said.into_iter());
        assert_eq!((taken.chunks, taken.refused, taken.strays), (7, 1, 0));
        let chunks = frames.iter().map(|frame| umem.rx_pieces(frame).count());
        assert_eq!(chunks.collect::<Vec<_>>(), [3, 1]);
        assert_eq!(umem.available(), 3, "those of the frame that was refused");
    }

    #[test]
    fn a_frame_is_whole_with_its_last_chunk() {
        let mut umem = Umem::on_heap(4).expect("memory");
        let mut unfinished = Unfinished::Nothing;
        for (bytes, goes_on) in [(b"one", true), (b"two", true)] {
            let piece = piece(&mut umem, bytes);
            assert_eq!(join(&mut umem, &mut unfinished, piece, goes_on), (None, 0));
        }
        let last = piece(&mut umem, b"end");
        let (frame, refused) = join(&mut umem, &mut unfinished, last, false);
        let frame = frame.expect("a frame");
        assert_eq!((&*umem.rx_gather(&frame), refused), (&b"onetwoend"[..], 0));
        umem.release_rx(frame);
        assert_eq!(umem.available(), 4);
    }

    #[test]
    fn a_frame_that_can_not_be_used_is_refused_once_and_all_its_chunks_come_back() {
        let mut umem = Umem::on_heap(64).expect("memory");
        let mut unfinished = Unfinished::Nothing;
        let mut refused = 0;
        for goes_on in [true; 60].into_iter().chain([false]) {
            let piece = piece(&mut umem, b"x");
            let (frame, more) = join(&mut umem, &mut unfinished, piece, goes_on);
            assert_eq!(frame, None);
            refused += more;
        }
        assert_eq!((refused, umem.available()), (1, 64));
        let first = piece(&mut umem, b"first");
        assert_eq!(join(&mut umem, &mut unfinished, first, true), (None, 0));
        assert_eq!(refuse(&mut umem, &mut unfinished, true), 0);
        assert_eq!(refuse(&mut umem, &mut unfinished, false), 1);
        assert_eq!(umem.available(), 64);
        let next = piece(&mut umem, b"next");
        let (frame, _) = join(&mut umem, &mut unfinished, next, false);
        assert!(frame.is_some_and(|frame| *umem.rx_gather(&frame) == *b"next"), "it ends with that frame");
    }
}
