//! F-RTO (RFC 5682): was a time-out real, or were the ACKs only late? After the first retransmission, new data is sent in
//! place of more of them: if the next ACK is about something that was not sent again, nothing had been lost.

/// Segments of new data that ask the question (RFC 5682 §2.1, step 2b).
const PROBES: u32 = 2;

/// How far the question has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Frto {
    /// It is not asked, or is answered.
    #[default]
    Off,
    /// Step 1: the first segment is sent again, nothing else. It ends at that stream offset, once it is.
    Retransmitted(Option<u64>),
    /// Step 2b: new data goes out, that many segments more; the next ACK decides.
    Probing(u32),
}

/// What an ACK after the time-out says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// SND.UNA, as a stream offset.
    pub(super) una: u64,
    /// SND.UNA moved.
    pub(super) advanced: bool,
    /// It is a duplicate ACK (RFC 5681 §2), or sacks something. If it neither is nor advances, it is data of the peer's, an
    /// old ACK or a window update, and answers nothing.
    pub(super) duplicate: bool,
    /// The peer speaks SACK.
    pub(super) sack: bool,
    /// All that was outstanding at the time-out is acknowledged.
    pub(super) covers_all: bool,
    /// A segment from before the time-out that was not sent again since is acknowledged or sacked for the first time.
    pub(super) original_delivered: bool,
    /// Something that was first sent after the time-out is acknowledged or sacked for the first time.
    pub(super) new_delivered: bool,
    /// There is data to send that was never sent, and the peer's window takes it.
    pub(super) has_new_data: bool,
}

impl Frto {
    /// The timer expired; `again` if a recovery was going on. Then the question was answered, or an answer would be about
    /// what has been sent again meanwhile (RFC 5682 §3.1); unless not one ACK has come since an earlier time-out, and it is
    /// the same segment once more (RFC 5682 §2.1, step 1, and §2.2).
    pub(super) fn on_timeout(&mut self, again: bool) {
        let same_segment = matches!(self, Self::Retransmitted(_));
        *self = if again && !same_segment { Self::Off } else { Self::Retransmitted(None) };
    }

    /// A segment goes out again; it ends at `end`.
    pub(super) fn on_retransmit(&mut self, end: u64) {
        if let Self::Retransmitted(first @ None) = self {
            *first = Some(end);
        }
    }

    /// Whether nothing but new data may be sent now.
    pub(super) fn holds_retransmissions(self) -> bool {
        matches!(self, Self::Probing(_))
    }

    /// Whether a segment of new data goes out now, whatever the congestion window says.
    pub(super) fn wants_new_data(self) -> bool {
        matches!(self, Self::Probing(n) if n > 0)
    }

    /// New data goes out.
    pub(super) fn on_new_data(&mut self) {
        if let Self::Probing(n) = self {
            *n = n.saturating_sub(1);
        }
    }

    /// There is no more data to send now. What went out asks the question; if nothing did, the usual recovery goes on
    /// (RFC 5682 §2.1, step 2b).
    pub(super) fn no_new_data(&mut self) {
        match self {
            Self::Probing(n) if *n < PROBES => *n = 0,
            _ => *self = Self::Off,
        }
    }

    /// The question has lost its sense: the recovery is over.
    pub(super) fn give_up(&mut self) {
        *self = Self::Off;
    }

    /// An ACK came. Returns whether the time-out was spurious.
    pub(super) fn on_ack(&mut self, evidence: Evidence) -> bool {
        if !evidence.advanced && !evidence.duplicate {
            return false;
        }
        match *self {
            Self::Off => false,
            // RFC 5682 §3.1, step 2: SACKs are noted, and the ACK of what was sent again is waited for.
            Self::Retransmitted(_) if evidence.sack && !evidence.advanced => false,
            // RFC 5682 §2.1, step 2, and §3.1, step 2. An ACK of a part of what was sent again is no answer to it.
            Self::Retransmitted(end) => {
                let of_all_of_it = end.is_some_and(|end| evidence.una >= end);
                let ask = evidence.advanced && of_all_of_it && !evidence.covers_all && evidence.has_new_data;
                *self = if ask { Self::Probing(PROBES) } else { Self::Off };
                false
            }
            // RFC 5682 §2.1, step 3, and §3.1, step 3: with what was sent since, it may tell of the repair.
            Self::Probing(_) => {
                *self = Self::Off;
                evidence.original_delivered && !evidence.new_delivered
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: Evidence = Evidence {
        una: 2000,
        advanced: true,
        duplicate: false,
        sack: false,
        covers_all: false,
        original_delivered: true,
        new_delivered: false,
        has_new_data: true,
    };

    /// The first segment, [1000, 2000), was sent again.
    fn retransmitted() -> Frto {
        let mut frto = Frto::default();
        frto.on_timeout(false);
        frto.on_retransmit(2000);
        frto
    }

    fn asked() -> Frto {
        let mut frto = retransmitted();
        assert!(!frto.on_ack(ACK), "one ACK decides nothing");
        frto
    }

    #[test]
    fn two_new_segments_go_out_and_nothing_else_rfc5682_2_1() {
        let mut frto = asked();
        assert!(frto.wants_new_data() && frto.holds_retransmissions());
        frto.on_new_data();
        frto.on_new_data();
        assert!(!frto.wants_new_data() && frto.holds_retransmissions());
        assert!(frto.on_ack(ACK));
        assert!(!frto.holds_retransmissions());
    }

    #[test]
    fn nothing_is_asked_where_nothing_can_be_learned_rfc5682_2_1() {
        for ack in [
            Evidence { advanced: false, duplicate: true, ..ACK },
            Evidence { covers_all: true, ..ACK },
            Evidence { una: 1999, ..ACK },
            Evidence { has_new_data: false, ..ACK },
        ] {
            let mut frto = retransmitted();
            assert!(!frto.on_ack(ack) && frto == Frto::Off, "{ack:?}");
        }
    }

    #[test]
    fn only_the_same_segment_again_asks_again_rfc5682_2_1() {
        let mut frto = retransmitted();
        frto.on_timeout(true);
        frto.on_retransmit(2000);
        assert!(!frto.on_ack(ACK) && frto.wants_new_data(), "no ACK has come between the two");
        frto.on_timeout(true);
        assert_eq!(frto, Frto::Off, "one has");
        frto.on_timeout(true);
        assert_eq!(frto, Frto::Off);
    }

    #[test]
    fn an_ack_of_the_new_data_only_means_a_loss_rfc5682_3_1() {
        let mut frto = asked();
        assert!(!frto.on_ack(Evidence { original_delivered: false, ..ACK }));
        assert_eq!(frto, Frto::Off);
        let mut frto = asked();
        assert!(!frto.on_ack(Evidence { new_delivered: true, ..ACK }), "RFC 5682 §3.1, step 3");
    }
}
