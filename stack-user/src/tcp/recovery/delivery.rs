//! What the algorithms are told that have a model of the path: how fast it delivers, and what it loses.

use super::{Context, Phase, Recovery};
use crate::tcp::{
    congestion::{Delivered, Lost},
    delivery_rate::Stamp,
    send_queue::{Entry, SendQueue},
};

/// Losses, as they are found.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// C.lost of draft-ietf-ccwg-bbr §2.2: sequence numbers that were marked as lost since the connection was opened.
    total: u64,
    /// Those that were not told yet, and the transmission that was the last of them.
    fresh: usize,
    latest: Option<(u64, Stamp)>,
}

impl Losses {
    /// A segment is lost that was not.
    pub(super) fn on_lost(&mut self, entry: &Entry) {
        self.total += entry.sequence_len() as u64;
        self.fresh += entry.sequence_len();
        if self.latest.is_none_or(|(order, _)| order < entry.order) {
            self.latest = Some((entry.order, entry.stamp));
        }
    }

    /// Whether all that was found to be lost has been told.
    pub(super) fn are_told(&self) -> bool {
        self.latest.is_none()
    }

    /// Sequence numbers that were lost so far.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// What was lost since this was last asked.
    fn take(&mut self) -> Option<Lost> {
        let (_, stamp) = self.latest.take()?;
        Some(Lost {
            bytes: core::mem::take(&mut self.fresh),
            in_flight: stamp.in_flight as usize,
            since_sent: (self.total as u32).wrapping_sub(stamp.lost) as usize,
            app_limited: stamp.app_limited,
        })
    }
}

impl Recovery {
    /// What the ACK that was judged last says of the path, if it says anything. What a timer has found to be lost since
    /// the ACK before it belongs to it.
    pub fn take_delivered(&mut self, context: &Context, queue: &SendQueue) -> Option<Delivered> {
        let lost = self.scoreboard.losses.take();
        if self.ack.delivered == 0 && lost.is_none() {
            return None;
        }
        Some(Delivered {
            now: context.now,
            bytes: self.ack.delivered,
            total: self.rate.delivered(),
            in_flight: self.pipe(queue, context.mss),
            sample: self.ack.sample,
            lost_since_sent: self.ack.sample.map_or(0, |sample| {
                (self.scoreboard.losses.total() as u32).wrapping_sub(sample.prior_lost) as usize
            }),
            rtt: self.rate.rtt(),
            lost,
            cwnd_limited: context.cwnd_limited,
            recovering: matches!(self.phase, Phase::FastRecovery | Phase::Loss),
            sack: context.sack,
        })
    }
}
