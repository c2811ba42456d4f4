//! Loss recovery: when to believe that something is lost, when to send it again, and what to do if it was not.
//!
//! Where the peer speaks SACK, losses are found by time ([`rack`], RFC 8985), and a probe looks after the end of a flight
//! ([`tlp`]). Where it doesn't, three duplicate ACKs tell ([`newreno`], RFC 6582). The retransmission timer (RFC 6298) is
//! for when nothing else helps. All end in the same way: entries of the send queue are marked as lost
//! ([`scoreboard`]), congestion control is told once per window, and the output sends what is marked, as
//! fast as [`prr`] allows. If the peer then shows that nothing had been lost ([`frto`], [`undo`]), all of that is taken
//! back.
//!
//! For each ACK the connection calls [`begin_ack`](Recovery::begin_ack), tells what the ACK says (in the order of the
//! stream: first what is acknowledged, then what is sacked), and calls [`end_ack`](Recovery::end_ack), which judges.

mod counts;
mod delivery;
pub mod dsack;
mod frto;
mod newreno;
mod order;
mod prr;
mod rack;
mod reduction;
mod rest;
mod scoreboard;
#[cfg(test)]
mod tests;
mod tlp;
mod undo;

use core::ops::Range;

use counts::Counts;
use frto::{Evidence, Frto};
use newreno::NewReno;
use order::Order;
use prr::{Delivery, Prr};
use rack::{Rack, RoundTrip};
use reduction::Losses;
pub use rest::Rest;
use scoreboard::Scoreboard;
use tlp::{ProbeAck, Tlp};
use undo::Undo;

use super::{
    congestion::{CongestionControl, Signal},
    delivery_rate::{DeliveryRate, Sample},
    send_queue::{Acknowledged, Entry, Mark, SendQueue, Transmission},
    trace::{RetransmitReason, WindowReason},
};
use crate::{
    frame::FramePool,
    time::{Duration, Instant},
};

/// Duplicate ACKs, or sacked segments above one that is not, that mean a loss (RFC 5681 §3.2, RFC 6675 §2, RFC 8985 §3.1).
pub const DUP_THRESH: usize = 3;

/// What has been lost, and how far the repair has come.
#[derive(Debug, Default)]
pub struct Recovery {
    phase: Phase,
    /// RecoveryPoint (RFC 6675 §5), `recover` (RFC 6582 §3.2): SND.NXT when the loss was found.
    point: u64,
    /// The first retransmission of a recovery goes out whatever the window says (RFC 6675 §5, step 4.3; RFC 9937 §6.2).
    must_retransmit: bool,
    /// SND.NXT when the peer was found to have reneged last.
    reneged: u64,
    /// The number of transmissions when the timer expired last.
    timeout_order: u64,
    /// The same when the window was reduced last: what of these is lost is no news.
    reduced_order: u64,
    order: Order,
    scoreboard: Scoreboard,
    rack: Rack,
    tlp: Tlp,
    newreno: NewReno,
    prr: Prr,
    frto: Frto,
    undo: Undo,
    rate: DeliveryRate,
    /// When the next segment that was overtaken is lost.
    reorder_at: Option<Instant>,
    ack: Progress,
    /// All that was sent is acknowledged, and what follows from that is done: see [`is_at_rest`](Self::is_at_rest).
    at_rest: bool,
    counts: Counts,
}

/// How the connection fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing is known to be lost.
    #[default]
    Open,
    /// The peer told of congestion by ECN: the window shrinks, nothing is lost (RFC 3168 §6.1.2).
    Cwr,
    /// Later segments that arrived, or duplicate ACKs, told of a loss.
    FastRecovery,
    /// The retransmission timer expired.
    Loss,
}

