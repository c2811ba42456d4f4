//! Where a datagram goes first: to its destination, if that is on our link, else to the gateway.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

use crate::wire::MacAddr;

/// The addresses that share their first bits: 192.0.2.0/24.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

/// Our address on a link, what else is on that link, and who forwards what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    address: IpAddr,
    prefix: Prefix,
    gateway: Option<IpAddr>,
    mtu: u16,
}

/// Who gets a frame so that its datagram arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// A host or router on the link, whose link-layer address the neighbour cache knows or finds.
    Neighbour(IpAddr),
    /// A group on the link, whose link-layer address follows from the destination (RFC 1112 §6.4).
    Group(MacAddr),
}

/// The smallest MTU of an IPv4 link (RFC 791: every module forwards 68 bytes without fragmentation).
pub const MIN_MTU: u16 = 68;

/// An address can't be used on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The messages say it.
pub enum RouteError {
    #[error(
        "address {address} is outside the subnet {prefix}: choose one of that subnet, or let `auto` choose"
    )]
    OutsideSubnet { address: IpAddr, prefix: Prefix },
    #[error(
        "address {address} names the subnet {prefix} itself: choose one between it and the broadcast address"
    )]
    NetworkAddress { address: IpAddr, prefix: Prefix },
    #[error("address {address} is the broadcast address of {prefix}: choose a lower one")]
    BroadcastAddress { address: IpAddr, prefix: Prefix },
    #[error(
        "address {address} can't be a host's (unspecified, loopback, multicast or reserved): choose another"
    )]
    NotUnicast { address: IpAddr },
    #[error(
        "gateway {gateway} is not in the subnet {prefix}, so nobody can reach it: give the gateway of that subnet"
    )]
    GatewayOffLink { gateway: IpAddr, prefix: Prefix },
    #[error("{gateway} is the gateway's address and can't be ours too: choose another address")]
    GatewayIsAddress { gateway: IpAddr },
    #[error("an MTU of {mtu} bytes is too small for IP: at least {MIN_MTU} are needed")]
    MtuTooSmall { mtu: u16 },
}

impl Route {
    /// A route by way of a link.
    ///
    /// A prefix of full length (as cloud networks hand out) has no neighbours but the gateway, which then counts
    /// as on the link whatever its address is.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn new(
        address: IpAddr,
        prefix: Prefix,
        gateway: Option<IpAddr>,
        mtu: u16,
    ) -> Result<Self, RouteError> {
        if !is_unicast(address) {
            return Err(RouteError::NotUnicast { address });
        }
        if !prefix.contains(address) {
            return Err(RouteError::OutsideSubnet { address, prefix });
        }
        if prefix.has_network_address() && address == prefix.network {
            return Err(RouteError::NetworkAddress { address, prefix });
        }
        if prefix.broadcast() == Some(address) {
            return Err(RouteError::BroadcastAddress { address, prefix });
        }
        if mtu < MIN_MTU {
            return Err(RouteError::MtuTooSmall { mtu });
        }
        if let Some(gateway) = gateway {
            if gateway == address {
                return Err(RouteError::GatewayIsAddress { gateway });
            }
            let reachable = prefix.contains(gateway) && prefix.broadcast() != Some(gateway);
            let only_neighbour = prefix.is_single() && gateway.is_ipv4() == address.is_ipv4();
            if !is_unicast(gateway) || !(reachable || only_neighbour) {
                return Err(RouteError::GatewayOffLink { gateway, prefix });
            }
        }
        Ok(Self { address, prefix, gateway, mtu })
    }

    /// Our address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The addresses that are reached directly.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// The router for all others.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// The same way, by a link of another MTU; [`MIN_MTU`] if it is smaller than that.
    #[must_use]
    pub fn with_mtu(self, mtu: u16) -> Self {
        Self { mtu: mtu.max(MIN_MTU), ..self }
    }

    /// The longest datagram that the link takes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Who gets the frame of a datagram for `destination` (RFC 1122 §3.3.1.1); `None` when nobody can deliver
    /// it: there is no gateway, or the destination is no host on the network. Our own address is not: a frame
    /// never comes back to the port that sent it.
    pub fn next_hop(&self, destination: IpAddr) -> Option<NextHop> {
        if destination.is_ipv4() != self.address.is_ipv4() || destination == self.address {
            return None;
        }
        if self.is_broadcast(destination) {
            return Some(NextHop::Group(MacAddr::BROADCAST));
        }
        if destination.is_multicast() {
            return Some(NextHop::Group(multicast_mac(destination)));
        }
        if !is_unicast(destination) {
            return None;
        }
        let direct = self.prefix.contains(destination) && !self.prefix.is_single();
        let neighbour = if direct { Some(destination) } else { self.gateway };
        neighbour.map(NextHop::Neighbour)
    }

    /// Whether a host with this address would be on the link: who may tell us a link-layer address.
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let known = self.prefix.contains(address) || self.gateway == Some(address);
        known && is_unicast(address) && !self.is_broadcast(address)
    }

    /// Whether everybody on the link is addressed: by 255.255.255.255, or the subnet's own broadcast address.
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        is_limited_broadcast(address) || self.prefix.broadcast() == Some(address)
    }
}

