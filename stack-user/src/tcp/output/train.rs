//! A train: full segments that leave one behind the other, at the same time.
//!
//! Whoever has much to send sends a window's worth at once, and what was found out for its first segment holds for those behind it: the
//! windows have room, it is their turn, the timers run, and their headers differ in nothing but the sequence number. So it is
//! counted how many there may be, and each of them takes its number, its checksum, and nothing else. Whatever happens on the
//! connection meanwhile [ends](Connection::end_train) the train, as time does when it goes on.

use super::Transmit;
use crate::{
    frame::{FramePool, behind},
    tcp::{Connection, recovery::Phase, send_queue::Layout},
    time::Instant,
    wire::{Ecn, checksum::Sum, protocol, tcp::Header},
};

/// Bytes of the longest header of a data segment: with timestamps.
const HEADER_LEN: usize = Header::LEN + crate::tcp::options::TIMESTAMPS_LEN;

/// Entries that have to be in flight: the time of a loss probe depends on whether it is one alone (RFC 8985 §7.2).
const SETTLED: usize = 2;

/// The segments that may follow the one that was sent last.
#[derive(Debug)]
pub(in crate::tcp) struct Train {
    now: Instant,
    /// How many they were at first, and how many are left.
    all: usize,
    left: usize,
    /// Bytes of payload of each.
    len: usize,
    ecn: Ecn,
    /// The header of them all, without sequence number and checksum.
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// The sum of what is the same in all of them, pseudo-header included.
    sum: Sum,
}

impl Connection {
    /// Something has happened: what is sent next is to be found out anew.
    pub(in crate::tcp) fn end_train(&mut self) {
        // `take` would write all of it where there is none, for each segment that comes.
        if let Some(train) = &self.train {
            self.followers_sent += (train.all - train.left) as u64;
            self.train = None;
        }
    }

    /// How many segments were sent in trains, not counting the first of each, since this was asked last. To be asked when there is
    /// nothing more to send: it ends the train.
    pub fn take_followers_sent(&mut self) -> u64 {
        self.end_train();
        core::mem::take(&mut self.followers_sent)
    }

    /// A full segment of new data was sent, in its turn: finds out how many may follow it.
    pub(super) fn begin_train<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &P,
        sent: &Transmit,
        layout: Layout,
    ) {
        self.end_train();
        let calm =
            self.recovery.phase() == Phase::Open && self.send.lost() == 0 && !self.recovery.wants_new_data();
        let plain = !self.ecn.has_news() && !self.has_urgent_data() && !self.pmtud.wants_probe();
        if !calm || !plain || self.send.sent_entries() < SETTLED {
            return;
        }
        let full = self.send.full_unsent(layout.mss);
        let window = (self.snd.una + self.snd.wnd) - self.snd.nxt;
        let congestion = self.congestion.cwnd().saturating_sub(self.recovery.pipe(&self.send, layout.mss));
        let left =
            full.min(window / layout.mss).min(congestion / layout.mss).min(self.paced_segments(layout.mss));
        let header_len = self.data_header_len();
        let at = self.config.header_room;
        let template = pool.tx_bytes(&sent.frame).get(at..at + header_len);
        let (Some(template), 1..) = (template, left) else { return };
        let mut header = [0; HEADER_LEN];
        let Some(own) = header.get_mut(..header_len) else { return };
        own.copy_from_slice(template);
        Header::set_seq(own, 0);
        Header::set_checksum(own, 0);
        let segment = header_len + layout.mss;
        let sum = Sum::pseudo_header(self.local.ip(), self.remote.ip(), protocol::TCP, segment).bytes(own);
        self.train =
            Some(Train { now, all: left, left, len: layout.mss, ecn: sent.ecn, header, header_len, sum });
    }

    /// The next segment of the train, if there is one.
    pub(super) fn transmit_of_train<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Option<Transmit> {
        let train = self.train.as_mut().filter(|train| train.left > 0 && train.now == now)?;
        train.left -= 1;
        let (len, ecn) = (train.len, train.ecn);
        let index = self.send.sent_entries();
        let (start, sum) = self.send.unsent().map(|entry| (entry.start, entry.sum))?;
        let transmission = self.recovery.on_transmit(now, &self.send, start, len, false);
        let mut frame = self.send.take_for_transmission(index, now, transmission)?;
        let seq = self.snd.nxt;
        self.snd.nxt += len;
        self.pace(len);

        let train = self.train.as_ref()?;
        let (room, header_len) = (self.config.header_room, train.header_len);
        frame.set_len(room + header_len + len);
        let sum = sum.unwrap_or_else(|| Sum::new().pieces(behind(room + header_len, pool.tx_pieces(&frame))));
        let header = pool.tx_buffer(&mut frame).get_mut(room..room + header_len)?;
        header.copy_from_slice(train.header.get(..header_len)?);
        Header::set_seq(header, seq.0);
        let sum = train.sum.add_at(0, sum).bytes(&seq.0.to_be_bytes());
        Header::set_checksum(header, sum.finish());
        Some(Transmit { frame, retained: Some(start), ecn })
    }
}
