//! What a host says of what it has received, and when.

use std::ops::Range;

use stack_user::{
    tcp::SeqNumber,
    time::{Duration, Instant},
};

use super::{Seen, Verdict, ranges::Ranges};

/// RFC 9293 §3.8.6.3, MUST-40.
const ACK_DELAY: Duration = Duration::from_millis(500);

/// One direction of a connection, from the host's side. Places are offsets of the peer's stream.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// The latest ACK, and the right edge of the window, wherever it was farthest to the right.
    ack: i64,
    edge: i64,
    /// It is the connection that speaks, and not what stood in for it during the handshake.
    is_open: bool,
    /// The number of the peer's FIN.
    fin: Option<i64>,
    /// It is acknowledged: nothing more can come.
    is_complete: bool,
    /// What has come, whether the host took it or not; and what of it came more than once.
    may: Ranges,
    twice: Ranges,
    /// What the host must have taken.
    must: Ranges,
    /// The peer's latest timestamp, and its latest ACK.
    timestamp: Option<SeqNumber>,
    peers_ack: i64,
    /// The latest timestamp that may be echoed.
    echo: Option<SeqNumber>,
    /// The latest segment, if it lies behind a gap: what the next SACK has to be about.
    trigger: Option<Range<i64>>,
    /// Since when something in order waits for its ACK.
    owes_since: Option<Instant>,
    /// Something came that is to be acknowledged at once.
    owes_at_once: Option<&'static str>,
    /// The largest payload that came.
    largest: i64,
    /// The largest window that was offered, and the payload of a full segment as our SYN asks for it.
    largest_window: i64,
    segment: i64,
}

/// Bytes of options that a full segment has at most.
const OPTIONS: i64 = 40;

impl Receiver {
    /// What our SYN says.
    pub(super) fn offer(&mut self, window: i64, mss: i64) {
        self.edge = self.edge.max(window);
        self.largest_window = window;
        self.segment = mss - OPTIONS;
    }

    /// Whether nothing about a segment is old: PAWS must let it pass (RFC 7323 §5.3), and so must the check of its ACK (RFC
    /// 5961 §5), and its numbers are in the window.
    fn is_timely(&self, seen: &Seen) -> bool {
        let is_newest = match (seen.segment.options.timestamps, self.timestamp) {
            (Some(ours), Some(latest)) => SeqNumber(ours.value).at_or_after(latest),
            (ours, latest) => ours.is_some() == latest.is_some(),
        };
        let is_newest = is_newest && seen.ack >= self.peers_ack;
        let begins_inside = seen.start >= self.ack && seen.start <= self.edge;
        self.is_open && is_newest && begins_inside
    }

    /// The host takes a segment that is no SYN. Returns whether it must have heeded its ACK.
    pub(super) fn received(&mut self, seen: &Seen) -> bool {
        let range = seen.start..seen.end();
        let is_timely = self.is_timely(seen);
        // What has come as a whole before is not acceptable (RFC 9293 §3.4).
        let next = self.may.gap_after(0);
        let is_inside = range.is_empty() || seen.start < self.edge || seen.start <= next;
        let is_acceptable = is_inside && (seen.start >= next || seen.end() > next);
        if self.is_complete && seen.ack > self.peers_ack {
            // It may be the last ACK, and then the connection is over.
            self.owes_at_once = None;
        }
        self.peers_ack = self.peers_ack.max(seen.ack);
        self.note_timestamp(seen);
        if range.is_empty() {
            return is_timely && is_acceptable;
        }
        self.largest = self.largest.max(seen.len);
        let again: Vec<_> = self.may.within(range.clone()).collect();
        again.into_iter().for_each(|part| self.twice.insert(part));
        self.may.insert(range.clone());
        self.fin = self.fin.or(seen.fin.then(|| range.end - 1));
        self.trigger = None;
        if self.is_open && range.end <= self.ack {
            self.owes_at_once = Some("what came before");
        }
        // What lies beyond the window is not kept, whoever may have said that there is room (RFC 9293 §3.10.7.4).
        let kept = range.start..range.end.min(self.edge);
        if is_timely && !self.is_complete && !kept.is_empty() {
            self.take(seen, kept);
        }
        is_timely && is_acceptable
    }

