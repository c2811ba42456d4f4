//! The addresses that are ours on one link, and which of them a datagram comes to or goes out from.
//!
//! Most often there is one, and then every question is one comparison. However many there are, what is asked for each
//! frame looks at a few of them.

use std::{cell::Cell, cmp::Reverse, net::IpAddr};

use super::route::{self, NextHop, Prefix, Route};
use crate::wire::MacAddr;

/// Our addresses on a link. They share its neighbours, and its gateways.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// In the order in which they were asked for.
    routes: Vec<Route>,
    /// Where each is in `routes`, by address.
    by_address: Vec<(IpAddr, usize)>,
    subnets: Vec<Subnet>,
    /// The first router that one of them has.
    gateway: Option<IpAddr>,
    /// What a connection to everything else comes from: the first address that has a router.
    outward: Option<usize>,
    /// The first that a connection may come from.
    first: Option<usize>,
    /// Whether there is one that no connection may come from.
    some_closed: bool,
    /// The last answer of [`next_hop`](Self::next_hop), which holds as long as we do: the frames of a burst go one way.
    latest: Cell<Option<(IpAddr, IpAddr, NextHop)>>,
}

/// How a destination is reached through a link. The better way is the greater one: of several links, that is the one to take
/// (RFC 1122 §3.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Not at all.
    Nowhere,
    /// Through a router.
    ThroughRouter,
    /// It is in a subnet of ours, whose prefix has so many bits.
    OnLink(u8),
}

/// A subnet that one of our addresses is in, or several.
#[derive(Clone, Copy, Debug)]
struct Subnet {
    prefix: Prefix,
    /// The first of our addresses in it that a connection may come from.
    source: Option<usize>,
}

impl Routes {
    /// Of addresses in the order of preference, each with whether a connection may (still) be opened from it.
    pub fn new(addresses: impl IntoIterator<Item = (Route, bool)>) -> Self {
        let mut all = Self::default();
        addresses.into_iter().for_each(|(route, opens)| all.add(route, opens));
        all.by_address = all.routes.iter().enumerate().map(|(at, route)| (route.address(), at)).collect();
        all.by_address.sort_unstable();
        // The first that fits is then the most particular one.
        all.subnets.sort_by_key(|subnet| Reverse(subnet.prefix.length()));
        all
    }

    fn add(&mut self, route: Route, opens: bool) {
        let at = self.routes.len();
        self.routes.push(route);
        let source = opens.then_some(at);
        self.first = self.first.or(source);
        self.some_closed |= !opens;
        self.gateway = self.gateway.or(route.gateway());
        self.outward = self.outward.or(source.filter(|_| route.gateway().is_some()));
        let prefix = route.prefix();
        if prefix.is_single() {
            return;
        }
        match self.subnets.iter_mut().find(|subnet| subnet.prefix == prefix) {
            Some(subnet) => subnet.source = subnet.source.or(source),
            None => self.subnets.push(Subnet { prefix, source }),
        }
    }

    /// All of them, in the order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// The first router that one of them has.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// Whether connections may come from all of them.
    pub fn all_open(&self) -> bool {
        !self.some_closed
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The first that a connection may come from.
    pub fn first(&self) -> Option<&Route> {
        self.first.and_then(|at| self.routes.get(at))
    }

    /// The route from an address, if it is ours.
    pub fn get(&self, address: IpAddr) -> Option<&Route> {
        match self.routes.as_slice() {
            [] => None,
            [first, ..] if first.address() == address => Some(first),
            [_] => None,
            _ => {
                let found = self.by_address.binary_search_by_key(&address, |&(ours, _)| ours).ok()?;
                self.by_address.get(found).and_then(|&(_, at)| self.routes.get(at))
            }
        }
    }

    /// Whether an address is ours.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.get(address).is_some()
    }

