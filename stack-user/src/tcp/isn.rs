//! Initial sequence numbers and timestamp offsets that nobody off the path can guess (RFC 6528, RFC 7323 §7.1).

use std::{
    hash::{Hash, Hasher},
    net::SocketAddr,
};

use siphasher::sip::SipHasher24;

use super::seq::SeqNumber;
use crate::{rng::Rng, time::Instant};

/// What a new connection starts from.
#[derive(Clone, Copy, Debug)]
pub struct Secrets {
    /// The initial send sequence number.
    pub isn: SeqNumber,
    /// What is added to the clock in timestamps.
    pub timestamp_offset: u32,
}

impl Secrets {
    /// TSval: the clock of timestamps (RFC 7323 §5.4 allows a tick from 1 ms to 1 s; ours is 1 ms).
    pub fn timestamp(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.timestamp_offset)
    }
}

/// The key of a stack, drawn once, or kept from an earlier life.
#[derive(Clone)]
pub struct SecretKey([u8; 16]);

impl std::fmt::Debug for SecretKey {
    /// Shows nothing: who knows the key knows all sequence numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

impl SecretKey {
    /// Draws a key.
    pub fn new(rng: &mut Rng) -> Self {
        let mut key = [0; 16];
        rng.fill(&mut key);
        Self(key)
    }

    /// The key that [`bytes`](Self::bytes) told.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What to keep of it, in a place that nobody else can read.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The secrets of a connection that starts now.
    ///
    /// ISN = M + F(addresses, ports, key), where M is a clock of 4 µs (RFC 6528 §3, RFC 9293 §3.4.1, MUST-8,
    /// MUST-9 and SHLD-1): a new incarnation of a connection starts above the old one, other connections tell nothing.
    pub fn for_connection(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Secrets {
        let clock = (now.as_nanos() / 4_000) as u32;
        Secrets {
            isn: SeqNumber(clock.wrapping_add(self.hash(Purpose::Isn, &(local, remote)) as u32)),
            // Depends on the addresses only, so that a new incarnation's timestamps go on where the old one's
            // ended, and its SYN passes a peer's TIME-WAIT (RFC 6191).
            timestamp_offset: self.hash(Purpose::Timestamps, &(local.ip(), remote.ip())) as u32,
        }
    }

    /// A keyed hash.
    pub(super) fn hash(&self, purpose: Purpose, value: &impl Hash) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u8(purpose as u8);
        value.hash(&mut hasher);
        hasher.finish()
    }
}

/// Keeps the uses of one key apart: what one reveals says nothing about another.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Isn,
    Timestamps,
    PortOffset,
    PortTable,
    SynCookie,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9293 §3.4.1, MUST-8, MUST-9 and SHLD-1; RFC 7323 §7.1.
    #[test]
    fn isn_follows_the_clock_within_a_connection_and_nothing_between_them() {
        let key = SecretKey::new(&mut Rng::from_seed(1));
        let local = "192.0.2.1:4000".parse().expect("an address");
        let remote: SocketAddr = "192.0.2.2:80".parse().expect("an address");
        let other = "192.0.2.2:81".parse().expect("an address");
        let at = |now, remote| key.for_connection(Instant::from_micros(now), local, remote);
        assert_eq!(at(4_000, remote).isn, at(0, remote).isn + 1_000, "one step in 4 µs");
        assert_ne!(at(0, remote).isn, at(0, other).isn);
        assert_eq!(at(0, remote).timestamp_offset, at(9_999, other).timestamp_offset, "per pair of hosts");
        let second = SecretKey::new(&mut Rng::from_seed(2));
        assert_ne!(second.for_connection(Instant::ZERO, local, remote).isn, at(0, remote).isn);
    }
}
