//! Generic receive offload: segments that follow each other are taken in together, as Linux does it, too.
//!
//! A sender's burst is one train of frames that differ in nothing but their lengths, their numbers and their checksums. The first is
//! handled as any frame is: it says whom the others are for, and that all of what stands in their headers is allowed. Of each of
//! the others it is enough to know that it is the next one, and undamaged; and what follows from it (is an ACK due? who is to be
//! woken?) is asked once for all of them. Whatever is not exactly the next one ends the train, and goes the long way.

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

/// The headers of a train, and which of their bits are the same in all of its frames.
#[derive(Debug)]
struct Head {
    bytes: [u8; HEAD],
    same: [u8; HEAD],
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
        Some(Self { bytes: *bytes, same, fixed, addresses, ip, payload })
    }

    /// Where a frame's payload lies that has the same headers, if its first number is `seq` and its sums are right.
    fn payload_of<P: FramePool>(
        &self,
        pool: &P,
        frame: &RxFrame,
        seq: u32,
    ) -> Option<core::ops::Range<usize>> {
        let bytes = pool.rx_bytes(frame);
        let head = bytes.first_chunk::<HEAD>()?;
        let differing = head.iter().zip(&self.bytes).zip(&self.same).map(|((a, b), same)| (a ^ b) & same);
        if differing.fold(0, |all, one| all | one) != 0 {
            return None;
        }
        let (ip, tcp) = (self.ip, self.ip + ipv4::LEN);
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let end = ip + usize::from(half(ip + 2));
        let number = u32::from_be_bytes([head[tcp + 4], head[tcp + 5], head[tcp + 6], head[tcp + 7]]);
        if number != seq || end <= self.payload || end > frame.len() {
            return None;
        }
        let &[_, _, length0, length1, id0, id1, _, _, _, _, sum0, sum1, ..] = &head[ip..] else {
            return None;
        };
        let header = self.fixed.bytes(&[length0, length1, id0, id1, sum0, sum1, 0, 0]);
        if header.finish() != 0 {
            return None;
        }
        let pseudo = self.addresses.length_and_protocol(end - tcp, protocol::TCP);
        let sum = match frame.is_long() {
            false => pseudo.bytes(bytes.get(tcp..end)?),
            true if end == frame.len() => pseudo.pieces(behind(tcp, pool.rx_pieces(frame))),
            true => return None,
        };
        (sum.finish() == 0).then_some(self.payload..end)
    }
}

/// Frames that follow the one that was handled last.
#[derive(Debug)]
struct Train {
    head: Head,
    id: TcpId,
    /// The number that comes next, and how much more the window takes.
    seq: u32,
    room: usize,
}

/// What is known of the segment that was handled last.
#[derive(Debug, Default)]
pub(super) struct Gro {
    /// The connection that has taken all of its data, the number that it expects next, and how much more its window takes.
    pub(super) taken: Option<(TcpId, u32, usize)>,
    /// Payloads of the present train, kept for its memory.
    frames: Vec<RxFrame>,
}

impl<P: FramePool> Stack<P> {
    /// Takes in some frames, in order.
    pub(super) fn handle_trains(&mut self, now: Instant, frames: impl Iterator<Item = RxFrame>) {
        let mut frames = frames.peekable();
        let mut train: Option<Train> = None;
        while let Some(mut frame) = frames.next() {
            if let Some(train) = &mut train
                && let Some(payload) = train.head.payload_of(&self.pool, &frame, train.seq)
                && payload.len() <= train.room
            {
                train.seq = train.seq.wrapping_add(payload.len() as u32);
                train.room -= payload.len();
                frame.truncate(payload.end);
                frame.trim_front(payload.start);
                self.gro.frames.push(frame);
                continue;
            }
            self.end_train(now, train.take());
            let head = frames.peek().and_then(|_| Head::of(self.pool.rx_bytes(&frame)));
            self.gro.taken = None;
            self.handle_frame(now, frame);
            let begins = head.zip(self.gro.taken.take());
            train = begins.map(|(head, (id, seq, room))| Train { head, id, seq, room });
        }
        self.end_train(now, train);
    }

    fn end_train(&mut self, now: Instant, train: Option<Train>) {
        let Some(Train { id, .. }) = train.filter(|_| !self.gro.frames.is_empty()) else { return };
        let count = self.gro.frames.len();
        let Some(connection) = self.connections.get_mut(id) else {
            return self.gro.frames.drain(..).for_each(|frame| self.pool.release_rx(frame));
        };
        connection.handle_followers(now, &mut self.pool, self.gro.frames.drain(..));
        self.followers.taken_in += count as u64;
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
    }
}