    /// TS.Recent follows segments that begin at or before the latest ACK (RFC 7323 §4.3, rule 2).
    fn note_timestamp(&mut self, seen: &Seen) {
        let Some(timestamps) = seen.segment.options.timestamps else { return };
        let value = SeqNumber(timestamps.value);
        let later = |than: Option<SeqNumber>| Some(than.map_or(value, |than| than.max(value)));
        self.timestamp = later(self.timestamp);
        if seen.start <= self.ack || !seen.is_prompt {
            self.echo = later(self.echo);
        }
    }

    /// The host must have taken what came.
    fn take(&mut self, seen: &Seen, range: Range<i64>) {
        let data = range.start..range.end.min(seen.start + seen.len);
        let next = self.must.gap_after(self.ack);
        let fills_gap = self.must.reaches_beyond(next);
        self.must.insert(range.clone());
        // FIN is in no block: it needs no room.
        if range.start > self.may.gap_after(0) && !data.is_empty() {
            self.trigger = Some(data);
            self.owes_at_once = Some("data behind a gap");
        }
        if range.start > next {
            return;
        }
        self.owes_since.get_or_insert(seen.now);
        if range.end <= next {
            self.owes_at_once = Some("a duplicate");
        } else if fills_gap {
            self.owes_at_once = Some("what fills a gap");
        }
    }

    /// The host sends a segment with ACK that is no SYN. `snd_nxt` is where its own stream is.
    pub(super) fn sent(&mut self, seen: &Seen, is_active: bool, speaks_sack: bool, snd_nxt: i64) -> Verdict {
        let edge = seen.ack + seen.window;
        self.is_open |= is_active || seen.ack > 0 || seen.len > 0;
        if seen.ack < self.ack {
            return Err(format!("acknowledges {}, and has acknowledged {} before", seen.ack, self.ack));
        }
        if seen.ack > self.may.gap_after(0) {
            return Err(format!("acknowledges {}, which has not come", seen.ack));
        }
        if seen.ack > self.edge + 1 {
            return Err(format!("acknowledges {}, and its window ended at {}", seen.ack, self.edge));
        }
        // RFC 9293 §3.8.6, SHLD-14; RFC 7323 §2.4: it may be rounded.
        if edge + seen.unit <= self.edge {
            return Err(format!("takes back its window, from {} to {edge}", self.edge));
        }
        self.judge_step(seen)?;
        self.judge_echo(seen)?;
        let is_alone = seen.end() == seen.start && seen.start == snd_nxt;
        self.judge_blocks(seen)?;
        if is_alone && speaks_sack && seen.is_prompt {
            self.judge_news(seen)?;
        }
        self.largest_window = self.largest_window.max(seen.window);
        self.edge = self.edge.max(edge);
        self.ack = seen.ack;
        self.must.insert(0..seen.ack);
        self.is_complete |= self.fin.is_some_and(|fin| fin < seen.ack);
        if is_alone || self.trigger.is_none() {
            self.owes_at_once = None;
        }
        self.is_late(seen.now)?;
        self.owes_since = Some(seen.now).filter(|_| self.must.gap_after(self.ack) > self.ack);
        Ok(())
    }

    /// The window moves by segments, or by half of a buffer that is smaller, and not by crumbs (RFC 9293 §3.8.6.2.2,
    /// MUST-39). The buffer is at least what was ever offered.
    fn judge_step(&self, seen: &Seen) -> Verdict {
        let step = seen.ack + seen.window - self.edge;
        let least = self.segment.min(self.largest_window / 2);
        // The field may have no room for more. Rounding makes steps of its own.
        let is_all = seen.segment.window == u16::MAX;
        match !is_all && step > seen.unit && step + seen.unit < least {
            true => Err(format!("opens its window by {step}, and segments are {least}")),
            false => Ok(()),
        }
    }

    /// What is behind a gap is not echoed: the peer would measure too short a round trip (RFC 7323 §4.3).
    fn judge_echo(&self, seen: &Seen) -> Verdict {
        let echoed = seen.segment.options.timestamps.map(|timestamps| SeqNumber(timestamps.echo));
        match echoed.zip(self.echo).filter(|(echoed, latest)| echoed.after(*latest)) {
            Some(_) => Err("echoes a timestamp that did not come with the next data".into()),
            None => Ok(()),
        }
    }

