//! Explicit congestion notification (RFC 3168 §6.1): routers mark what they would have dropped, the receiver tells the
//! sender, and the sender slows down without having lost anything.
//!
//! As a receiver we echo a mark (ECE) on everything until the sender says that it has slowed down (CWR). As a sender we
//! slow down once per window of data, which is loss recovery's to decide, and say so on the next new data.

use crate::wire::{Ecn, tcp::Flags};

/// ECN of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EcnState {
    phase: Phase,
    /// A mark has come, and no CWR since: we send ECE.
    echo: bool,
    /// The congestion window was reduced, and the peer does not know yet.
    cwr_due: bool,
}

/// How far the negotiation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Not in use.
    #[default]
    Off,
    /// To be offered with the first SYN.
    Willing,
    /// Our SYN has offered it.
    Offered,
    /// Both sides agreed.
    On,
}

/// An ECN-setup SYN has both (RFC 3168 §6.1.1).
const SETUP: Flags = Flags::ECE.with(Flags::CWR);

impl EcnState {
    /// Before an active open.
    pub(super) fn new(enabled: bool) -> Self {
        Self { phase: if enabled { Phase::Willing } else { Phase::Off }, ..Self::default() }
    }

    /// After a passive open, in which the SYN cache has answered the offer or not.
    pub(super) fn agreed(agreed: bool) -> Self {
        Self { phase: if agreed { Phase::On } else { Phase::Off }, ..Self::default() }
    }

    /// Whether a SYN offers ECN (RFC 3168 §6.1.1). One with ECE alone does not.
    pub(super) fn is_offered_by(syn: Flags) -> bool {
        syn.contains(SETUP) && !syn.contains(Flags::ACK)
    }

    /// Whether both sides agreed.
    pub(super) fn is_on(&self) -> bool {
        self.phase == Phase::On
    }

    /// What our SYN says about it. The offer is made once: if there is no answer, a firewall may have taken offence
    /// (RFC 3168 §6.1.1.1), and who has sent one SYN without it must not use it (§6.1.1).
    pub(super) fn syn_flags(&mut self) -> Flags {
        match self.phase {
            Phase::Willing => {
                self.phase = Phase::Offered;
                SETUP
            }
            Phase::Off | Phase::Offered | Phase::On => {
                self.phase = Phase::Off;
                Flags::default()
            }
        }
    }

    /// What our SYN with ACK says about it (RFC 3168 §6.1.1): ECE alone.
    pub(super) fn syn_ack_flags(&self) -> Flags {
        if self.is_on() { Flags::ECE } else { Flags::default() }
    }

    /// The peer's SYN has come while ours was on its way. With ACK and ECE it agrees; with CWR, too, it is one that gives
    /// back what it got without knowing what that is (RFC 3168 §6.1.1). Without ACK both have opened at once: then we
    /// do without.
    pub(super) fn on_syn(&mut self, flags: Flags) {
        let agrees = flags.contains(Flags::ACK.with(Flags::ECE)) && !flags.contains(Flags::CWR);
        let agreed = self.phase == Phase::Offered && agrees;
        self.phase = if agreed { Phase::On } else { Phase::Off };
    }

    /// An acceptable segment with data has come (RFC 3168 §6.1.3). Returns whether its sender should hear of it at once.
    pub(super) fn on_data(&mut self, flags: Flags, ce: bool) -> bool {
        if !self.is_on() {
            return false;
        }
        if flags.contains(Flags::CWR) {
            self.echo = false;
        }
        // A mark on the segment with CWR is a new one.
        let news = ce && !self.echo;
        self.echo |= ce;
        news
    }

    /// Whether an ACK tells of congestion.
    pub(super) fn is_echo(&self, flags: Flags) -> bool {
        self.is_on() && flags.contains(Flags::ECE) && !flags.contains(Flags::SYN)
    }

    /// The congestion window was reduced, for whatever reason (RFC 3168 §6.1.2).
    pub(super) fn on_window_reduced(&mut self) {
        self.cwr_due = self.is_on();
    }

    /// What any segment that acknowledges says beside ACK.
    pub(super) fn ack_flags(&self) -> Flags {
        if self.echo { Flags::ECE } else { Flags::default() }
    }

    /// Whether the next segment has a flag to carry that those after it have not, or might not.
    pub(super) fn has_news(&self) -> bool {
        self.cwr_due
    }

    /// New data goes out: its codepoint and its flags. Nothing else may be marked: neither what is retransmitted, nor SYN,
    /// nor what has no data (RFC 3168 §6.1.1, §6.1.4 and §6.1.5).
    pub(super) fn on_new_data(&mut self) -> (Ecn, Flags) {
        if !self.is_on() {
            return (Ecn::NotEct, Flags::default());
        }
        let cwr = core::mem::take(&mut self.cwr_due);
        (Ecn::Ect0, if cwr { Flags::CWR } else { Flags::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered() -> EcnState {
        let mut ecn = EcnState::new(true);
        assert_eq!(ecn.syn_flags(), SETUP);
        ecn
    }

    #[test]
    fn only_ece_alone_on_syn_with_ack_agrees_rfc3168_6_1_1() {
        for (flags, agrees) in
            [(Flags::ECE, true), (SETUP, false), (Flags::CWR, false), (Flags::default(), false)]
        {
            let mut ecn = offered();
            ecn.on_syn(Flags::SYN.with(Flags::ACK).with(flags));
            assert_eq!(ecn.is_on(), agrees, "{flags:?}");
        }
    }

    #[test]
    fn the_second_syn_does_without_and_so_does_the_connection_rfc3168_6_1_1_1() {
        let mut ecn = offered();
        assert_eq!(ecn.syn_flags(), Flags::default());
        ecn.on_syn(Flags::SYN.with(Flags::ACK).with(Flags::ECE));
        assert!(!ecn.is_on(), "the late answer to the first");
    }

    #[test]
    fn who_is_not_willing_does_not_agree() {
        let mut ecn = EcnState::new(false);
        assert_eq!(ecn.syn_flags(), Flags::default());
        ecn.on_syn(Flags::SYN.with(Flags::ACK).with(Flags::ECE));
        assert!(!ecn.is_on() && !ecn.on_data(Flags::ACK, true));
        assert_eq!(ecn.on_new_data(), (Ecn::NotEct, Flags::default()));
    }

    #[test]
    fn a_mark_is_echoed_until_cwr_rfc3168_6_1_3() {
        let mut ecn = EcnState::agreed(true);
        assert!(ecn.on_data(Flags::ACK, true));
        assert!(!ecn.on_data(Flags::ACK, true), "known");
        assert!(!ecn.on_data(Flags::ACK, false));
        assert_eq!(ecn.ack_flags(), Flags::ECE);
        assert!(ecn.on_data(Flags::ACK.with(Flags::CWR), true), "a new mark");
        assert_eq!(ecn.ack_flags(), Flags::ECE);
        ecn.on_data(Flags::ACK.with(Flags::CWR), false);
        assert_eq!(ecn.ack_flags(), Flags::default());
    }

    #[test]
    fn cwr_goes_out_once_with_new_data_rfc3168_6_1_2() {
        let mut ecn = EcnState::agreed(true);
        assert_eq!(ecn.on_new_data(), (Ecn::Ect0, Flags::default()));
        ecn.on_window_reduced();
        assert_eq!(ecn.on_new_data(), (Ecn::Ect0, Flags::CWR));
        assert_eq!(ecn.on_new_data(), (Ecn::Ect0, Flags::default()));
    }
}