    /// Whether everybody on the link is addressed, in one of our subnets or in all.
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        route::is_limited_broadcast(address)
            || self.subnets.iter().any(|subnet| subnet.prefix.broadcast() == Some(address))
    }

    /// Whether another host with this address would be on the link: who may tell us a link-layer address.
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let known =
            self.is_direct(address) || self.routes.iter().any(|route| route.gateway() == Some(address));
        known && route::is_unicast(address) && !self.is_broadcast(address) && !self.is_ours(address)
    }

    /// Who gets the frame of a datagram from `source`, which is ours, for `destination`: as [`Route::next_hop`] says. What
    /// is in the subnet of any of our addresses is on the link, and an address without a router goes by that of another.
    pub fn next_hop(&self, source: IpAddr, destination: IpAddr) -> Option<NextHop> {
        if let Some((from, to, hop)) = self.latest.get()
            && (from, to) == (source, destination)
        {
            return Some(hop);
        }
        let hop = self.find_next_hop(source, destination)?;
        self.latest.set(Some((source, destination, hop)));
        Some(hop)
    }

    fn find_next_hop(&self, source: IpAddr, destination: IpAddr) -> Option<NextHop> {
        let route = self.get(source)?;
        if let [only] = self.routes.as_slice() {
            return only.next_hop(destination);
        }
        // A frame never comes back to the port that sent it.
        if self.is_ours(destination) {
            return None;
        }
        if self.is_broadcast(destination) {
            return Some(NextHop::Group(MacAddr::BROADCAST));
        }
        if !route::is_unicast(destination) {
            return route.next_hop(destination);
        }
        if self.is_direct(destination) {
            return Some(NextHop::Neighbour(destination));
        }
        let same_family = destination.is_ipv4() == source.is_ipv4();
        route.gateway().or(self.gateway).filter(|_| same_family).map(NextHop::Neighbour)
    }

    /// Which of our addresses a datagram to `destination` comes from, where nobody has chosen: one in the destination's
    /// own subnet, else the first that has a router (RFC 1122 §3.3.4.3). `None` when it can't be reached.
    pub fn source_for(&self, destination: IpAddr) -> Option<&Route> {
        let near =
            self.subnets.iter().find(|subnet| subnet.source.is_some() && subnet.prefix.contains(destination));
        let everybody = !route::is_unicast(destination);
        let at = match near {
            Some(subnet) => subnet.source,
            None if everybody => self.first,
            None => self.outward,
        };
        let route = at.and_then(|at| self.routes.get(at))?;
        self.next_hop(route.address(), destination).map(|_| route)
    }

    /// How a new connection reaches a destination from here.
    pub fn reach(&self, destination: IpAddr) -> Reach {
        let near = |subnet: &&Subnet| subnet.source.is_some() && subnet.prefix.contains(destination);
        match self.subnets.iter().find(near) {
            Some(subnet) => Reach::OnLink(subnet.prefix.length()),
            None if self.outward.is_some() => Reach::ThroughRouter,
            None => Reach::Nowhere,
        }
    }

    /// Whether a destination is in a subnet of ours.
    fn is_direct(&self, destination: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.prefix.contains(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn route(address: &str, prefix: &str, gateway: Option<&str>) -> Route {
        let prefix = prefix.parse().expect("a prefix");
        Route::new(ip(address), prefix, gateway.map(ip), 1500).expect("valid")
    }

    fn three() -> [Route; 3] {
        [
            route("10.0.0.9", "10.0.0.0/24", None),
            route("192.0.2.9", "192.0.2.0/24", Some("192.0.2.1")),
            route("10.0.0.10", "10.0.0.0/24", Some("10.0.0.1")),
        ]
    }

    fn source(routes: &Routes, destination: &str) -> Option<IpAddr> {
        routes.source_for(ip(destination)).map(Route::address)
    }

    #[test]
    fn rfc1122_3_3_4_3_the_source_is_in_the_destinations_subnet_else_it_has_a_router() {
        let routes = Routes::new(three().map(|route| (route, true)));
        assert_eq!(source(&routes, "10.0.0.77"), Some(ip("10.0.0.9")), "the first in the subnet");
        assert_eq!(source(&routes, "192.0.2.77"), Some(ip("192.0.2.9")));
        assert_eq!(source(&routes, "198.51.100.1"), Some(ip("192.0.2.9")), "the first that has a router");
        assert_eq!(source(&routes, "10.0.0.255"), Some(ip("10.0.0.9")), "all hosts of the subnet");
        assert_eq!(source(&routes, "255.255.255.255"), Some(ip("10.0.0.9")));
        assert_eq!(source(&routes, "10.0.0.10"), None, "a frame does not come back to us");
        let alone = Routes::new([(three()[0], true)]);
        assert_eq!(source(&alone, "198.51.100.1"), None);
        assert_eq!(source(&Routes::default(), "10.0.0.77"), None);
    }

    #[test]
    fn the_longest_prefix_that_fits_decides() {
        let wide = route("10.9.0.1", "10.0.0.0/8", None);
        let routes = Routes::new([(wide, true), (three()[0], true)]);
        assert_eq!(source(&routes, "10.0.0.77"), Some(ip("10.0.0.9")));
        assert_eq!(source(&routes, "10.1.0.77"), Some(ip("10.9.0.1")));
        assert!(routes.is_broadcast(ip("10.0.0.255")), "though it is a host's in the wider one");
    }

    #[test]
    fn rfc1122_3_3_1_1_what_is_on_the_link_is_nearer_than_what_is_behind_a_router() {
        let wide = route("10.9.0.1", "10.0.0.0/8", None);
        let routes = Routes::new([(wide, true), (three()[0], true)]);
        assert_eq!(routes.reach(ip("10.0.0.77")), Reach::OnLink(24));
        assert_eq!(routes.reach(ip("10.1.0.77")), Reach::OnLink(8));
        assert_eq!(routes.reach(ip("198.51.100.1")), Reach::Nowhere);
        assert_eq!(Routes::new([(three()[1], true)]).reach(ip("198.51.100.1")), Reach::ThroughRouter);
        let leaving = Routes::new([(three()[1], false)]);
        assert_eq!(
            (leaving.reach(ip("192.0.2.77")), leaving.reach(ip("8.8.8.8"))),
            (Reach::Nowhere, Reach::Nowhere)
        );
        assert!(Reach::OnLink(24) > Reach::OnLink(8) && Reach::OnLink(1) > Reach::ThroughRouter);
        assert!(Reach::ThroughRouter > Reach::Nowhere);
    }

    #[test]
    fn nothing_new_comes_from_an_address_that_is_being_given_up_and_what_is_open_goes_on() {
        let [a, b, c] = three();
        let routes = Routes::new([(a, false), (b, false), (c, true)]);
        assert_eq!(source(&routes, "10.0.0.77"), Some(ip("10.0.0.10")));
        assert_eq!(source(&routes, "198.51.100.1"), Some(ip("10.0.0.10")));
        assert_eq!(routes.first(), Some(&c));
        let next = Some(NextHop::Neighbour(ip("10.0.0.77")));
        assert_eq!(
            (routes.next_hop(a.address(), ip("10.0.0.77")), routes.is_ours(a.address())),
            (next, true)
        );
    }

    #[test]
    fn the_link_is_the_same_for_all_of_them() {
        let routes = Routes::new(three().map(|route| (route, true)));
        let hop = |from, to| routes.next_hop(ip(from), ip(to));
        let via = |address| Some(NextHop::Neighbour(ip(address)));
        assert_eq!(hop("10.0.0.9", "192.0.2.77"), via("192.0.2.77"));
        assert_eq!(hop("10.0.0.9", "198.51.100.1"), via("192.0.2.1"), "it has no router of its own");
        assert_eq!(hop("10.0.0.10", "198.51.100.1"), via("10.0.0.1"));
        assert_eq!(hop("10.0.0.9", "192.0.2.255"), Some(NextHop::Group(MacAddr::BROADCAST)));
        assert_eq!(hop("10.0.0.9", "10.0.0.10"), None);
        assert_eq!(hop("10.0.0.11", "10.0.0.77"), None, "not from an address that is not ours");
        assert!(routes.is_on_link(ip("10.0.0.1")) && routes.is_on_link(ip("192.0.2.77")));
        assert!(!routes.is_on_link(ip("10.0.0.10")), "we are our own neighbour never");
    }

    #[test]
    fn each_of_many_is_found_and_nothing_else() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let prefix: Prefix = "10.0.0.0/24".parse().expect("a prefix");
        let route = |n| Route::new(address(n), prefix, None, 1500).expect("valid");
        for count in [0, 1, 2, 100] {
            // In an order that is not the addresses' own.
            let routes = Routes::new((1..=count).rev().map(|n| (route(n), true)));
            for n in 0..=200 {
                let found = routes.get(address(n)).map(Route::address);
                assert_eq!(found, (1..=count).contains(&n).then_some(address(n)), "{n} of {count}");
            }
        }
    }
}