/// What the connection knows when it asks for a judgement.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The present time.
    pub now: Instant,
    /// SND.UNA as a stream offset.
    pub una: u64,
    /// SND.NXT as a stream offset.
    pub nxt: u64,
    /// The largest payload of a segment.
    pub mss: usize,
    /// The peer understands SACK.
    pub sack: bool,
    /// SRTT, once measured.
    pub srtt: Option<Duration>,
    /// The smallest round trip, once measured.
    pub min_rtt: Option<Duration>,
    /// There is data that was never sent, and the peer's window takes some of it.
    pub has_new_data: bool,
    /// The congestion window was full when something was sent that is outstanding, or later.
    pub cwnd_limited: bool,
}

/// What the present ACK has told so far.
#[derive(Debug, Default)]
struct Progress {
    now: Instant,
    answered_at: Option<Instant>,
    min_rtt: Option<Duration>,
    /// Sequence numbers in flight, or lost without our knowledge, before it.
    flight: usize,
    /// SND.UNA moved.
    advanced: bool,
    /// Sequence numbers that it newly acknowledges or sacks.
    delivered: usize,
    /// It brought SACK blocks of outstanding data.
    has_sack: bool,
    /// It is a duplicate ACK in the sense of RFC 5681 §2.
    duplicate: bool,
    dsack: Option<Range<u64>>,
    original_delivered: bool,
    /// The same of a segment that was first sent after the timer expired last.
    new_delivered: bool,
    /// How fast the network delivers, if it tells.
    sample: Option<Sample>,
}

impl Recovery {
    /// How the connection fares.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes that are believed to be on their way (RFC 6675 §4, pipe).
    pub fn pipe(&self, queue: &SendQueue, mss: usize) -> usize {
        // A duplicate ACK stands for one segment, and those in flight may be small.
        match self.newreno.duplicates() {
            0 => queue.in_flight(),
            duplicates => {
                let segment = queue.outstanding() / queue.sent_entries().max(1);
                queue.in_flight().saturating_sub(duplicates * mss.min(segment))
            }
        }
    }

    /// Whether an ACK that repeats the last one has nothing to tell: nothing is outstanding, nor was when the last one was judged.
    /// To judge it again would change nothing. That is so for each segment that who only receives data gets.
    pub fn is_at_rest(&self) -> bool {
        self.at_rest
    }

    /// An ACK has come. `answered_at` is when the segment that it answers was sent at the latest, if timestamps tell.
    pub fn begin_ack(
        &mut self,
        now: Instant,
        queue: &SendQueue,
        mss: usize,
        answered_at: Option<Instant>,
        min_rtt: Option<Duration>,
    ) {
        let told = queue.sacked() + self.newreno.duplicates() * mss;
        let flight = queue.outstanding().saturating_sub(told);
        self.ack = Progress { now, answered_at, min_rtt, flight, ..Progress::default() };
    }

    /// The ACK moved SND.UNA to `una`.
    pub fn on_acknowledged<P: FramePool>(
        &mut self,
        queue: &mut SendQueue,
        pool: &mut P,
        una: u64,
    ) -> Acknowledged {
        let acked = queue.acknowledge(pool, una, |entry, len| self.on_delivered(entry, len));
        self.ack.advanced = true;
        let recovering = self.phase == Phase::FastRecovery;
        self.ack.delivered += self.newreno.on_ack(acked.delivered, acked.entries, recovering);
        acked
    }

    /// The ACK says that the peer has `block`, in ascending order of blocks. Returns whether that is new.
    pub fn on_sack(&mut self, queue: &mut SendQueue, block: Range<u64>) -> bool {
        let before = queue.sacked();
        let mut scoreboard = core::mem::take(&mut self.scoreboard);
        scoreboard.sack(queue, block, |entry| self.on_delivered(entry, entry.sequence_len()));
        self.scoreboard = scoreboard;
        self.ack.has_sack = true;
        let news = queue.sacked() - before;
        self.ack.delivered += news;
        news > 0
    }

    fn on_delivered(&mut self, entry: &Entry, len: usize) {
        let Progress { now, answered_at, min_rtt, .. } = self.ack;
        self.rack.on_delivered(now, entry, answered_at, min_rtt);
        self.rate.on_delivered(now, entry, len);
        let sent_once = entry.transmissions == 1;
        self.ack.original_delivered |= sent_once && entry.order <= self.timeout_order;
        self.ack.new_delivered |= sent_once && entry.order > self.timeout_order;
    }

