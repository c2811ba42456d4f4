//! Frames that lie in several chunks: which chunk comes next, and bytes that are reached through that.
//!
//! A handle's first chunk says that there are more; the UMEM's table of links says which. A chunk's link means something only
//! while it is part of a long frame, so nothing has to be written for the others.

use super::umem::{TX_OFFSET, Umem};
use crate::{
    frame::{FramePool, FreeFrame, MAX_CHUNKS, RxFrame, TxFrame},
    wire::checksum::Sum,
};

/// Chunks that a frame to send lies in at most. The kernel takes `MAX_SKB_FRAGS`, which is 17 unless it was built with more.
/// Lower, and MTUs near 64 KiB are not used to the full; higher, and such a kernel refuses the frame.
pub const MAX_TX_CHUNKS: usize = 17;

/// Where a long frame goes on behind a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The next chunk, or [`NONE`].
    next: u32,
    /// Where the frame's bytes end in this chunk, and start in the next one.
    end: u16,
    offset: u16,
}

/// No chunk has this number.
const NONE: u32 = u32::MAX;

impl Default for Link {
    fn default() -> Self {
        Self { next: NONE, end: 0, offset: 0 }
    }
}

/// The bytes of a frame, chunk by chunk.
#[derive(Clone)]
pub(super) struct Pieces<'a> {
    umem: &'a Umem,
    chunk: u32,
    is_long: bool,
    offset: usize,
    /// Bytes that are left; `None` behind the last piece.
    left: Option<usize>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(umem: &'a Umem, chunk: u32, is_long: bool, offset: usize, len: usize) -> Self {
        Self { umem, chunk, is_long, offset, left: Some(len) }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let left = self.left.take()?;
        let link = if self.is_long { self.umem.link(self.chunk) } else { Link::default() };
        let len = match link.next {
            NONE => left,
            _ => left.min(usize::from(link.end).saturating_sub(self.offset)),
        };
        let piece = self.umem.bytes(self.chunk, self.offset, len);
        // A view that was cut at its end may end before its chunks do.
        if link.next != NONE && left > len {
            (self.chunk, self.offset, self.left) = (link.next, link.offset.into(), Some(left - len));
        }
        Some(piece)
    }
}

impl Umem {
    fn link(&self, chunk: u32) -> Link {
        self.links.get(chunk as usize).copied().unwrap_or_default()
    }

    fn set_link(&mut self, chunk: u32, link: Link) {
        if let Some(slot) = self.links.get_mut(chunk as usize) {
            *slot = link;
        }
    }

    /// The chunk behind this one in its long frame, if it is not the last.
    pub(super) fn next_chunk(&self, chunk: u32) -> Option<u32> {
        Some(self.link(chunk).next).filter(|&next| next != NONE)
    }

    /// Chunks behind the first one of a frame.
    pub(super) fn chunks_behind(&self, mut chunk: u32, is_long: bool) -> usize {
        let mut count = 0;
        while is_long && let Some(next) = self.next_chunk(chunk) {
            chunk = next;
            count += 1;
        }
        count
    }

    /// Bytes of a long frame in its first chunk.
    pub(super) fn first_piece(&self, frame: &RxFrame) -> usize {
        frame.len().min(usize::from(self.link(frame.chunk()).end).saturating_sub(frame.offset()))
    }

    pub(super) fn link_rx(&mut self, frame: &mut RxFrame, piece: RxFrame) -> Result<(), RxFrame> {
        let fits = frame.len() + piece.len() <= usize::from(u16::MAX);
        let chunks = 1 + self.chunks_behind(frame.chunk(), frame.is_long());
        if !fits || chunks >= MAX_CHUNKS || piece.is_long() {
            return Err(piece);
        }
        let (mut last, mut offset, mut left) = (frame.chunk(), frame.offset(), frame.len());
        while frame.is_long()
            && let Link { next, end, offset: next_offset } = self.link(last)
            && next != NONE
        {
            left = left.saturating_sub(usize::from(end).saturating_sub(offset));
            (last, offset) = (next, next_offset.into());
        }
        let link = Link { next: piece.chunk(), end: (offset + left) as u16, offset: piece.offset() as u16 };
        self.set_link(last, link);
        self.set_link(piece.chunk(), Link::default());
        frame.appended(piece.len() as u16);
        // The frame's handle stands for the piece's chunk from here on.
        let _ = piece;
        Ok(())
    }

    pub(super) fn unlink_rx(&mut self, frame: &mut RxFrame) -> Option<RxFrame> {
        let Link { next, offset, .. } = self.link(frame.chunk());
        if next == NONE {
            return None;
        }
        let first = self.first_piece(frame);
        let rest =
            RxFrame::piece(next, self.next_chunk(next).is_some(), offset, (frame.len() - first) as u16);
        frame.only_first(first);
        Some(rest)
    }

