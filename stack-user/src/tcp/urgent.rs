//! Urgent data (RFC 9293 §3.8.5): a point in the stream up to which the application is asked to hurry.
//!
//! What the urgent pointer points at is data like any other, and is read in line (RFC 6093 §6). New applications do
//! without (SHLD-13); this is for those that are old.

use super::{Connection, Event, WriteError, segment::Segment, seq::SeqNumber};
use crate::{frame::FramePool, time::Instant, wire::tcp::Flags};

/// Where urgent data ends, either way: the stream offset of the byte behind it (MUST-62), 0 for none. A point that only
/// moves on allows for urgent data of any length (MUST-31).
#[derive(Debug, Default)]
pub(super) struct Urgent {
    /// RCV.UP.
    received: u64,
    /// SND.UP.
    sent: u64,
}

impl Urgent {
    /// Whether it tells nothing any more when all up to these stream offsets has been acknowledged, and read.
    pub(super) fn is_over(&self, acknowledged: u64, read: u64) -> bool {
        self.sent <= acknowledged && self.received <= read
    }
}

impl Connection {
    /// How many bytes are still to be read, or to come, up to the end of urgent data; 0 if there is none (RFC 9293
    /// §3.8.5, MUST-33). [`Event::Urgent`] tells when it grows.
    pub fn urgent_ahead(&self) -> usize {
        self.urgent.received.saturating_sub(self.read_offset()) as usize
    }

    /// As [`write`](Self::write), and what is written is urgent, with all before it (RFC 9293 §3.8.5, MUST-30).
    ///
    /// # Errors
    /// As there.
    pub fn write_urgent<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        data: &[u8],
    ) -> Result<usize, WriteError> {
        let written = self.write(now, pool, data)?;
        if written > 0 {
            self.urgent.sent = self.snd.una_offset + self.send.bytes() as u64;
        }
        Ok(written)
    }

    /// RFC 9293 §3.10.7.4, sixth step: the pointer of a segment that starts at `seq`, which may lead beyond our window,
    /// and counts when that is closed (§3.4, MUST-66). The application is told when the point moves on (MUST-32).
    pub(super) fn take_urgent_pointer(&mut self, segment: &Segment, seq: SeqNumber) {
        if !segment.flags.contains(Flags::URG) || !self.state.may_receive() {
            return;
        }
        let end = self.rcv.offset(seq + usize::from(segment.urgent)).unwrap_or_default();
        if end > self.urgent.received.max(self.read_offset()) {
            self.urgent.received = end;
            self.events.push(Event::Urgent);
        }
    }

    /// Whether what is sent next may lie before the end of urgent data.
    pub(super) fn has_urgent_data(&self) -> bool {
        self.urgent.sent > self.snd.una_offset
    }

    /// Marks a segment behind whose start urgent data ends.
    pub(super) fn mark_urgent(&self, segment: &mut Segment) {
        if self.urgent.sent <= self.snd.una_offset || segment.seq.before(self.snd.una) {
            return;
        }
        let ahead = self.urgent.sent.saturating_sub(self.snd.offset(segment.seq));
        if ahead > 0 {
            segment.flags = segment.flags.with(Flags::URG);
            segment.urgent = ahead.try_into().unwrap_or(u16::MAX);
        }
    }

    /// The stream offset of the byte that is read next.
    fn read_offset(&self) -> u64 {
        self.rcv.nxt_offset.saturating_sub(self.recv.len() as u64)
    }
}
