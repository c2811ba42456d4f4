//! When the window is reduced: once for each window of data, whatever of it is lost (RFC 5681 §4.3).
//!
//! A reduction is an answer to all that was sent before it. What was sent after it and is lost tells of congestion that
//! goes on: new data, which belongs to another window, or the repair itself. For both RFC 5681 §4.3 wants another
//! reduction, and RFC 8985 §3.4 recalls that. A transmission's loss takes a round trip to be known, so there is never more than one in that time.

use super::{Context, Phase, Recovery, prr::Prr};
use crate::{
    tcp::{
        congestion::{CongestionControl, Signal},
        send_queue::SendQueue,
    },
    time::Instant,
};

/// What was found to be lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    pub(super) segments: usize,
    /// The number of the latest transmission among them.
    latest: u64,
}

impl Losses {
    /// A segment, by the number of its last transmission.
    pub(super) fn add(&mut self, order: u64) {
        self.segments += 1;
        self.latest = self.latest.max(order);
    }
}

impl Recovery {
    /// Segments were found to be lost. Returns whether the window was reduced for it.
    pub(super) fn enter_recovery(
        &mut self,
        found: Losses,
        context: &Context,
        queue: &SendQueue,
        congestion: &mut dyn CongestionControl,
    ) -> bool {
        let is_news = found.latest > self.reduced_order;
        let reduces = self.phase == Phase::Open || is_news;
        let goes_on = matches!(self.phase, Phase::FastRecovery | Phase::Loss) && !is_news;
        if found.segments == 0 || goes_on {
            return false;
        }
        self.phase = Phase::FastRecovery;
        self.point = context.nxt;
        self.must_retransmit = true;
        self.tlp.forget();
        self.frto.give_up();
        if reduces {
            // RFC 5681 §3.2, equation 4: FlightSize, whatever became of it.
            congestion.on_congestion(context.now, Signal::Loss, queue.outstanding());
            self.reduced_order = self.order.transmissions();
            self.prr = Prr::start(self.ack.flight);
            self.undo.arm(context.una);
        }
        reduces
    }

    /// The peer tells of congestion by ECN: the window shrinks, once per window of data (RFC 3168 §6.1.2). While it
    /// shrinks already, that is no news; nor is it from a peer that has not seen CWR, which goes with what follows the
    /// window that was reduced last. Returns whether it was reduced.
    pub fn on_ecn_echo(
        &mut self,
        now: Instant,
        (ack, nxt): (u64, u64),
        in_flight: usize,
        congestion: &mut dyn CongestionControl,
    ) -> bool {
        let knows_no_cwr = self.point > 0 && ack <= self.point;
        if self.phase != Phase::Open || knows_no_cwr {
            return false;
        }
        self.phase = Phase::Cwr;
        self.point = nxt;
        congestion.on_congestion(now, Signal::Ecn, in_flight);
        self.reduced_order = self.order.transmissions();
        self.undo.disarm();
        self.prr = Prr::start(in_flight);
        true
    }
}