    /// The ACK says that `range` came twice (RFC 2883).
    pub fn on_dsack(&mut self, range: Range<u64>, mss: usize) {
        self.counts.dsacks += 1;
        // More than we have sent twice: the network makes copies, or the peer stories.
        let segments = (range.end - range.start).div_ceil(mss.max(1) as u64);
        if self.counts.dsacked_segments + segments <= self.counts.retransmitted {
            self.counts.dsacked_segments += segments;
            self.ack.dsack = Some(range);
        }
    }

    /// It is a duplicate ACK as RFC 5681 §2 defines it, without SACK blocks.
    pub fn on_duplicate_ack(&mut self, queue: &SendQueue, mss: usize, sack: bool) {
        self.ack.duplicate = true;
        if !sack {
            self.ack.delivered += self.newreno.on_duplicate_ack(queue.sent_entries(), mss);
        }
    }

    /// The ACK has told all: what follows from it? Returns why the congestion window changed, if it did.
    pub fn end_ack(
        &mut self,
        context: &Context,
        queue: &mut SendQueue,
        congestion: &mut dyn CongestionControl,
    ) -> Option<WindowReason> {
        self.counts.delivered += self.ack.delivered as u64;
        self.rack.on_ack(context.now);
        self.ack.sample = self.rate.on_ack(context.now, context.min_rtt);
        self.rack.on_dsack_round(self.ack.dsack.is_some(), context.una, context.nxt);
        self.tlp.cancel();
        // Once in a window, so that a peer that does it all the time does not make us look through it with each ACK. The next
        // time within one the timer tells.
        let reneged = if context.una >= self.reneged { self.check_reneging(context, queue) } else { 0 };
        let mut reason = self.check_spurious(context, queue, congestion);
        if reason.is_none() {
            reason = self.check_recovered(context);
        }
        if self.probe_repaired(context) {
            // RFC 8985 §7.4.2: a loss, even though nothing is missing any more.
            congestion.on_congestion(context.now, Signal::Loss, self.ack.flight);
            self.reduced_order = self.order.transmissions();
            self.undo.disarm();
            reason = Some(WindowReason::Loss);
        }
        let mut found = self.detect_losses(context, queue);
        found.segments += reneged;
        if self.enter_recovery(found, context, queue, congestion) {
            reason = Some(WindowReason::Loss);
        }
        if matches!(self.phase, Phase::FastRecovery | Phase::Cwr) {
            let delivery = Delivery {
                delivered: self.ack.delivered,
                safe: self.ack.advanced && found.segments == 0,
                in_flight: self.pipe(queue, context.mss),
                mss: context.mss,
            };
            self.prr.on_ack(delivery, congestion);
        }
        self.at_rest = !queue.has_outstanding() && self.phase == Phase::Open && !self.tlp.is_outstanding();
        reason
    }

    /// What the peer sacked must not be missing when it comes to be the next: then the peer has thrown it away, as it
    /// may (RFC 2018 §8).
    fn check_reneging(&mut self, context: &Context, queue: &mut SendQueue) -> usize {
        if queue.get(0).is_none_or(|entry| entry.mark != Mark::Sacked) {
            return 0;
        }
        self.reneged = context.nxt;
        let reneged = queue.sacked_entries();
        self.scoreboard.renege(queue);
        reneged
    }

