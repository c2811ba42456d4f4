//! Generic receive offload: segments that follow each other are taken in together, as Linux does it, too.
//!
//! A sender's burst is one train of frames that differ in nothing but their lengths, their numbers and their checksums. The first is
//! handled as any frame is: it says whom the others are for, and that all of what stands in their headers is allowed. Of each of
//! the others it is enough to know that it is the next one, and undamaged; and what follows from it (is an ACK due? who is to be
//! woken?) is asked once for all of them. Whatever is not exactly the next one ends the train, and goes the long way.

use std::vec::Drain;

use super::{Stack, TcpId};
use crate::{
    frame::{FramePool, RxFrame, behind},
    time::Instant,
    wire::{
        checksum::Sum,
        ethernet::{self, ethertype},
        ipv4, protocol,
        tcp::Flags,
    },
};

/// Bytes of a frame that are compared at once: enough for all headers but the longest. Shorter frames are no train.
const HEAD: usize = 96;

/// Aligned, so that they are read as vectors from where they lie.
#[derive(Debug)]
#[repr(align(16))]
struct Bytes([u8; HEAD]);

/// The headers of a train, and which of their bits are the same in all of its frames.
#[derive(Debug)]
struct Head {
    bytes: Bytes,
    same: Bytes,
    /// The sum of the IP header without what differs, and that of the addresses, for the pseudo-header.
    fixed: Sum,
    addresses: Sum,
    /// Where the IP header begins.
    ip: usize,
    /// Where the payload does.
    payload: usize,
}

impl Head {
    /// Of a frame with a TCP segment that says nothing but "here is data".
    fn of(frame: &[u8]) -> Option<Self> {
        let bytes = frame.first_chunk::<HEAD>()?;
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let ip = match half(12) {
            ethertype::VLAN if half(16) == ethertype::IPV4 => ethernet::LEN + ethernet::VLAN_LEN,
            ethertype::IPV4 => ethernet::LEN,
            _ => return None,
        };
        let tcp = ip + ipv4::LEN;
        // No options, no mark of congestion (RFC 3168 §5), no fragment.
        let is_plain = bytes[ip] == 0x45 && bytes[ip + 1] & 0b11 != 0b11 && half(ip + 6) & 0x3fff == 0;
        let flags = Flags(bytes[tcp + 13] & !Flags::PSH.0);
        let payload = tcp + usize::from(bytes[tcp + 12] >> 4) * 4;
        if !is_plain || bytes[ip + 9] != protocol::TCP || flags != Flags::ACK || payload > HEAD {
            return None;
        }
        let mut same = [0; HEAD];
        same[..payload].fill(0xff);
        let lengths_and_sums = [ip + 2..ip + 6, ip + 10..ip + 12, tcp + 4..tcp + 8, tcp + 16..tcp + 18];
        lengths_and_sums.into_iter().for_each(|range| same[range].fill(0));
        same[tcp + 13] = !Flags::PSH.0;
        let [start, middle, addresses] =
            [ip..ip + 2, ip + 6..ip + 10, ip + 12..tcp].map(|part| Sum::new().bytes(&bytes[part]));
        let fixed = addresses.add_at(0, start).add_at(0, middle);
        Some(Self { bytes: Bytes(*bytes), same: Bytes(same), fixed, addresses, ip, payload })
    }

    /// How many of these frames follow the one with these headers, the first with this number, in so much room.
    fn followers<P: FramePool>(&self, pool: &P, frames: &[RxFrame], mut seq: u32, mut room: usize) -> usize {
        let follows = |frame: &&RxFrame| {
            let len = self.payload_len(pool, frame, seq).filter(|&len| len <= room);
            len.is_some_and(|len| {
                seq = seq.wrapping_add(len as u32);
                room -= len;
                true
            })
        };
        frames.iter().take_while(follows).count()
    }