/// Whether it is 255.255.255.255: everybody on the link, whatever the subnet (RFC 1122 §3.2.1.3).
pub(super) fn is_limited_broadcast(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether a single host can have the address (RFC 1122 §3.2.1.3). Class E, but for its last address, is let
/// pass, as in Linux: some networks use it.
pub fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            // 0.0.0.0/8 is "this network".
            v4.octets()[0] != 0 && !v4.is_loopback() && !v4.is_multicast() && !v4.is_broadcast()
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    }
}

/// RFC 1112 §6.4 (the last 23 bits), RFC 2464 §7 (the last 32).
fn multicast_mac(group: IpAddr) -> MacAddr {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}

/// The prefix is longer than the address, or the text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a subnet: write an address and the number of its leading bits, such as 192.0.2.0/24")]
pub struct PrefixError;

impl Prefix {
    /// The subnet that `address`, or any other address in it, is in.
    ///
    /// # Errors
    /// When `length` is more bits than the address has.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let unused = bits(address).checked_sub(length).ok_or(PrefixError)?;
        let network = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(unused.into()).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(unused.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Ok(Self { network, length })
    }

    /// The subnet's lowest address.
    pub fn network(self) -> IpAddr {
        self.network
    }

    /// The number of leading bits that the addresses share.
    #[allow(clippy::len_without_is_empty)]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether an address is in the subnet.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4()
            && Self::new(address, self.length).is_ok_and(|other| other.network == self.network)
    }

    /// The address of all hosts of the subnet: its highest. IPv6 has none, nor do /31 (RFC 3021) and /32.
    pub fn broadcast(self) -> Option<IpAddr> {
        match self.network {
            IpAddr::V4(v4) if self.has_network_address() => {
                Some(IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | (u32::MAX >> self.length))))
            }
            _ => None,
        }
    }

    /// Whether the lowest address stands for the subnet and so is no host's.
    fn has_network_address(self) -> bool {
        self.network.is_ipv4() && self.length <= 30
    }

    /// Whether the subnet is one address.
    pub(super) fn is_single(self) -> bool {
        self.length == bits(self.network)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError)?;
        let length = length.parse().map_err(|_| PrefixError)?;
        Self::new(address.parse().map_err(|_| PrefixError)?, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    fn route(address: &str, subnet: &str, gateway: Option<&str>) -> Result<Route, RouteError> {
        Route::new(ip(address), prefix(subnet), gateway.map(ip), 1500)
    }

    #[test]
    fn rfc1122_3_3_1_1_on_the_link_directly_else_by_the_gateway() {
        let lan = route("10.0.0.9", "10.0.0.0/24", Some("10.0.0.1")).expect("valid");
        let via = |address| Some(NextHop::Neighbour(ip(address)));
        assert_eq!(lan.next_hop(ip("10.0.0.7")), via("10.0.0.7"));
        assert_eq!(lan.next_hop(ip("10.0.1.7")), via("10.0.0.1"));
        assert_eq!(lan.next_hop(ip("10.0.0.255")), Some(NextHop::Group(MacAddr::BROADCAST)));
        assert_eq!(lan.next_hop(ip("255.255.255.255")), Some(NextHop::Group(MacAddr::BROADCAST)));
        for nowhere in ["10.0.0.9", "127.0.0.1", "0.0.0.0", "::1", "2001:db8::1"] {
            assert_eq!(lan.next_hop(ip(nowhere)), None, "{nowhere}");
        }
        let alone = route("10.0.0.9", "10.0.0.0/24", None).expect("valid");
        assert_eq!(alone.next_hop(ip("10.0.1.7")), None);
    }

    #[test]
    fn rfc1112_6_4_multicast_maps_to_a_group_address() {
        let lan = route("10.0.0.9", "10.0.0.0/24", None).expect("valid");
        let group = MacAddr([0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]);
        assert_eq!(lan.next_hop(ip("224.129.2.3")), Some(NextHop::Group(group)));
    }

    #[test]
    fn addresses_that_no_host_of_the_subnet_can_have_are_refused() {
        let subnet = prefix("10.0.0.0/24");
        let address = ip("10.0.1.9");
        assert_eq!(
            route("10.0.1.9", "10.0.0.0/24", None),
            Err(RouteError::OutsideSubnet { address, prefix: subnet })
        );
        let address = ip("10.0.0.0");
        assert_eq!(
            route("10.0.0.0", "10.0.0.0/24", None),
            Err(RouteError::NetworkAddress { address, prefix: subnet })
        );
        let address = ip("10.0.0.255");
        let refused = Err(RouteError::BroadcastAddress { address, prefix: subnet });
        assert_eq!(route("10.0.0.255", "10.0.0.0/24", None), refused);
        for address in ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "0.1.2.3"] {
            let refused = Err(RouteError::NotUnicast { address: ip(address) });
            assert_eq!(route(address, "0.0.0.0/0", None), refused);
        }
        let gateway = ip("10.0.1.1");
        let refused = Err(RouteError::GatewayOffLink { gateway, prefix: subnet });
        assert_eq!(route("10.0.0.9", "10.0.0.0/24", Some("10.0.1.1")), refused);
        let refused = Err(RouteError::GatewayIsAddress { gateway: ip("10.0.0.9") });
        assert_eq!(route("10.0.0.9", "10.0.0.0/24", Some("10.0.0.9")), refused);
        let refused = Err(RouteError::MtuTooSmall { mtu: 67 });
        assert_eq!(Route::new(ip("10.0.0.9"), subnet, None, 67), refused);
    }

    #[test]
    fn rfc3021_both_addresses_of_a_31_are_hosts() {
        let link = route("10.0.0.0", "10.0.0.0/31", None).expect("valid");
        assert_eq!(link.next_hop(ip("10.0.0.1")), Some(NextHop::Neighbour(ip("10.0.0.1"))));
        assert!(route("10.0.0.1", "10.0.0.0/31", None).is_ok());
    }

    #[test]
    fn an_address_alone_reaches_everything_by_its_gateway() {
        let cloud = route("10.0.0.9", "10.0.0.9/32", Some("10.0.0.1")).expect("valid");
        assert_eq!(cloud.next_hop(ip("10.0.0.7")), Some(NextHop::Neighbour(ip("10.0.0.1"))));
        assert!(cloud.is_on_link(ip("10.0.0.1")));
    }

    #[test]
    fn prefixes_parse_and_print() {
        assert_eq!(prefix("10.1.2.3/20").to_string(), "10.1.0.0/20");
        assert_eq!(prefix("2001:db8:1::/32").to_string(), "2001:db8::/32");
        assert_eq!(prefix("0.0.0.0/0").broadcast(), Some(ip("255.255.255.255")));
        assert!(prefix("::/0").contains(ip("2001:db8::1")) && !prefix("::/0").contains(ip("10.0.0.1")));
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/x", "/8"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError), "{text}");
        }
    }
}