    /// Was what we are recovering from no loss at all?
    fn check_spurious(
        &mut self,
        context: &Context,
        queue: &mut SendQueue,
        congestion: &mut dyn CongestionControl,
    ) -> Option<WindowReason> {
        let evidence = Evidence {
            una: context.una,
            advanced: self.ack.advanced,
            duplicate: self.ack.duplicate || self.ack.delivered > 0,
            sack: context.sack,
            covers_all: context.una >= self.point,
            original_delivered: self.ack.original_delivered,
            new_delivered: self.ack.new_delivered,
            has_new_data: context.has_new_data,
        };
        let by_frto = self.phase == Phase::Loss && self.frto.on_ack(evidence);
        let by_eifel = self.ack.advanced && self.undo.on_advance(context.una, self.ack.answered_at);
        let by_dsack = self.ack.dsack.clone().is_some_and(|range| {
            let segments = (range.end - range.start).div_ceil(context.mss.max(1) as u64);
            self.undo.on_dsack(range.end, segments as usize)
        });
        if !(by_frto || by_eifel || by_dsack) {
            return None;
        }
        // RFC 4015 §3.3 and §3.4, RFC 5682 §4: what is outstanding is not sent again, and the window is as before.
        if self.phase == Phase::FastRecovery || by_dsack {
            self.rack.on_spurious_recovery();
        }
        self.undo.done();
        self.leave_recovery();
        let records = self.scoreboard.reinstate(queue);
        self.order.reinstate(records);
        congestion.on_spurious(context.now);
        Some(WindowReason::Undo)
    }

    /// All that was outstanding when the recovery began is acknowledged.
    fn check_recovered(&mut self, context: &Context) -> Option<WindowReason> {
        if self.phase == Phase::Open || context.una < self.point {
            return None;
        }
        let reduced = self.phase != Phase::Loss;
        if self.phase != Phase::Cwr {
            self.rack.on_recovered();
        }
        self.leave_recovery();
        // RFC 9937 §6.4: the algorithm has set its window to ssthresh when it set that.
        reduced.then_some(WindowReason::RecoveryDone)
    }

    fn leave_recovery(&mut self) {
        self.phase = Phase::Open;
        self.must_retransmit = false;
        self.frto.give_up();
        self.newreno.forget();
    }

    fn probe_repaired(&mut self, context: &Context) -> bool {
        self.tlp.on_ack(ProbeAck {
            una: context.una,
            dsack_end: self.ack.dsack.as_ref().map(|range| range.end),
            bare_duplicate: self.ack.duplicate && !self.ack.has_sack,
        }) && self.phase == Phase::Open
    }

    /// Marks what must be lost; returns what was not known to be.
    fn detect_losses(&mut self, context: &Context, queue: &mut SendQueue) -> Losses {
        if context.sack {
            self.detect_by_rack(context, queue)
        } else {
            self.detect_by_duplicates(context, queue)
        }
    }

    fn detect_by_rack(&mut self, context: &Context, queue: &mut SendQueue) -> Losses {
        let recovering = matches!(self.phase, Phase::FastRecovery | Phase::Loss);
        let round_trip = RoundTrip { min: context.min_rtt, smoothed: context.srtt };
        self.rack.update_reo_wnd(recovering, queue.sacked_entries(), round_trip);
        let Self { rack, order, scoreboard, .. } = self;
        let (found, next) = rack.detect_losses(context.now, queue, order, scoreboard);
        self.reorder_at = next;
        found
    }

    fn detect_by_duplicates(&mut self, context: &Context, queue: &mut SendQueue) -> Losses {
        let mut found = Losses::default();
        let first = queue.get(0).map(|entry| (entry.mark, entry.transmissions, entry.order));
        let lost = match self.phase {
            // A partial ACK: the segment after it is lost, too (RFC 6582 §3.2, step 3).
            Phase::FastRecovery if self.ack.advanced => {
                self.must_retransmit = true;
                first.is_some_and(|(_, transmissions, _)| transmissions == 1)
            }
            // RFC 6582 §3.2, step 1: duplicates of the data that was just repaired are no news.
            Phase::Open | Phase::Cwr if self.newreno.tells_loss() => {
                context.una > self.point || self.point == 0
            }
            _ => false,
        };
        if let Some((Mark::InFlight, _, order)) = first.filter(|_| lost) {
            self.scoreboard.mark_lost(queue, 0);
            found.add(order);
        }
        found
    }

