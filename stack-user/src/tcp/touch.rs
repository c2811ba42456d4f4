//! What a segment needs of its connection, as far as it is to be fetched from memory ahead of time.

use super::{Connection, timer::Timer};
use crate::time::Instant;

impl Connection {
    /// Reads from each part that the next segment will be judged by, so that the lines they are in come into the cache, or next to
    /// all of them. The result says nothing. What is read is what takes least to read: the shorter this is, the more connections the
    /// CPU waits for at once.
    pub(crate) fn touch(&self) -> u64 {
        // Some have all bits set: sums would overflow.
        let nanos = |at: Option<Instant>| at.map_or(0, Instant::as_nanos);
        let (size, number, flag) =
            (|size: usize| size as u64, |n: u32| u64::from(n), |yes: bool| u64::from(yes));
        let of_both_ends = number(self.local.port().into()) ^ number(self.remote.port().into());
        let of_the_configuration = number(self.config.mss.into())
            ^ flag(self.config.ecn)
            ^ size(self.config.send_buffer)
            ^ self.config.ack_hold.as_secs();
        let of_the_stream = self.snd.una_offset
            ^ self.rcv.nxt_offset
            ^ size(self.snd.wnd)
            ^ size(self.send.bytes())
            ^ size(self.send.lost())
            ^ size(self.recv.memory())
            ^ size(self.reassembly.memory())
            ^ size(self.largest_payload)
            ^ size(self.accounted)
            ^ flag(self.fin_received)
            ^ flag(self.duplicate.is_some());
        let of_time = nanos(self.timers.at(Timer::Retransmit))
            ^ nanos(self.timers.at(Timer::FrameRetry))
            ^ self.silence.heard().as_nanos()
            ^ self.last_sent_at.as_nanos()
            ^ self.pacer.held_until().as_nanos()
            ^ flag(self.timestamps.enabled);
        let of_what_is_measured = self.counts.segments_received
            ^ self.counts.bytes_received
            ^ self.window_full_until
            ^ flag(self.recovery.is_at_rest())
            ^ size(self.pmtud.mtu())
            ^ size(self.autotune.receive_buffer())
            ^ size(self.autotune.send_buffer())
            ^ self.round_trip_as_receiver().map_or(0, |rtt| rtt.as_secs())
            ^ number(self.persist.probes());
        let of_what_is_due = flag(self.acks.is_owed())
            ^ flag(self.has_challenged)
            ^ flag(self.tracer.is_some())
            ^ flag(self.soft_error.is_some())
            ^ flag(self.reads_closed);
        of_both_ends ^ of_the_configuration ^ of_the_stream ^ of_time ^ of_what_is_measured ^ of_what_is_due
    }
}
