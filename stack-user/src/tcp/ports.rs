//! Ephemeral ports: double-hash port selection (RFC 6056 §3.3.4, algorithm 4).

use std::net::{IpAddr, SocketAddr};

use super::isn::{Purpose, SecretKey};
use crate::rng::Rng;

/// The ports to choose from (RFC 6335 §6 calls them dynamic; RFC 6056 §3.2 asks for as many as possible, and
/// those below this are registered for services of hosts).
const FIRST: u16 = 32_768;
const LAST: u16 = 65_535;
const COUNT: u32 = LAST as u32 - FIRST as u32 + 1;

/// Counters that destinations share by hash. More of them tell an observer less, and cost memory.
const TABLE_LEN: usize = 64;

/// Chooses local ports.
///
/// Each destination has its own starting point, which a keyed hash hides, and ports then go up one by one: the same
/// port comes back to the same destination as late as possible, while two destinations learn nothing from each other.
#[derive(Debug)]
pub struct EphemeralPorts {
    key: SecretKey,
    table: [u16; TABLE_LEN],
}

impl EphemeralPorts {
    /// A selector with a key and counters of its own.
    pub fn new(rng: &mut Rng) -> Self {
        let key = SecretKey::new(rng);
        Self { key, table: std::array::from_fn(|_| rng.next_u32() as u16) }
    }

    /// A port for a connection from `local` to `remote` for which `is_used` is false (RFC 6056 §3.1), or `None` when all
    /// are used.
    pub fn pick(&mut self, local: IpAddr, remote: SocketAddr, is_used: impl Fn(u16) -> bool) -> Option<u16> {
        let offset = self.key.hash(Purpose::PortOffset, &(local, remote)) as u32 % COUNT;
        let index = self.key.hash(Purpose::PortTable, &(local, remote)) as usize % TABLE_LEN;
        for _ in 0..COUNT {
            let next = self.table[index];
            self.table[index] = next.wrapping_add(1);
            let port = FIRST + ((offset + u32::from(next)) % COUNT) as u16;
            if !is_used(port) {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, net::Ipv4Addr};

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn remote(port: u16) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, 2), port).into()
    }

    #[test]
    fn a_destination_gets_every_port_once_before_one_comes_again_rfc6056_3_2() {
        let mut ports = EphemeralPorts::new(&mut Rng::from_seed(3));
        let seen: HashSet<u16> =
            (0..COUNT).filter_map(|_| ports.pick(LOCAL, remote(80), |_| false)).collect();
        assert_eq!(seen.len(), COUNT as usize);
        assert!(seen.iter().all(|&port| port >= FIRST));
    }

    #[test]
    fn used_ports_are_passed_over_and_none_is_left_when_all_are_used_rfc6056_3_1() {
        let mut ports = EphemeralPorts::new(&mut Rng::from_seed(4));
        assert_eq!(ports.pick(LOCAL, remote(80), |port| port != 40_000), Some(40_000));
        assert_eq!(ports.pick(LOCAL, remote(80), |_| true), None);
    }

    #[test]
    fn destinations_start_at_different_ports_rfc6056_3_3_4() {
        let mut ports = EphemeralPorts::new(&mut Rng::from_seed(5));
        let starts: HashSet<_> = (1..50).map(|port| ports.pick(LOCAL, remote(port), |_| false)).collect();
        assert!(starts.len() > 45, "{}", starts.len());
    }
}