    /// When to call [`on_reorder_timeout`](Self::on_reorder_timeout), if ever.
    pub fn reorder_at(&self) -> Option<Instant> {
        self.reorder_at
    }

    /// What was overtaken had its time (RFC 8985 §6.2, step 5). Returns why the congestion window changed, if it did.
    pub fn on_reorder_timeout(
        &mut self,
        context: &Context,
        queue: &mut SendQueue,
        congestion: &mut dyn CongestionControl,
    ) -> Option<WindowReason> {
        let flight = queue.outstanding() - queue.sacked();
        self.ack = Progress { now: context.now, flight, ..Progress::default() };
        let found = self.detect_losses(context, queue);
        let reduced = self.enter_recovery(found, context, queue, congestion);
        reduced.then_some(WindowReason::Loss)
    }

    /// The retransmission timer expired (RFC 6298 §5.4, RFC 5681 §3.1). With SACK, what was sent a round trip ago counts
    /// as lost (RFC 8985 §6.3); without, all that is outstanding. What the peer sacked stays so (RFC 6675 §5.1): RFC
    /// 2018 §8 fears that it has thrown it away, and should it have, that will show when it comes to be the next.
    pub fn on_timeout(
        &mut self,
        context: &Context,
        queue: &mut SendQueue,
        congestion: &mut dyn CongestionControl,
    ) -> WindowReason {
        let again = self.phase == Phase::Loss && queue.get(0).is_some_and(|entry| entry.transmissions > 1);
        if again {
            congestion.restart_from_one_segment();
        } else {
            congestion.on_congestion(context.now, Signal::Timeout, queue.outstanding());
            self.undo.arm(context.una);
        }
        self.check_reneging(context, queue);
        if context.sack {
            let Self { rack, order, scoreboard, .. } = self;
            rack.mark_on_timeout(context.now, context.srtt, queue, order, scoreboard);
        } else {
            (0..queue.sent_entries()).for_each(|index| self.scoreboard.mark_lost(queue, index));
        }
        self.frto.on_timeout(matches!(self.phase, Phase::FastRecovery | Phase::Loss));
        self.timeout_order = self.order.transmissions();
        self.reduced_order = self.timeout_order;
        self.phase = Phase::Loss;
        self.point = context.nxt;
        self.must_retransmit = true;
        self.newreno.forget();
        self.tlp.forget();
        self.reorder_at = None;
        WindowReason::Timeout
    }

    /// The path carries smaller segments only: those that are larger were lost, and congestion is not why.
    pub fn on_smaller_mss(&mut self, queue: &mut SendQueue, mss: usize) {
        for index in 0..queue.sent_entries() {
            if queue.get(index).is_some_and(|entry| entry.len > mss && entry.mark == Mark::InFlight) {
                self.scoreboard.mark_lost(queue, index);
            }
        }
        self.must_retransmit = true;
    }

    /// The window has opened for the first entry, which was last sent when the peer could not take it.
    pub fn on_window_opened(&mut self, queue: &mut SendQueue) {
        if queue.get(0).is_some_and(|first| first.mark == Mark::InFlight) {
            self.scoreboard.mark_lost(queue, 0);
            self.must_retransmit = true;
        }
    }

    /// The entry to send again next, and whether it goes whatever the window says.
    pub fn next_retransmission(&mut self, queue: &SendQueue) -> Option<(usize, bool)> {
        if self.frto.holds_retransmissions() {
            return None;
        }
        let index = self.scoreboard.first_lost(queue)?;
        Some((index, self.must_retransmit))
    }

    /// Why that entry is sent again.
    pub fn retransmit_reason(&self) -> RetransmitReason {
        match self.phase {
            Phase::Loss => RetransmitReason::Timeout,
            Phase::FastRecovery => RetransmitReason::Lost,
            Phase::Open | Phase::Cwr => RetransmitReason::SmallerMtu,
        }
    }

    /// How many bytes may be sent before the next ACK, where that and not the congestion window decides: while the window
    /// shrinks (RFC 9937).
    pub fn allowance(&self) -> Option<usize> {
        matches!(self.phase, Phase::FastRecovery | Phase::Cwr).then(|| self.prr.allowance())
    }

