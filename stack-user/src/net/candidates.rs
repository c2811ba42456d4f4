//! Addresses to try when the subnet is to have one for us: `--address auto`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::{acd::MAX_CONFLICTS, route::Prefix};
use crate::rng::Rng;

/// Addresses that are tried before giving up: as many as may be probed for without slowing down (RFC 5227
/// §2.1.1). Fewer, and a subnet that is half full fails once in 1000 times or more; more would wait minutes.
pub const MAX_CANDIDATES: usize = MAX_CONFLICTS as usize;

/// Addresses of a subnet in random order, each once. Random, so that two who look for one at the same time
/// seldom meet.
#[derive(Debug)]
pub struct Candidates {
    /// The lowest address that a host can have, and how many there are from there on.
    first: u32,
    hosts: u32,
    /// Not to be offered (again), as distances from `first`.
    taken: BTreeSet<u32>,
    left: usize,
    rng: Rng,
}

impl Candidates {
    /// The addresses of `subnet` except those that are known to be in use: the host's own, the gateway. None in
    /// an IPv6 subnet.
    pub fn new(subnet: Prefix, in_use: &[IpAddr], rng: Rng) -> Self {
        let (first, hosts) = match (subnet.network(), subnet.broadcast()) {
            (IpAddr::V4(network), Some(IpAddr::V4(broadcast))) => {
                let first = network.to_bits().saturating_add(1);
                (first, broadcast.to_bits().saturating_sub(first))
            }
            // RFC 3021: a /31 has two hosts, and a /32 is one.
            (IpAddr::V4(network), _) => (network.to_bits(), if subnet.length() == 31 { 2 } else { 1 }),
            (IpAddr::V6(_), _) => (0, 0),
        };
        let taken = in_use.iter().filter_map(|&address| match address {
            IpAddr::V4(v4) => v4.to_bits().checked_sub(first).filter(|&distance| distance < hosts),
            IpAddr::V6(_) => None,
        });
        Self { first, hosts, taken: taken.collect(), left: MAX_CANDIDATES, rng }
    }
}

impl Iterator for Candidates {
    type Item = Ipv4Addr;

    fn next(&mut self) -> Option<Ipv4Addr> {
        if self.left == 0 || self.taken.len() >= self.hosts as usize {
            return None;
        }
        self.left -= 1;
        let mut distance = self.rng.below(self.hosts.into()) as u32;
        // There is a free one, so this ends; what is taken is a handful.
        while !self.taken.insert(distance) {
            distance = (distance + 1) % self.hosts;
        }
        Some(Ipv4Addr::from_bits(self.first + distance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(subnet: &str, in_use: &[&str], seed: u64) -> Vec<Ipv4Addr> {
        let in_use: Vec<_> = in_use.iter().map(|text| text.parse().expect("an address")).collect();
        Candidates::new(subnet.parse().expect("a prefix"), &in_use, Rng::from_seed(seed)).collect()
    }

    #[test]
    fn every_free_address_of_a_small_subnet_is_offered_once() {
        for seed in 0..50 {
            let mut found = candidates("10.0.0.0/29", &["10.0.0.1", "10.0.0.4", "192.0.2.1", "::1"], seed);
            found.sort();
            assert_eq!(found, [2, 3, 5, 6].map(|n| Ipv4Addr::new(10, 0, 0, n)));
        }
        assert_eq!(candidates("10.0.0.0/30", &["10.0.0.1", "10.0.0.2"], 1), [] as [Ipv4Addr; 0]);
        assert_eq!(candidates("10.0.0.0/31", &["10.0.0.0"], 1), [Ipv4Addr::new(10, 0, 0, 1)]);
    }

    #[test]
    fn a_large_subnet_is_tried_at_random_and_not_for_ever() {
        let (a, b) = (candidates("10.0.0.0/8", &[], 1), candidates("10.0.0.0/8", &[], 2));
        assert_eq!((a.len(), b.len()), (MAX_CANDIDATES, MAX_CANDIDATES));
        assert_ne!(a, b);
        assert_eq!(a.iter().collect::<BTreeSet<_>>().len(), MAX_CANDIDATES);
        assert_eq!(candidates("0.0.0.0/0", &[], 3).len(), MAX_CANDIDATES);
        assert_eq!(candidates("2001:db8::/64", &[], 1), [] as [Ipv4Addr; 0]);
    }

    #[test]
    fn network_and_broadcast_are_never_offered() {
        for seed in 0..200 {
            let found = candidates("192.0.2.0/28", &[], seed);
            assert!(found.iter().all(|address| (1..=14).contains(&address.octets()[3])), "{found:?}");
        }
    }
}
