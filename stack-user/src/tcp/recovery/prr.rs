//! Proportional rate reduction (RFC 9937): how much is sent while the window shrinks.
//!
//! A congestion control algorithm says where the window should be: ssthresh. Until a round trip has passed, what is in
//! flight is more than that. Rather than falling silent until it is not, we send in proportion to what is delivered.

use super::super::congestion::CongestionControl;

/// The state of RFC 9937 §6, in bytes. It serves fast recovery with and without SACK, and ECN (RFC 9937 §4, §5); after a
/// time-out there is slow start instead.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prr {
    /// Delivered since the reduction began.
    delivered: u64,
    /// Sent since then.
    out: u64,
    /// RecoverFS: in flight when it began.
    recover_fs: u64,
    /// sndcnt: what may be sent before the next ACK.
    allowance: usize,
}

/// What an ACK means to the reduction, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    /// DeliveredData: newly acknowledged or sacked.
    pub(super) delivered: usize,
    /// SafeACK: SND.UNA moved, and nothing more was found to be lost.
    pub(super) safe: bool,
    /// In flight after it.
    pub(super) in_flight: usize,
    /// The segment size.
    pub(super) mss: usize,
}

impl Prr {
    /// A reduction begins (RFC 9937 §6.1). `recover_fs` is what was in flight before the ACK that started it.
    pub(super) fn start(recover_fs: usize) -> Self {
        Self { recover_fs: recover_fs.max(1) as u64, ..Self::default() }
    }

    /// What may be sent before the next ACK.
    pub(super) fn allowance(&self) -> usize {
        self.allowance
    }

    /// RFC 9937 §6.2.
    pub(super) fn on_ack(&mut self, delivery: Delivery, congestion: &dyn CongestionControl) {
        let Delivery { delivered, safe, in_flight, mss } = delivery;
        if delivered == 0 {
            return;
        }
        self.delivered += delivered as u64;
        let ssthresh = congestion.ssthresh();
        let mut allowance = if in_flight > ssthresh {
            // The proportional part.
            let share = u128::from(self.delivered) * ssthresh as u128;
            let target = u64::try_from(share.div_ceil(u128::from(self.recover_fs))).unwrap_or(u64::MAX);
            target.saturating_sub(self.out)
        } else {
            // Packet conservation (PRR-CRB); when the repair goes well, slow start (PRR-SSRB).
            let conserve = self.delivered.saturating_sub(self.out).max(delivered as u64);
            let catch_up = conserve + if safe { mss as u64 } else { 0 };
            catch_up.min((ssthresh - in_flight) as u64)
        };
        if self.out == 0 && allowance == 0 {
            // The first retransmission goes at once.
            allowance = mss as u64;
        }
        self.allowance = usize::try_from(allowance).unwrap_or(usize::MAX);
    }

    /// RFC 9937 §6.3.
    pub(super) fn on_sent(&mut self, len: usize) {
        self.out += len as u64;
        self.allowance = self.allowance.saturating_sub(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        tcp::congestion::{Algorithm, Signal, testing},
        time::Instant,
    };

    const MSS: usize = 1000;

    /// A controller whose ssthresh is 10 segments.
    fn congestion() -> Box<dyn CongestionControl> {
        let mut congestion = Algorithm::NewReno.build(MSS);
        (0..10).for_each(|_| congestion.on_ack(&testing::ack(MSS)));
        congestion.on_congestion(Instant::ZERO, Signal::Loss, 20 * MSS);
        assert_eq!(congestion.ssthresh(), 10 * MSS);
        congestion
    }

    fn ack(in_flight: usize, safe: bool) -> Delivery {
        Delivery { delivered: MSS, safe, in_flight, mss: MSS }
    }

    /// RFC 9937 §6.1: nothing counts of what was before; §6.3: each transmission does.
    #[test]
    fn above_ssthresh_it_sends_in_proportion_rfc9937_6_2() {
        let (congestion, mut prr) = (congestion(), Prr::start(20 * MSS));
        let mut sent = 0;
        for delivered in 1..=20 {
            prr.on_ack(ack(11 * MSS, false), congestion.as_ref());
            while prr.allowance() >= MSS {
                prr.on_sent(MSS);
                sent += 1;
            }
            assert_eq!(sent, delivered / 2, "half of what is delivered");
        }
    }

    #[test]
    fn below_ssthresh_it_conserves_and_grows_when_that_is_safe_rfc9937_6_2() {
        let (congestion, mut prr) = (congestion(), Prr::start(20 * MSS));
        prr.on_ack(ack(5 * MSS, false), congestion.as_ref());
        assert_eq!(prr.allowance(), MSS, "CRB: as much as arrived");
        prr.on_sent(MSS);
        prr.on_ack(ack(5 * MSS, true), congestion.as_ref());
        assert_eq!(prr.allowance(), 2 * MSS, "SSRB: a segment more");
        prr.on_ack(ack(9 * MSS + 700, true), congestion.as_ref());
        assert_eq!(prr.allowance(), 300, "never above ssthresh");
    }

    #[test]
    fn what_delivers_nothing_changes_nothing_rfc9937_6_2() {
        let (congestion, mut prr) = (congestion(), Prr::start(20 * MSS));
        prr.on_ack(Delivery { delivered: 0, ..ack(5 * MSS, true) }, congestion.as_ref());
        assert_eq!(prr.allowance(), 0);
    }

    #[test]
    fn the_first_retransmission_is_not_held_back_rfc9937_6_2() {
        let (congestion, mut prr) = (congestion(), Prr::start(20 * MSS));
        prr.on_ack(ack(10 * MSS, false), congestion.as_ref());
        assert_eq!(prr.allowance(), MSS);
        prr.on_sent(MSS);
        assert_eq!(prr.allowance(), 0);
    }
}
