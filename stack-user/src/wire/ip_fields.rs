//! The fields of an IP header that a flow chooses, in either family.

/// The lower two bits of the traffic class are congestion notification's (RFC 3168 §5), the upper six Differentiated
/// Services' (RFC 2474 §3).
const DSCP_SHIFT: u8 = 2;

/// What a flow chooses of the header of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpFields {
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Type of service, or traffic class: DSCP above, ECN below.
    pub traffic_class: u8,
}

impl IpFields {
    /// Time to live as RFC 1122 §3.2.1.7 wants it, in IANA's current recommendation.
    pub const DEFAULT_HOP_LIMIT: u8 = super::ipv4::DEFAULT_TTL;

    /// The largest Differentiated Services Codepoint: it has six bits.
    pub const MAX_DSCP: u8 = 0x3f;

    /// With a Differentiated Services Codepoint, of which the lower six bits count, and not capable of ECN.
    pub const fn new(hop_limit: u8, dscp: u8) -> Self {
        Self { hop_limit, traffic_class: dscp << DSCP_SHIFT }
    }

    /// The same with that codepoint of congestion notification.
    #[must_use]
    pub const fn with_ecn(self, ecn: super::Ecn) -> Self {
        let dscp = self.traffic_class & !super::ecn::MASK;
        Self { traffic_class: dscp | ecn.bits(), ..self }
    }
}

impl Default for IpFields {
    fn default() -> Self {
        Self::new(Self::DEFAULT_HOP_LIMIT, 0)
    }
}