    /// A lost entry was cut in two; `tail` is the index of the second part.
    pub fn on_split(&mut self, queue: &SendQueue, tail: usize) {
        self.scoreboard.on_split(queue, tail);
    }

    /// New data is to be sent now, whatever the congestion window says: as a tail loss probe (RFC 8985 §7.3) or for
    /// F-RTO (RFC 5682 §2.1, step 2b).
    pub fn wants_new_data(&self) -> bool {
        self.tlp.is_due() || self.frto.wants_new_data()
    }

    /// When a tail loss probe is due if nothing is heard until then, counted from now; `None` if none will be
    /// (RFC 8985 §7.2).
    pub fn pto(&self, queue: &SendQueue, srtt: Option<Duration>, sack: bool) -> Option<Duration> {
        let recovers = matches!(self.phase, Phase::FastRecovery | Phase::Loss) || queue.lost() > 0;
        let quiet = !recovers && queue.has_outstanding() && queue.sacked_entries() == 0;
        (sack && quiet && !self.tlp.is_outstanding()).then(|| tlp::pto(srtt, queue.sent_entries()))
    }

    /// PTO expired.
    pub fn on_probe_timeout(&mut self) {
        self.tlp.on_timer();
    }

    /// Whether a tail loss probe is to be sent.
    pub fn probe_is_due(&self) -> bool {
        self.tlp.is_due()
    }

    /// No probe can be sent.
    pub fn cancel_probe(&mut self) {
        self.tlp.cancel();
    }

    /// F-RTO was to send new data, and there is none that the peer's window takes.
    pub fn no_new_data(&mut self) {
        self.frto.no_new_data();
    }

    /// A segment of `len` sequence numbers that starts at `start` goes out; returns what its entry has to remember.
    pub fn on_transmit(
        &mut self,
        now: Instant,
        queue: &SendQueue,
        start: u64,
        len: usize,
        again: bool,
    ) -> Transmission {
        let probe = self.tlp.is_due();
        self.at_rest = false;
        if again {
            self.must_retransmit = false;
            self.scoreboard.on_retransmit(start);
            self.undo.on_retransmit(now, start);
            self.frto.on_retransmit(start + len as u64);
            self.counts.retransmitted += 1;
        } else {
            self.frto.on_new_data();
        }
        if probe {
            // TLP.end_seq is SND.NXT, which a probe of new data moves.
            let end = start + len as u64;
            self.tlp.on_sent(end, again);
        }
        self.prr.on_sent(len);
        let stamp = self.rate.on_transmit(now, queue.in_flight(), len, self.scoreboard.losses.total());
        Transmission { order: self.order.on_transmit(queue, start), stamp }
    }

    /// `n` segments of new data, of `len` sequence numbers each, are sent behind one that just was; the first starts at `start`.
    /// As [`on_transmit`](Self::on_transmit) for each of them, while all is calm: that one has ended whatever was at rest, and no
    /// probe is due. Returns what there is to remember of the first.
    pub fn on_followers(
        &mut self,
        now: Instant,
        queue: &SendQueue,
        start: u64,
        len: usize,
        n: usize,
    ) -> Transmission {
        debug_assert!(self.phase == Phase::Open && !self.wants_new_data() && !self.at_rest);
        self.prr.on_sent(n * len);
        let stamp = self.rate.on_transmit(now, queue.in_flight(), len, self.scoreboard.losses.total());
        Transmission { order: self.order.on_followers(queue, start, len, n), stamp }
    }

    /// The application has no more to send, though the congestion window is not full.
    pub fn on_app_limited(&mut self, in_flight: usize) {
        self.rate.on_app_limited(in_flight);
    }

    /// Panics if what is remembered contradicts the queue.
    pub fn check_invariants(&self, queue: &SendQueue) {
        self.order.check_invariants(queue);
        self.scoreboard.check_invariants(queue);
    }
}
