//! RACK (RFC 8985 §6): a segment is lost when one that was sent later has arrived, and the time that reordering may take
//! has passed, too.

use super::{DUP_THRESH, order::Order, reduction::Losses, scoreboard::Scoreboard};
use crate::{
    tcp::send_queue::{Entry, SendQueue},
    time::{Duration, Instant},
};

/// The reordering window grows and shrinks by this part of the smallest round trip (RFC 8985 §6.2, step 4).
const REO_WND_STEP: u32 = 4;

/// Recoveries without a DSACK after which the window is as small again as at first (RFC 8985 §6.2, step 4).
const REO_WND_PERSIST: u32 = 16;

/// What the loss detection has to know of the round trip.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    /// RACK.min_RTT, once measured (RFC 8985 §6.2, step 1): the smallest of all samples. The RFC recommends one of the
    /// last minutes; of all, and the window of reordering is rather too small after a path has become longer, which
    /// DSACKs then correct.
    pub(super) min: Option<Duration>,
    /// SRTT, once measured.
    pub(super) smoothed: Option<Duration>,
}

/// The state of RFC 8985 §5.3.
#[derive(Debug)]
pub(super) struct Rack {
    /// RACK.rtt: the round trip of the segment that was sent last among those that have arrived.
    pub(super) rtt: Duration,
    /// RACK.xmit_ts and RACK.end_seq in one: the number of that segment's transmission.
    pub(super) delivered: u64,
    /// The same of what the present ACK tells, before it counts.
    pub(super) latest: Option<(u64, Instant)>,
    /// RACK.fack: the highest stream offset that has arrived.
    pub(super) fack: u64,
    /// RACK.reordering_seen.
    pub(super) reordering_seen: bool,
    /// RACK.reo_wnd.
    pub(super) reo_wnd: Duration,
    /// RACK.reo_wnd_mult.
    pub(super) steps: u32,
    /// RACK.reo_wnd_persist.
    pub(super) persist: u32,
    /// RACK.dsack_round: the window has grown in the round trip that ends there.
    pub(super) dsack_round: Option<u64>,
    /// It has grown with the present ACK: should that end a recovery, it was none without a DSACK.
    pub(super) has_grown: bool,
}

impl Default for Rack {
    fn default() -> Self {
        Self {
            rtt: Duration::ZERO,
            delivered: 0,
            latest: None,
            fack: 0,
            reordering_seen: false,
            reo_wnd: Duration::ZERO,
            steps: 1,
            persist: REO_WND_PERSIST,
            dsack_round: None,
            has_grown: false,
        }
    }
}

impl Rack {
    /// Whether segments are known to overtake each other.
    pub(super) fn reordering_seen(&self) -> bool {
        self.reordering_seen
    }

    /// How long an overtaken segment may take longer than the one that overtook it.
    pub(super) fn reo_wnd(&self) -> Duration {
        self.reo_wnd
    }

    /// A segment was delivered, as the ACK at `now` tells. Segments of one ACK come in the order of the stream.
    /// `answered_at` is when the segment that the ACK answers was sent at the latest, if timestamps tell.
    pub(super) fn on_delivered(
        &mut self,
        now: Instant,
        entry: &Entry,
        answered_at: Option<Instant>,
        min_rtt: Option<Duration>,
    ) {
        // RFC 8985 §6.2, step 3.
        if entry.end() > self.fack {
            self.fack = entry.end();
        } else if entry.end() < self.fack && entry.transmissions == 1 {
            self.reordering_seen = true;
        }
        // RFC 8985 §6.2, step 2: which copy of a retransmitted segment is it that has arrived?
        if entry.transmissions > 1 {
            let of_the_first = answered_at.is_some_and(|at| at < entry.sent_at);
            let too_soon = min_rtt.is_some_and(|min| now.since(entry.sent_at) < min);
            if of_the_first || too_soon {
                return;
            }
        }
        self.latest = self.latest.max(Some((entry.order, entry.sent_at)));
    }

    /// All segments of an ACK have been told.
    pub(super) fn on_ack(&mut self, now: Instant) {
        // RFC 8985 §6.2, step 2.
        if let Some((order, sent_at)) = self.latest.take() {
            self.rtt = now.since(sent_at);
            self.delivered = self.delivered.max(order);
        }
    }

    /// RFC 8985 §6.2, step 4, the first half: `dsack` came with an ACK after which SND.UNA and SND.NXT are `una` and
    /// `nxt`.
    pub(super) fn on_dsack_round(&mut self, dsack: bool, una: u64, nxt: u64) {
        self.dsack_round = self.dsack_round.filter(|&end| una < end);
        self.has_grown = dsack && self.dsack_round.is_none();
        if self.has_grown {
            self.dsack_round = Some(nxt);
            self.steps = self.steps.saturating_add(1);
            self.persist = REO_WND_PERSIST;
        }
    }