    pub(super) fn link_tx(&mut self, frame: &mut TxFrame, chunk: FreeFrame) {
        let mut last = frame.chunk();
        while frame.is_long()
            && let Some(next) = self.next_chunk(last)
        {
            last = next;
        }
        let link = Link { next: chunk.chunk(), end: self.chunk_size() as u16, offset: TX_OFFSET as u16 };
        self.set_link(last, link);
        self.set_link(chunk.chunk(), Link::default());
        frame.set_long(true);
        // The frame's handle stands for this chunk, too, from here on.
        let _ = chunk;
    }

    pub(super) fn unlink_tx(&mut self, frame: &mut TxFrame, len: usize) {
        if !frame.is_long() {
            return;
        }
        let mut last = frame.chunk();
        for _ in 1..len.div_ceil(self.tx_capacity()) {
            last = self.next_chunk(last).unwrap_or(last);
        }
        let mut surplus = self.next_chunk(last);
        while let Some(chunk) = surplus {
            surplus = self.next_chunk(chunk);
            self.release(FreeFrame::mint(chunk));
        }
        self.set_link(last, Link::default());
        frame.set_long(last != frame.chunk());
    }

    /// The chunk that has a byte of a frame to send, and its offset in that chunk behind [`TX_OFFSET`].
    fn place(&self, frame: &TxFrame, mut at: usize) -> Option<(u32, usize)> {
        let mut chunk = frame.chunk();
        while at >= self.tx_capacity() {
            chunk = self.next_chunk(chunk).filter(|_| frame.is_long())?;
            at -= self.tx_capacity();
        }
        Some((chunk, at))
    }

