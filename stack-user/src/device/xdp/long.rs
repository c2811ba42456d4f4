//! Long frames between the TX ring and the completion ring, whose chunks come back one by one.

use crate::{
    device::Umem,
    frame::{CompletedFrame, FramePool, TxFrame},
};

/// Those that are on their way. While there are none, nothing is looked up.
#[derive(Debug, Default)]
pub(super) struct LongFrames {
    /// By chunk, if it is on its way in a long frame: the frame's first chunk. Empty until there is one.
    first_of: Vec<Option<u32>>,
    /// By first chunk: how many of the frame's chunks have not come back.
    missing: Vec<u8>,
    /// Chunks that have not.
    chunks: usize,
}

impl LongFrames {
    /// A long frame goes onto the ring.
    pub(super) fn leave(&mut self, umem: &Umem, frame: &TxFrame) {
        self.first_of.resize(umem.chunks(), None);
        self.missing.resize(umem.chunks(), 0);
        let count = umem.tx_chunks(frame);
        self.mark(umem, frame, Some(frame.chunk()));
        if let Some(missing) = self.missing.get_mut(frame.chunk() as usize) {
            *missing = count as u8;
        }
        self.chunks += count;
    }

    /// It did not get there.
    pub(super) fn forget(&mut self, umem: &Umem, frame: &TxFrame) {
        if frame.is_long() {
            self.mark(umem, frame, None);
            self.chunks -= umem.tx_chunks(frame);
        }
    }

    fn mark(&mut self, umem: &Umem, frame: &TxFrame, first: Option<u32>) {
        let mut next = Some(frame.chunk());
        while let Some(chunk) = next {
            if let Some(slot) = self.first_of.get_mut(chunk as usize) {
                *slot = first;
            }
            next = umem.next_chunk(chunk);
        }
    }

    /// A chunk has come back. The frame, if it was the last one of it.
    pub(super) fn come_back(&mut self, chunk: u32) -> Option<CompletedFrame> {
        if self.chunks == 0 {
            return Some(CompletedFrame::mint(chunk));
        }
        let Some(first) = self.first_of.get_mut(chunk as usize).and_then(Option::take) else {
            return Some(CompletedFrame::mint(chunk));
        };
        self.chunks -= 1;
        let missing = self.missing.get_mut(first as usize)?;
        *missing -= 1;
        (*missing == 0).then(|| CompletedFrame::mint_long(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_with_its_last_chunk_in_whatever_order() {
        let mut umem = Umem::on_heap(8).expect("memory");
        let mut long = LongFrames::default();
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut frame = umem.allocate_tx(9000).expect("chunks");
            frame.set_len(9000);
            let short = umem.allocate().expect("a chunk").into_tx();
            let first = frame.chunk();
            let second = umem.next_chunk(first).expect("a second chunk");
            let chunks = [first, second, umem.next_chunk(second).expect("a third")];
            long.leave(&umem, &frame);
            assert_eq!(long.come_back(chunks[order[0]]), None);
            let done = long.come_back(short.chunk()).expect("a frame of one chunk");
            umem.release_completed(done);
            assert_eq!(long.come_back(chunks[order[1]]), None);
            let done = long.come_back(chunks[order[2]]).expect("all of it");
            assert_eq!(done.chunk(), first);
            umem.release_completed(done);
            assert_eq!((umem.available(), long.chunks), (8, 0));
        }
    }

    #[test]
    fn one_that_did_not_leave_is_forgotten() {
        let mut umem = Umem::on_heap(8).expect("memory");
        let mut long = LongFrames::default();
        let frame = umem.allocate_tx(9000).expect("chunks");
        long.leave(&umem, &frame);
        long.forget(&umem, &frame);
        let chunk = frame.chunk();
        umem.release_tx(frame);
        assert_eq!((umem.available(), long.chunks), (8, 0));
        assert!(long.come_back(chunk).is_some_and(|done| done == CompletedFrame::mint(chunk)));
    }
}