    /// How much payload a frame has that has the same headers and nothing behind its payload, if its first number is `seq` and its
    /// sums are right.
    fn payload_len<P: FramePool>(&self, pool: &P, frame: &RxFrame, seq: u32) -> Option<usize> {
        let bytes = pool.rx_bytes(frame);
        let head = bytes.first_chunk::<HEAD>()?;
        let differing = head.iter().zip(&self.bytes.0).zip(&self.same.0).map(|((a, b), same)| (a ^ b) & same);
        if differing.fold(0, |all, one| all | one) != 0 {
            return None;
        }
        let &[_, _, length0, length1, id0, id1, _, _, _, _, sum0, sum1, _, _, _, _, _, _, _, _, ref tcp @ ..] =
            head.get(self.ip..)?.first_chunk::<{ ipv4::LEN + 8 }>()?;
        let &[_, _, _, _, seq0, seq1, seq2, seq3] = tcp;
        let length = usize::from(u16::from_be_bytes([length0, length1]));
        let end = self.ip + length;
        let number = u32::from_be_bytes([seq0, seq1, seq2, seq3]);
        if number != seq || end <= self.payload || end != frame.len() {
            return None;
        }
        if !self.fixed.eight([length0, length1, id0, id1, sum0, sum1, 0, 0]).is_right() {
            return None;
        }
        let tcp = self.ip + ipv4::LEN;
        let pseudo = self.addresses.length_and_protocol(end - tcp, protocol::TCP);
        let sum = match frame.is_long() {
            false => pseudo.bytes(bytes.get(tcp..end)?),
            true => pseudo.pieces(behind(tcp, pool.rx_pieces(frame))),
        };
        sum.is_right().then_some(end - self.payload)
    }
}

/// What is known of the segment that was handled last.
#[derive(Debug, Default)]
pub(super) struct Gro {
    /// The connection that has taken all of its data, the number that it expects next, and how much more its window takes.
    pub(super) taken: Option<(TcpId, u32, usize)>,
}

impl<P: FramePool> Stack<P> {
    /// Takes in some frames, in order.
    pub(super) fn handle_trains(&mut self, now: Instant, mut frames: Drain<'_, RxFrame>) {
        while let Some(frame) = frames.next() {
            let leads = !frames.as_slice().is_empty();
            let head = leads.then(|| Head::of(self.pool.rx_bytes(&frame))).flatten();
            self.gro.taken = None;
            self.handle_frame(now, frame);
            if let Some((head, (id, seq, room))) = head.zip(self.gro.taken.take()) {
                let count = head.followers(&self.pool, frames.as_slice(), seq, room);
                self.handle_followers(now, id, head.payload, frames.by_ref().take(count));
            }
        }
    }

    /// Takes in frames that follow the one that was handled last. So many bytes in front of their payload are headers.
    fn handle_followers(
        &mut self,
        now: Instant,
        id: TcpId,
        headers: usize,
        frames: impl ExactSizeIterator<Item = RxFrame>,
    ) {
        let count = frames.len();
        if count == 0 {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return frames.for_each(|frame| self.pool.release_rx(frame));
        };
        let payloads = frames.map(|mut frame| {
            frame.trim_front(headers);
            frame
        });
        connection.handle_followers(now, &mut self.pool, payloads);
        self.followers.taken_in += count as u64;
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::Umem,
        wire::{checksum::checksum, tcp},
    };

    const SEQ: u32 = u32::MAX - 100;
    const TCP: usize = ethernet::LEN + ipv4::LEN;
    /// With timestamps.
    const PAYLOAD: usize = TCP + tcp::Header::LEN + 12;

    /// A frame of a train, with right sums.
    fn frame(seq: u32, len: usize) -> Vec<u8> {
        let mut frame = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0".to_vec();
        frame.extend(b"\x45\0\0\0\x12\x34\x40\0\x40\x06\0\0\xc0\0\x02\x01\xc0\0\x02\x02");
        frame.extend(b"\x12\x34\0\x50seq.ack.\x80\x10wi\0\0\0\0\x01\x01\x08\x0atimeecho");
        frame[TCP + 4..TCP + 8].copy_from_slice(&seq.to_be_bytes());
        frame.extend((0..len).map(|at| (at ^ at >> 8) as u8));
        let total = (frame.len() - ethernet::LEN) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        sum_again(&mut frame);
        frame
    }

