//! Tail loss probes (RFC 8985 §7): when the end of a flight is lost, nothing comes back that could tell. A probe gets an
//! ACK to come, from which RACK learns (§7.4.1), long before the retransmission timer would expire.

use crate::time::Duration;

/// PTO before the first sample (RFC 8985 §7.2).
const PTO_WITHOUT_SRTT: Duration = Duration::from_secs(1);

/// TLP.max_ack_delay: how long a peer may keep back the ACK of a segment that comes alone. RFC 9293 allows 500 ms;
/// today's hosts take 40 to 200 ms. Lower, and probes to slow ones are for nothing; RTO bounds what it costs.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);

/// The shortest PTO. On a LAN, 2 SRTT is less than what a busy host needs to answer, or we to look.
const MIN_PTO: Duration = Duration::from_millis(10);

/// The state of RFC 8985 §7.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tlp {
    /// TLP.end_seq: SND.NXT after the probe whose ACK we wait for.
    end: Option<u64>,
    /// TLP.is_retrans: the probe was a copy.
    is_retrans: bool,
    /// The timer expired, and the probe was not sent yet.
    due: bool,
    /// Probes sent.
    count: u64,
}

/// What an ACK says about a probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeAck {
    /// SND.UNA after it.
    pub(super) una: u64,
    /// The end of the range that it says came twice.
    pub(super) dsack_end: Option<u64>,
    /// A duplicate ACK without SACK blocks.
    pub(super) bare_duplicate: bool,
}

/// TLP_calc_PTO (RFC 8985 §7.2), before the bound that RTO is.
pub(super) fn pto(srtt: Option<Duration>, segments_in_flight: usize) -> Duration {
    let Some(srtt) = srtt else { return PTO_WITHOUT_SRTT };
    let pto = (srtt * 2).max(MIN_PTO);
    if segments_in_flight == 1 { pto + MAX_ACK_DELAY } else { pto }
}

impl Tlp {
    /// Whether a probe waits for its ACK: then there is no second one (RFC 8985 §7.3 (1)).
    pub(super) fn is_outstanding(&self) -> bool {
        self.end.is_some()
    }

    /// PTO expired.
    pub(super) fn on_timer(&mut self) {
        self.due = true;
    }

    /// Whether a probe is to be sent.
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// No probe is to be sent any more: an ACK came, or RTO expired.
    pub(super) fn cancel(&mut self) {
        self.due = false;
    }

    /// RTO expired, or a recovery began: the probe has nothing more to tell (RFC 8985 §7.1).
    pub(super) fn forget(&mut self) {
        (self.due, self.end) = (false, None);
    }

    /// The probe goes out (RFC 8985 §7.3); SND.NXT is `nxt` then.
    pub(super) fn on_sent(&mut self, nxt: u64, is_retrans: bool) {
        (self.due, self.end, self.is_retrans) = (false, Some(nxt), is_retrans);
        self.count += 1;
    }

    /// Probes sent.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// TLP_process_ack (RFC 8985 §7.4.2). Returns whether the probe has repaired a loss that nobody else has noticed:
    /// the congestion window has to know.
    pub(super) fn on_ack(&mut self, ack: ProbeAck) -> bool {
        let Some(end) = self.end.filter(|&end| ack.una >= end) else { return false };
        // FIN, if the last segment had it, may be missing in the range.
        let both_arrived = ack.dsack_end.is_some_and(|dsack| dsack + 1 >= end);
        if !self.is_retrans || both_arrived || ack.bare_duplicate {
            self.end = None;
            return false;
        }
        let repaired = ack.una > end;
        if repaired {
            self.end = None;
        }
        repaired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: ProbeAck = ProbeAck { una: 2000, dsack_end: None, bare_duplicate: false };

    fn probe(is_retrans: bool) -> Tlp {
        let mut tlp = Tlp::default();
        tlp.on_timer();
        tlp.on_sent(2000, is_retrans);
        assert!(!tlp.is_due() && tlp.is_outstanding());
        tlp
    }

    #[test]
    fn pto_is_two_round_trips_and_the_delay_of_a_lonely_ack_rfc8985_7_2() {
        let ms = Duration::from_millis;
        assert_eq!(pto(None, 5), ms(1000));
        assert_eq!(pto(Some(ms(50)), 5), ms(100));
        assert_eq!(pto(Some(ms(50)), 1), ms(300));
        assert_eq!(pto(Some(Duration::from_micros(50)), 2), MIN_PTO);
    }

    #[test]
    fn a_copy_that_alone_arrived_has_repaired_a_loss_rfc8985_7_4_2() {
        let mut tlp = probe(true);
        assert!(!tlp.on_ack(ProbeAck { una: 1000, ..ACK }) && tlp.is_outstanding());
        assert!(!tlp.on_ack(ACK) && tlp.is_outstanding(), "a DSACK may follow");
        assert!(tlp.on_ack(ProbeAck { una: 2001, ..ACK }));
        assert!(!tlp.is_outstanding());
        assert!(!tlp.on_ack(ProbeAck { una: 3000, ..ACK }), "once");
    }

    #[test]
    fn a_copy_of_what_had_arrived_has_repaired_nothing_rfc8985_7_4_2() {
        for ack in [ProbeAck { dsack_end: Some(2000), ..ACK }, ProbeAck { bare_duplicate: true, ..ACK }] {
            let mut tlp = probe(true);
            assert!(!tlp.on_ack(ack) && !tlp.is_outstanding());
        }
        let mut tlp = probe(false);
        assert!(
            !tlp.on_ack(ProbeAck { una: 3000, ..ACK }) && !tlp.is_outstanding(),
            "new data repairs nothing"
        );
    }
}