    /// A recovery has ended (RFC 8985 §6.2, step 4).
    pub(super) fn on_recovered(&mut self) {
        if !self.has_grown {
            self.persist = self.persist.saturating_sub(1);
        }
        if self.persist == 0 {
            self.steps = 1;
        }
    }

    /// A loss that was found by overtaking was none. RFC 8985 learns of reordering from segments that were sent once only;
    /// here one was sent again too soon, which is as good a sign.
    pub(super) fn on_spurious_recovery(&mut self) {
        self.reordering_seen = true;
    }

    /// RACK_update_reo_wnd, the second half: as long as nothing was ever seen out of order, a recovery, or three sacked
    /// segments, are sign enough of a loss.
    pub(super) fn update_reo_wnd(&mut self, recovering: bool, sacked_entries: usize, round_trip: RoundTrip) {
        let sure = !self.reordering_seen && (recovering || sacked_entries >= DUP_THRESH);
        let step = round_trip.min.unwrap_or_default() / REO_WND_STEP;
        self.reo_wnd = match round_trip.smoothed {
            _ if sure => Duration::ZERO,
            Some(srtt) => step.saturating_mul(self.steps).min(srtt),
            None => step,
        };
    }

    /// RFC 8985 §6.2, step 5: marks what is lost, and returns that, and when the next one will be.
    ///
    /// The RFC has the timer wait for the last of those that were overtaken; here it waits for the first, so that each
    /// gets exactly its time. All that expire at once are found at once.
    pub(super) fn detect_losses(
        &self,
        now: Instant,
        queue: &mut SendQueue,
        order: &mut Order,
        scoreboard: &mut Scoreboard,
    ) -> (Losses, Option<Instant>) {
        let mut found = Losses::default();
        while let Some(index) = order.first(queue) {
            let Some(entry) = queue.get(index).filter(|entry| entry.order < self.delivered) else { break };
            let deadline = entry.sent_at + self.rtt + self.reo_wnd;
            if deadline > now {
                return (found, Some(deadline));
            }
            found.add(entry.order);
            scoreboard.mark_lost(queue, index);
        }
        (found, None)
    }

    /// RFC 8985 §6.3: after a time-out, what was sent so long ago that it should have been acknowledged is lost.
    pub(super) fn mark_on_timeout(
        &self,
        now: Instant,
        srtt: Option<Duration>,
        queue: &mut SendQueue,
        order: &mut Order,
        scoreboard: &mut Scoreboard,
    ) {
        scoreboard.mark_lost(queue, 0);
        // Before anything was delivered, the handshake's round trip stands in.
        let rtt = if self.delivered == 0 { srtt.unwrap_or_default() } else { self.rtt };
        while let Some(index) = order.first(queue) {
            let expired = |entry: &&Entry| entry.sent_at + rtt + self.reo_wnd <= now;
            if queue.get(index).filter(expired).is_none() {
                return;
            }
            scoreboard.mark_lost(queue, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: RoundTrip =
        RoundTrip { min: Some(Duration::from_millis(40)), smoothed: Some(Duration::from_millis(50)) };

    fn window(rack: &mut Rack, recovering: bool, sacked: usize) -> u128 {
        rack.update_reo_wnd(recovering, sacked, ROUND_TRIP);
        rack.reo_wnd().as_millis()
    }

    /// RFC 8985 §6.2, step 1 and step 4.
    #[test]
    fn the_window_is_zero_only_while_nothing_was_seen_out_of_order_rfc8985_6_2() {
        let mut rack = Rack::default();
        assert_eq!(window(&mut rack, false, 1), 10, "a quarter of the smallest round trip");
        assert_eq!(window(&mut rack, false, 3), 0, "DupThresh");
        assert_eq!(window(&mut rack, true, 0), 0, "in a recovery");
        rack.reordering_seen = true;
        assert_eq!(window(&mut rack, true, 3), 10);
    }

    /// RFC 8985 §6.2, step 4.
    #[test]
    fn dsacks_widen_it_once_a_round_and_sixteen_quiet_recoveries_end_that_rfc8985_6_2() {
        let mut rack = Rack { reordering_seen: true, ..Rack::default() };
        rack.on_dsack_round(true, 100, 1000);
        assert_eq!(window(&mut rack, true, 0), 20);
        rack.on_dsack_round(true, 999, 1500);
        assert_eq!(window(&mut rack, true, 0), 20, "the same round");
        rack.on_dsack_round(true, 1000, 2000);
        assert_eq!(window(&mut rack, true, 0), 30);
        for round in 2..20 {
            rack.on_dsack_round(true, round * 1000, round * 1000 + 1000);
        }
        assert_eq!(window(&mut rack, true, 0), 50, "SRTT is the bound");
        rack.on_recovered();
        rack.on_dsack_round(false, 20_001, 30_000);
        (0..15).for_each(|_| rack.on_recovered());
        assert_eq!(window(&mut rack, true, 0), 50);
        rack.on_recovered();
        assert_eq!(window(&mut rack, true, 0), 10);
    }
}
