//! What a segment needs of its connection, as far as it is to be fetched from memory ahead of time.

use super::Connection;
use crate::time::Instant;

impl Connection {
    /// Reads from each part that the next segment will be judged by, so that the lines they are in come into the cache. The
    /// result says nothing.
    pub(crate) fn touch(&self) -> u64 {
        let nanos = |at: Option<Instant>| at.map_or(0, Instant::as_nanos);
        [
            u64::from(self.local.port()) + u64::from(self.remote.port()),
            u64::from(self.config.mss) + u64::from(self.config.ecn) + self.config.send_buffer as u64,
            self.snd.una_offset + self.rcv.nxt_offset + self.snd.wnd as u64,
            (self.send.bytes() + self.send.lost() + self.recv.len()) as u64,
            (self.reassembly.memory() + self.largest_payload + self.accounted) as u64,
            u64::from(self.acks.is_due()) + u64::from(self.events.is_empty()) + u64::from(self.fin_received),
            self.counts.segments_received + self.counts.bytes_received + self.window_full_until,
            nanos(self.timers.next()) ^ self.silence.heard().as_nanos() ^ self.last_sent_at.as_nanos(),
            self.challenges.ends().as_nanos() ^ self.pacer.held_until().as_nanos(),
            self.rtt.srtt().map_or(0, |srtt| u64::from(srtt.subsec_nanos())),
            u64::from(self.timestamps.enabled) + u64::from(self.recovery.is_at_rest()),
            (self.pmtud.mtu() + self.autotune.receive_buffer() + self.autotune.send_buffer()) as u64,
            u64::from(self.duplicate.is_some()) + u64::from(self.persist.probes()),
            u64::from(self.tracer.is_some()) + u64::from(self.soft_error.is_some()),
        ]
        .into_iter()
        .fold(0, u64::wrapping_add)
    }
}
