//! The two bits of the IP header by which routers tell of congestion (RFC 3168 §5).

/// The bits of the traffic class that are ours.
pub(super) const MASK: u8 = 0b11;

/// A codepoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Not-ECT: a router that has too much drops it.
    #[default]
    NotEct,
    /// ECT(1): as ECT(0) to routers of RFC 3168; another kind of marking in RFC 9331.
    Ect1,
    /// ECT(0): a router that has too much may mark it in place of dropping another.
    Ect0,
    /// CE: a router had too much.
    Ce,
}

impl Ecn {
    /// The codepoint of a traffic class (type of service).
    pub const fn of(traffic_class: u8) -> Self {
        match traffic_class & MASK {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// Its bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::IpFields;

    #[test]
    fn codepoints_beside_the_dscp_rfc3168_5() {
        for ecn in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
            let fields = IpFields::new(64, 0x2e).with_ecn(ecn);
            assert_eq!((Ecn::of(fields.traffic_class), fields.traffic_class >> 2), (ecn, 0x2e));
        }
        assert_eq!(IpFields::new(64, 0x2e).with_ecn(Ecn::Ect0).traffic_class, 0xba);
    }
}
