//! A train: full segments that leave one behind the other, at the same time.
//!
//! Whoever has much to send sends a window's worth at once, and what was found out for its first segment holds for those behind it:
//! the windows have room, it is their turn, the timers run, and their headers, those of the layers below included, differ in
//! nothing but the sequence number and the checksum. So it is counted how many there may be, they are made in one go, and what
//! there is to remember of them is remembered once.

use super::Transmit;
use crate::{
    frame::{FramePool, TxFrame, behind},
    tcp::{Connection, options::TIMESTAMPS_LEN, recovery::Phase},
    time::Instant,
    wire::{
        checksum::Sum,
        protocol,
        tcp::{Flags, Header},
    },
};

/// Bytes of the longest header of a data segment: with timestamps.
const HEADER_LEN: usize = Header::LEN + TIMESTAMPS_LEN;

/// All that the segments of a train may say: other flags are for one segment alone.
const FOR_ALL: Flags = Flags::ACK.with(Flags::ECE);

impl Connection {
    /// Whether it is worth asking for [followers](Self::transmit_followers) of a segment.
    pub fn may_lead(&self, sent: &Transmit) -> bool {
        sent.retained.is_some() && self.send.has_more_unsent()
    }

    /// Sends full segments of new data behind the one that was sent last, which starts at stream offset `leader`: as many as may
    /// follow it at once, and `max` at most. `headers` is all that its frame has in front of its payload. Each frame is handed over
    /// with what it is [retained](Transmit::retained) by; returns how many there were.
    ///
    /// There are none unless that segment was a full one of new data itself, sent at the same time and in its turn.
    pub fn transmit_followers<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        leader: u64,
        headers: &[u8],
        max: usize,
        mut sent: impl FnMut(TxFrame, u64),
    ) -> usize {
        let layout = self.layout();
        let room = self.config.header_room;
        let Some(template) = headers.get(room..).filter(|_| headers.len() == layout.payload_at) else {
            return 0;
        };
        if !FOR_ALL.contains(Header::flags(template)) || !self.send.was_sent_last(leader, layout.mss, now) {
            return 0;
        }
        let n = self.may_follow(layout.mss, max);
        let Some(start) = self.send.unsent().map(|entry| entry.start).filter(|_| n > 0) else { return 0 };

        let (segment, whole) = (template.len() + layout.mss, headers.len() + layout.mss);
        let of_all = Sum::pseudo_header(self.local.ip(), self.remote.ip(), protocol::TCP, segment)
            .bytes(&blank(template));
        let led_alone = self.send.sent_entries() == 1;
        let first = self.recovery.on_followers(now, &self.send, start, layout.mss, n);
        let mut seq = self.snd.nxt;
        self.send.take_followers(n, layout.mss, now, first, |start, sum, mut frame| {
            frame.set_len(whole);
            let sum = sum.unwrap_or_else(|| Sum::new().pieces(behind(headers.len(), pool.tx_pieces(&frame))));
            if let Some(front) = pool.tx_buffer(&mut frame).get_mut(..headers.len()) {
                front.copy_from_slice(headers);
                let own = front.get_mut(room..).unwrap_or_default();
                Header::renumber(own, seq.0, of_all.add_at(0, sum).u32(seq.0).finish());
            }
            seq += layout.mss;
            sent(frame, start);
        });
        self.snd.nxt = seq;
        if led_alone {
            // The time of a loss probe depends on whether one segment is alone on its way (RFC 8985 §7.2).
            self.set_probe_timer(now, true);
        }
        self.pace(now, n * layout.mss);
        self.counts.segments_sent += n as u64;
        n
    }

    /// How many full segments may be sent now, `max` at most, when one just was.
    fn may_follow(&self, mss: usize, max: usize) -> usize {
        let calm =
            self.recovery.phase() == Phase::Open && self.send.lost() == 0 && !self.recovery.wants_new_data();
        let plain = !self.ecn.has_news() && !self.has_urgent_data() && !self.pmtud.wants_probe();
        if !calm || !plain {
            return 0;
        }
        let window = (self.snd.una + self.snd.wnd) - self.snd.nxt;
        let congestion = self.congestion.cwnd().saturating_sub(self.recovery.pipe(&self.send, mss));
        let allowed = (window.min(congestion) / mss).min(self.paced_segments(mss)).min(max);
        self.send.full_unsent(mss, allowed)
    }
}

/// A header without sequence number and checksum.
fn blank(header: &[u8]) -> [u8; HEADER_LEN] {
    let mut blank = [0; HEADER_LEN];
    if let Some(same) = blank.get_mut(..header.len()) {
        same.copy_from_slice(header);
    }
    Header::renumber(&mut blank, 0, 0);
    blank
}
