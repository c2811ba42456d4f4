//! Numbers of the wire that both sides of the kernel line read.

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;

/// Bytes of an IEEE 802.1Q tag.
pub const VLAN_TAG_LEN: usize = 4;

/// Bytes of an IPv4 header without options (RFC 791 §3.1).
pub const IPV4_LEN: usize = 20;

/// Bytes of an ICMP header (RFC 792).
pub const ICMP_LEN: usize = 8;

/// Numbers that say what an Ethernet frame carries (IEEE "EtherType").
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag follows (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
    /// A service provider's tag follows, and then another (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Numbers of the protocols above IP (IANA "Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMPV4: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}