    fn sum_again(frame: &mut [u8]) {
        frame[24..26].fill(0);
        let sum = checksum(&frame[ethernet::LEN..TCP]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame[TCP + 16..TCP + 18].fill(0);
        let pseudo = Sum::new().bytes(&frame[26..TCP]).length_and_protocol(frame.len() - TCP, protocol::TCP);
        let sum = pseudo.bytes(&frame[TCP..]).finish();
        frame[TCP + 16..TCP + 18].copy_from_slice(&sum.to_be_bytes());
    }

    /// How many of these frames follow the one of a train that is as long as the first has to be.
    fn followers(frames: &[Vec<u8>], room: usize) -> usize {
        let head = Head::of(&frame(SEQ.wrapping_sub(1000), 1000)).expect("a head");
        let mut pool = Umem::on_heap_of(64, 2048).expect("memory");
        let frames: Vec<_> = frames.iter().map(|frame| pool.receive_whole(frame).expect("chunks")).collect();
        let count = head.followers(&pool, &frames, SEQ, room);
        frames.into_iter().for_each(|frame| pool.release_rx(frame));
        count
    }

    #[test]
    fn those_in_order_follow_as_far_as_there_is_room_however_long_they_are() {
        let lens = [1000, 30, 31, 1448, 5000];
        let starts = lens.iter().scan(SEQ, |seq, &len| {
            let start = *seq;
            *seq = seq.wrapping_add(len as u32);
            Some(start)
        });
        let mut frames: Vec<_> = starts.zip(lens).map(|(seq, len)| frame(seq, len)).collect();
        let all = lens.iter().sum();
        let counts = [all, all - 1, 1061, 1060, 999].map(|room| followers(&frames, room));
        assert_eq!(counts, [5, 4, 3, 2, 0]);
        frames.remove(1);
        assert_eq!(followers(&frames, all), 1, "one is missing");
        assert_eq!(followers(&[frame(SEQ, 0)], all), 0, "nothing new");
        assert_eq!(followers(&[frame(SEQ, 29)], all), 0, "shorter than headers may be");
    }

    #[test]
    fn a_single_wrong_bit_anywhere_ends_the_train() {
        for len in [40, 1448, 3000] {
            let right = frame(SEQ, len);
            assert_eq!(followers(std::slice::from_ref(&right), len), 1);
            for bit in 0..8 * right.len() {
                let mut wrong = right.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(followers(&[wrong], len), 0, "bit {bit} of {len} bytes");
            }
        }
    }

    #[test]
    fn with_right_sums_only_the_identification_and_psh_may_be_others() {
        for bit in 0..8 * PAYLOAD {
            let mut other = frame(SEQ, 1448);
            other[bit / 8] ^= 1 << (bit % 8);
            sum_again(&mut other);
            let is_sum = [24, 25, TCP + 16, TCP + 17].contains(&(bit / 8));
            let is_psh = bit / 8 == TCP + 13 && 1 << (bit % 8) == Flags::PSH.0;
            let may = is_sum || is_psh || (18..20).contains(&(bit / 8));
            assert_eq!(followers(&[other], 2000), usize::from(may), "bit {bit}");
        }
    }

    #[test]
    fn what_is_cut_or_has_something_behind_it_goes_the_long_way() {
        let right = frame(SEQ, 1448);
        let longer = [&right[..], &[0]].concat();
        assert_eq!(followers(&[longer], 2000), 0);
        for len in 0..right.len() {
            assert_eq!(followers(&[right[..len].to_vec()], 2000), 0, "{len} bytes");
        }
    }
}