    /// Blocks are true, whole, and in order (RFC 2018 §3 and §4, RFC 2883 §4).
    fn judge_blocks(&self, seen: &Seen) -> Verdict {
        let blocks = self.blocks(seen);
        for (at, block) in blocks.iter().enumerate() {
            let is_duplicate = is_duplicate(&blocks, at, seen.ack);
            if block.end > self.edge {
                return Err(format!("a SACK block tells of {block:?}, and the window ends at {}", self.edge));
            }
            if block.is_empty() || !self.may.covers(block) {
                return Err(format!("a SACK block tells of {block:?}, which has not come"));
            }
            if is_duplicate && (at > 0 || !self.twice.covers(block)) {
                return Err(format!(
                    "block {at} of a SACK tells of {block:?}, which did not come twice just now"
                ));
            }
            let has_taken = |at: i64| self.fin != Some(at) && self.must.covers(&(at..at + 1));
            let is_part = has_taken(block.start - 1) || has_taken(block.end);
            if !is_duplicate && is_part && seen.is_prompt {
                return Err(format!("a SACK block tells of {block:?} only, and there is more beside it"));
            }
        }
        Ok(())
    }

    /// What came last comes first (RFC 2018 §4); only what came twice may be in front of it (RFC 2883 §4).
    fn judge_news(&self, seen: &Seen) -> Verdict {
        let Some(trigger) = self.trigger.clone().filter(|trigger| trigger.start > seen.ack) else {
            return Ok(());
        };
        let blocks = self.blocks(seen);
        let holds = |block: &Range<i64>| block.start <= trigger.start && trigger.end <= block.end;
        // A duplicate takes the block that it belongs to along.
        let first = if is_duplicate(&blocks, 0, seen.ack) { blocks.get(1..3) } else { blocks.get(..1) };
        match first.or(blocks.get(1..)).is_some_and(|first| first.iter().any(holds)) {
            true => Ok(()),
            false => Err(format!("a SACK has {blocks:?}, and {trigger:?} came last")),
        }
    }

    fn blocks(&self, seen: &Seen) -> Vec<Range<i64>> {
        let offset = |seq: SeqNumber| seen.ack + i64::from(seq.distance(seen.segment.ack));
        seen.segment.options.sack.iter().map(|(left, right)| offset(left)..offset(right)).collect()
    }

    /// Something kept the host from sending, or may have.
    pub(super) fn excuse(&mut self, now: Instant) {
        if let Some(since) = &mut self.owes_since {
            *since = now.max(*since);
        }
    }

    /// The host has nothing more to say now.
    pub(super) fn owes_nothing(&self, now: Instant) -> Verdict {
        if let Some(what) = self.owes_at_once {
            return Err(format!("{what} is not acknowledged at once (RFC 5681 §4.2)"));
        }
        let waits = self.must.gap_after(self.ack) - self.ack;
        if self.largest > 0 && waits >= 2 * self.largest {
            let largest = self.largest;
            return Err(format!("{waits} bytes wait for their ACK, and segments are {largest} (SHLD-19)"));
        }
        self.is_late(now)
    }

    fn is_late(&self, now: Instant) -> Verdict {
        match self.owes_since.map(|since| now.since(since)).filter(|&delay| delay > ACK_DELAY) {
            Some(delay) => Err(format!("an ACK is {delay:?} late (MUST-40)")),
            None => Ok(()),
        }
    }
}

/// Whether a block tells of what came twice (RFC 2883 §4): it lies below the ACK or in another block. Of two that are
/// the same, the first does.
fn is_duplicate(blocks: &[Range<i64>], at: usize, ack: i64) -> bool {
    let Some(block) = blocks.get(at) else { return false };
    let holds = |other: &Range<i64>| other.start <= block.start && block.end <= other.end;
    let is_held = |(number, other): (usize, &Range<i64>)| {
        number != at && holds(other) && (other != block || at < number)
    };
    block.end <= ack || blocks.iter().enumerate().any(is_held)
}
