//! What a segment needs of its connection, as far as it is to be fetched from memory ahead of time.

use super::Connection;
use crate::time::Instant;

impl Connection {
    /// Reads from each part that the next segment will be judged by, so that the lines they are in come into the cache. The
    /// result says nothing.
    pub(crate) fn touch(&self) -> u64 {
        // Some have all bits set: sums would overflow.
        let nanos = |at: Option<Instant>| at.map_or(0, Instant::as_nanos);
        let (size, number, flag) =
            (|size: usize| size as u64, |n: u32| u64::from(n), |yes: bool| u64::from(yes));
        [
            number(self.local.port().into()) ^ number(self.remote.port().into()),
            number(self.config.mss.into()) ^ flag(self.config.ecn) ^ size(self.config.send_buffer),
            self.snd.una_offset ^ self.rcv.nxt_offset ^ size(self.snd.wnd),
            size(self.send.bytes()) ^ size(self.send.lost()) ^ size(self.recv.len()),
            size(self.reassembly.memory()) ^ size(self.largest_payload) ^ size(self.accounted),
            flag(self.acks.is_owed()) ^ flag(self.events.is_empty()) ^ flag(self.fin_received),
            self.counts.segments_received ^ self.counts.bytes_received ^ self.window_full_until,
            nanos(self.timers.next()) ^ self.silence.heard().as_nanos() ^ self.last_sent_at.as_nanos(),
            self.challenges.ends().as_nanos() ^ self.pacer.held_until().as_nanos(),
            self.rtt.srtt().map_or(0, |srtt| number(srtt.subsec_nanos())),
            flag(self.timestamps.enabled) ^ flag(self.recovery.is_at_rest()),
            size(self.pmtud.mtu()) ^ size(self.autotune.receive_buffer()) ^ size(self.autotune.send_buffer()),
            flag(self.duplicate.is_some()) ^ number(self.persist.probes()),
            flag(self.tracer.is_some()) ^ flag(self.soft_error.is_some()),
        ]
        .into_iter()
        .fold(0, |all, part| all ^ part)
    }
}
