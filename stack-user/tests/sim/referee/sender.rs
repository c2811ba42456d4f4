//! What a host may send, by what its peer has told it.

use stack_user::time::{Duration, Instant};

use super::{Seen, Verdict};

/// RTO need not grow beyond that (RFC 6298 §2.5).
const LONGEST_GAP: Duration = Duration::from_secs(30);

/// One direction of a connection, from the host's side. Places are offsets of its own stream.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// SND.NXT: behind what was ever sent.
    next: i64,
    /// What the peer has certainly acknowledged.
    acked: i64,
    /// The right edge of the peer's window, wherever it was farthest to the right.
    edge: i64,
    /// Something of the stream was sent, and something came afterwards.
    has_sent: bool,
    was_answered: bool,
    silence: Silence,
}

/// What was sent since anything came that tells something.
#[derive(Debug, Default)]
struct Silence {
    /// When the oldest segment was sent: the latest two times, and how often.
    times: [Instant; 2],
    count: usize,
    /// The first of these was its very first time.
    began_new: bool,
    /// The retransmission timer has expired; bytes that were sent since, that segment's included.
    after_timeout: Option<i64>,
}

impl Sender {
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Something came, or happened, from which something may follow.
    pub(super) fn hear(&mut self) {
        self.silence = Silence::default();
        self.was_answered |= self.has_sent;
    }

    /// The host takes a segment, and if it `is_heeded`, certainly its ACK.
    pub(super) fn received(&mut self, seen: &Seen, is_heeded: bool) {
        self.edge = self.edge.max(seen.ack + seen.window);
        if is_heeded && seen.ack <= self.next {
            self.acked = self.acked.max(seen.ack);
        }
    }

    /// The host sends a segment; the peer takes payloads of `mss` bytes.
    pub(super) fn sent(&mut self, seen: &Seen, mss: i64) -> Verdict {
        if seen.end() == seen.start {
            return Ok(());
        }
        let end = seen.start + seen.len;
        // RFC 9293 §3.8.6: what lies beyond is not asked for. FIN needs no room.
        if seen.len > 0 && end > self.edge {
            return Err(format!("sends up to {end}, and the peer's window ends at {}", self.edge));
        }
        if seen.is_prompt && seen.end() <= self.acked {
            let acked = self.acked;
            return Err(format!("sends {}..{end} again, and all up to {acked} is acknowledged", seen.start));
        }
        let is_new = seen.start >= self.next;
        self.next = self.next.max(seen.end());
        self.has_sent = true;
        // What waited for a neighbour did so while timers went on.
        self.was_answered |= !seen.is_prompt;
        self.judge_first_window(mss)?;
        self.judge_silence(seen, mss, is_new)
    }

    /// RFC 6928 §2; a tail loss probe may come on top of it (RFC 8985 §7.3).
    fn judge_first_window(&self, mss: i64) -> Verdict {
        let window = (10 * mss).min(14_600.max(2 * mss));
        let allowed = window + mss + 1;
        if !self.was_answered && self.next > allowed {
            return Err(format!("sends {} bytes before any answer, and {allowed} is the most", self.next));
        }
        Ok(())
    }

    /// While nothing comes there is only the retransmission timer (and one probe): it backs off, and the window is one
    /// segment.
    fn judge_silence(&mut self, seen: &Seen, mss: i64, is_new: bool) -> Verdict {
        if !seen.is_prompt {
            self.silence = Silence::default();
            return Ok(());
        }
        let next = self.next;
        let silence = &mut self.silence;
        if seen.start != self.acked {
            let Some(sent) = &mut silence.after_timeout else { return Ok(()) };
            *sent += seen.len;
            // RFC 5681 §3.1, equation 4: LW is one segment.
            return match *sent > mss {
                true => Err(format!("sends {sent} bytes after a time-out, and its window is {mss}")),
                false => Ok(()),
            };
        }
        if silence.count == 0 {
            silence.began_new = is_new;
        }
        let gap = seen.now.since(silence.times[1]);
        let last_gap = silence.times[1].since(silence.times[0]);
        // RFC 6298 §5.5. The first gap may be that of a probe.
        let backs_off = silence.count < 3 || last_gap > LONGEST_GAP || gap >= last_gap * 3 / 2;
        silence.times = [silence.times[1], seen.now];
        silence.count += 1;
        // A probe is the last segment; so if there are others behind, and nobody said anything, it was the timer.
        let is_timeout = silence.began_new && silence.count > 1 && next > seen.end() || silence.count > 2;
        if is_timeout {
            silence.after_timeout = Some(seen.len);
        }
        match backs_off {
            true => Ok(()),
            false => Err(format!("a time-out after {gap:?}, and the one before it took {last_gap:?}")),
        }
    }
}