    /// Has `copy` put bytes into a frame, from its byte `at` on, piece by piece: it is told how many are there already.
    pub(super) fn write_by(
        &mut self,
        frame: &mut TxFrame,
        at: usize,
        bytes: &[u8],
        mut copy: impl FnMut(usize, &[u8], &mut [u8]),
    ) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty())
            && let Some((chunk, at)) = self.place(frame, at + done)
        {
            let room = self.bytes_mut(chunk, TX_OFFSET + at, rest.len());
            let n = room.len();
            copy(done, &rest[..n], room);
            done += n;
        }
        done
    }

    /// Copies bytes into a frame, likewise, and sums them on the way.
    pub(super) fn write_summed_by_pieces(
        &mut self,
        frame: &mut TxFrame,
        at: usize,
        bytes: &[u8],
    ) -> (usize, Sum) {
        let mut sum = Sum::new();
        let n =
            self.write_by(frame, at, bytes, |done, from, to| sum = sum.add_at(done, Sum::of_copy(from, to)));
        (n, sum)
    }

    pub(super) fn read_pieces(&self, frame: &TxFrame, at: usize, out: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty())
            && let Some((chunk, at)) = self.place(frame, at + done)
        {
            let piece = self.bytes(chunk, TX_OFFSET + at, rest.len());
            rest[..piece.len()].copy_from_slice(piece);
            done += piece.len();
        }
        done
    }

    /// A byte of a received frame, to change it: what a faulty wire does.
    pub fn rx_byte_mut(&mut self, frame: &mut RxFrame, mut at: usize) -> Option<&mut u8> {
        let (mut chunk, mut offset) = (frame.chunk(), frame.offset());
        while frame.is_long() {
            let link = self.link(chunk);
            let len = usize::from(link.end).saturating_sub(offset);
            if link.next == NONE || at < len {
                break;
            }
            at -= len;
            (chunk, offset) = (link.next, link.offset.into());
        }
        self.bytes_mut(chunk, offset + at, 1).first_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    /// A received frame whose pieces have these lengths.
    fn received(umem: &mut Umem, data: &[u8], cuts: &[usize]) -> RxFrame {
        let mut rest = data;
        let mut frame = None;
        for &len in cuts {
            let (piece, behind) = rest.split_at(len);
            rest = behind;
            let free = umem.allocate().expect("a chunk");
            let piece = umem.receive(free, piece);
            match &mut frame {
                None => frame = Some(piece),
                Some(frame) => umem.append_rx(frame, piece).expect("room"),
            }
        }
        frame.expect("a piece")
    }

    #[test]
    fn a_received_frame_of_several_chunks_has_one_handle_and_all_bytes() {
        let mut umem = Umem::on_heap(8).expect("memory");
        let data = bytes(9014);
        let frame = umem.receive_whole(&data).expect("chunks");
        assert!(frame.is_long());
        assert_eq!((frame.len(), umem.available()), (9014, 5));
        assert_eq!(umem.rx_pieces(&frame).map(<[u8]>::len).collect::<Vec<_>>(), [3840, 3840, 1334]);
        assert_eq!(*umem.rx_gather(&frame), data);
        assert_eq!(umem.rx_bytes(&frame), &data[..3840]);
        umem.release_rx(frame);
        assert_eq!(umem.available(), 8);
    }

    #[test]
    fn taken_apart_each_piece_is_a_frame_and_none_is_copied() {
        let mut umem = Umem::on_heap(4).expect("memory");
        let data = bytes(300);
        let mut frame = received(&mut umem, &data, &[100, 0, 150, 50]);
        frame.trim_front(54);
        frame.truncate(200);
        let mut parts = Vec::new();
        while let Some(rest) = umem.split_rx(&mut frame) {
            parts.push(std::mem::replace(&mut frame, rest));
        }
        parts.push(frame);
        assert!(parts.iter().all(|part| !part.is_long()));
        assert_eq!(parts.iter().map(RxFrame::len).collect::<Vec<_>>(), [46, 0, 150, 4]);
        let joined: Vec<u8> = parts.iter().flat_map(|part| umem.rx_bytes(part).to_vec()).collect();
        assert_eq!(joined, &data[54..254]);
        parts.into_iter().for_each(|part| umem.release_rx(part));
        assert_eq!(umem.available(), 4);
    }

    #[test]
    fn a_frame_has_neither_more_chunks_nor_more_bytes_than_it_can_say() {
        let mut umem = Umem::on_heap(64).expect("memory");
        let mut frame = received(&mut umem, &[], &[0; MAX_CHUNKS]);
        let free = umem.allocate().expect("a chunk");
        let piece = umem.receive(free, b"x");
        let refused = umem.append_rx(&mut frame, piece).expect_err("one too many");
        umem.release_rx(refused);
        umem.release_rx(frame);
        assert!(umem.receive_whole(&bytes(65_536)).is_none());
        let longest = umem.receive_whole(&bytes(65_535)).expect("the longest");
        umem.release_rx(longest);
        assert_eq!(umem.available(), 64);
    }

    #[test]
    fn without_enough_chunks_nothing_is_taken() {
        let mut umem = Umem::on_heap(2).expect("memory");
        assert!(umem.receive_whole(&bytes(9000)).is_none());
        assert!(umem.allocate_tx(9000).is_none());
        assert_eq!(umem.available(), 2);
    }

    #[test]
    fn a_frame_to_send_is_written_and_read_across_its_chunks() {
        let mut umem = Umem::on_heap(8).expect("memory");
        let data = bytes(9000);
        let mut frame = umem.allocate_tx(9000).expect("chunks");
        assert_eq!((umem.tx_chunks(&frame), umem.available()), (3, 5));
        assert_eq!(umem.tx_write(&mut frame, 0, &data), 9000);
        frame.set_len(9000);
        assert_eq!(*umem.tx_gather(&frame), data);
        let mut out = [0; 100];
        assert_eq!(umem.tx_read(&frame, 3800, &mut out), 100);
        assert_eq!(out, data[3800..3900]);
        assert_eq!(umem.tx_write(&mut frame, 3 * 3840 - 10, &[9; 100]), 10, "there is no room for more");
        umem.shrink_tx(&mut frame, 3841);
        assert_eq!((umem.tx_chunks(&frame), umem.available()), (2, 6));
        umem.shrink_tx(&mut frame, 3840);
        assert!(!frame.is_long() && umem.available() == 7);
        umem.release_tx(frame);
        assert_eq!(umem.available(), 8);
    }

    #[test]
    fn what_was_sent_comes_back_whole() {
        let mut umem = Umem::on_heap(4).expect("memory");
        let mut frame = umem.allocate_tx(9000).expect("chunks");
        frame.set_len(9000);
        let done = frame.into_completed();
        let again = done.into_tx(9000);
        assert_eq!(umem.tx_chunks(&again), 3);
        umem.release_completed(again.into_completed());
        assert_eq!(umem.available(), 4);
    }

    #[test]
    fn chunks_of_16_kib_hold_a_jumbo_frame_each() {
        let mut umem = Umem::on_heap_of(4, 16_384).expect("memory");
        let data = bytes(9014);
        let frame = umem.receive_whole(&data).expect("a chunk");
        assert!(!frame.is_long());
        assert_eq!(umem.rx_bytes(&frame), data);
        umem.release_rx(frame);
        assert!(Umem::on_heap_of(4, 5000).is_err() && Umem::on_heap_of(4, 32_768).is_err());
    }

    proptest! {
        #[test]
        fn trimming_is_that_of_the_bytes(
            cuts in proptest::collection::vec(0usize..600, 1..6),
            front in 0usize..2000,
            keep in 0usize..2000,
        ) {
            let mut umem = Umem::on_heap(8).expect("memory");
            let data = bytes(cuts.iter().sum());
            let mut frame = received(&mut umem, &data, &cuts);
            frame.truncate(keep);
            umem.trim_rx(&mut frame, front);
            let expected = data.get(front.min(keep)..keep.min(data.len())).unwrap_or_default();
            prop_assert_eq!(&*umem.rx_gather(&frame), expected);
            umem.release_rx(frame);
            prop_assert_eq!(umem.available(), 8);
        }
    }
}
