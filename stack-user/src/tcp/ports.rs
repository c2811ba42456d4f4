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

/// Ports that are tried one after the other. Fewer, and ports come back sooner than they could (RFC 6056 §3.2); more, and
/// who has thousands of connections to one destination looks at all of them to open another.
const RUN: u32 = 64;

/// Ports that are tried at random when those were used, as algorithm 1 of the same does. If a tenth of all are free, one in 10^11 finds
/// none in so many.
const GUESSES: u32 = 256;

/// Chooses local ports.
///
/// Each destination has its own starting point, which a keyed hash hides, and ports then go up one by one: the same
/// port comes back to the same destination as late as possible, while two destinations learn nothing from each other.
#[derive(Debug)]
pub struct EphemeralPorts {
    key: SecretKey,
    table: [u16; TABLE_LEN],
    rng: Rng,
}

impl EphemeralPorts {
    /// A selector with a key and counters of its own.
    pub fn new(rng: &mut Rng) -> Self {
        let key = SecretKey::new(rng);
        let guesses = Rng::from_seed(key.hash(Purpose::PortTable, &"guesses"));
        Self { key, table: std::array::from_fn(|_| rng.next_u32() as u16), rng: guesses }
    }

    /// A port for a connection from `local` to `remote` for which `is_used` is false (RFC 6056 §3.1), or `None` when all
    /// are used.
    pub fn pick(&mut self, local: IpAddr, remote: SocketAddr, is_used: impl Fn(u16) -> bool) -> Option<u16> {
        self.pick_soon(local, remote, &is_used).or_else(|| self.walk(local, remote, COUNT, &is_used))
    }

    /// As [`pick`](Self::pick), after a bounded number of attempts: `None` also when hardly any port is left.
    pub fn pick_soon(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        is_used: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        self.walk(local, remote, RUN, &is_used).or_else(|| self.guess(local, remote, &is_used))
    }

    /// One after the other, from where the last walk has ended.
    fn walk(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        steps: u32,
        is_used: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let (offset, index) = self.start(local, remote);
        for _ in 0..steps {
            let next = self.table[index];
            self.table[index] = next.wrapping_add(1);
            let port = FIRST + ((offset + u32::from(next)) % COUNT) as u16;
            if !is_used(port) {
                return Some(port);
            }
        }
        None
    }

    /// Anywhere; the next walk starts behind it, where more may be free.
    fn guess(&mut self, local: IpAddr, remote: SocketAddr, is_used: impl Fn(u16) -> bool) -> Option<u16> {
        let (offset, index) = self.start(local, remote);
        let guess = |_| self.rng.below(COUNT.into()) as u32;
        let place = (0..GUESSES).map(guess).find(|&place| !is_used(FIRST + place as u16))?;
        self.table[index] = ((place + COUNT - offset + 1) % COUNT) as u16;
        Some(FIRST + place as u16)
    }

    /// Where a destination's ports start, and which counter tells how far it has come.
    fn start(&self, local: IpAddr, remote: SocketAddr) -> (u32, usize) {
        let offset = self.key.hash(Purpose::PortOffset, &(local, remote)) as u32 % COUNT;
        let index = self.key.hash(Purpose::PortTable, &(local, remote)) as usize % TABLE_LEN;
        (offset, index)
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

    /// With 30,000 connections to one destination, of which each port that is freed is taken again.
    #[test]
    fn a_port_is_found_soon_when_most_are_used() {
        let mut ports = EphemeralPorts::new(&mut Rng::from_seed(6));
        let (mut used, looks) = (HashSet::new(), std::cell::Cell::new(0));
        let mut most = 0;
        for n in 0..40_000_u32 {
            let before = looks.get();
            let port = ports.pick(LOCAL, remote(80), |port| {
                looks.set(looks.get() + 1);
                used.contains(&port)
            });
            most = most.max(looks.get() - before);
            assert!(used.insert(port.expect("there is one")), "a port that is free");
            if n >= 30_000 {
                // Those that come last go first, so that what is used stays in one piece.
                used.remove(&port.expect("there is one"));
            }
        }
        assert!(most <= RUN + GUESSES, "{most} looks for one");
        assert!(looks.get() < 40_000 * 12, "{} looks for all", looks.get());
        assert_eq!(ports.pick_soon(LOCAL, remote(80), |_| true), None);
    }

    #[test]
    fn destinations_start_at_different_ports_rfc6056_3_3_4() {
        let mut ports = EphemeralPorts::new(&mut Rng::from_seed(5));
        let starts: HashSet<_> = (1..50).map(|port| ports.pick(LOCAL, remote(port), |_| false)).collect();
        assert!(starts.len() > 45, "{}", starts.len());
    }
}
