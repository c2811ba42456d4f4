//! Which shard has a flow, and which have a listener or a socket.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use crate::{
    rng::Rng,
    stack::{
        demux::{Flow, Keyed},
        listeners::unspecified,
    },
};

/// Parts that the directory is cut into, each with a lock of its own, which is held for one look-up. Fewer, and shards
/// wait for each other when many connections come and go; more only takes memory.
const STRIPES: usize = 64;

/// The flows of all shards, by a hash of 64 bits: with a million of them, one in 30 million starts shares it with another
/// flow, of which strays to other queues are then lost.
#[derive(Debug)]
pub(crate) struct Directory {
    keyed: Keyed,
    stripes: Box<[Mutex<Stripe>]>,
}

type Stripe = HashMap<Fingerprint, Entry, BuildHasherDefault<Identity>>;

/// A flow's hash, in pieces that need no alignment: a row takes 12 bytes instead of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint([u16; 4]);

#[derive(Clone, Copy, Debug)]
struct Entry {
    shard: u16,
    /// How many of its tables have the flow: while it changes from one to the other, both.
    tables: u16,
}

impl Directory {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self { keyed: Keyed::new(rng), stripes }
    }

    /// Who has the flow.
    pub(super) fn owner(&self, flow: &Flow) -> Option<u16> {
        let (stripe, key) = self.stripe(flow);
        stripe.get(&key).map(|entry| entry.shard)
    }

    /// One more of a shard's tables has the flow. False if another shard's have it.
    pub(super) fn enter(&self, flow: &Flow, shard: u16) -> bool {
        let (mut stripe, key) = self.stripe(flow);
        let entry = stripe.entry(key).or_insert(Entry { shard, tables: 0 });
        let is_ours = entry.shard == shard;
        if is_ours {
            entry.tables = entry.tables.saturating_add(1);
        }
        is_ours
    }

    /// One less of a shard's tables has the flow.
    pub(super) fn leave(&self, flow: &Flow, shard: u16) {
        let (mut stripe, key) = self.stripe(flow);
        let Some(entry) = stripe.get_mut(&key).filter(|entry| entry.shard == shard) else { return };
        entry.tables -= 1;
        if entry.tables == 0 {
            stripe.remove(&key);
            // What a flood has made grow is given back.
            if stripe.capacity() > 64 && stripe.len() < stripe.capacity() / 8 {
                stripe.shrink_to_fit();
            }
        }
    }

    /// A keyed hash of anything.
    pub(super) fn hash(&self, value: &impl Hash) -> u64 {
        self.keyed.hash_one(value)
    }

    /// Where the flow is if it is anywhere, and as what.
    fn stripe(&self, flow: &Flow) -> (MutexGuard<'_, Stripe>, Fingerprint) {
        let Flow { local, remote } = flow;
        let hash = self.hash(&(local.ip(), remote.ip(), local.port(), remote.port()));
        // Bits that the map uses neither for the place nor for the tag.
        let stripe = &self.stripes[(hash >> 40) as usize % STRIPES];
        // A panic elsewhere did a map that is whole after every statement no harm.
        (stripe.lock().unwrap_or_else(PoisonError::into_inner), Fingerprint::new(hash))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().expect("whole").len()).sum()
    }
}

impl Fingerprint {
    fn new(hash: u64) -> Self {
        Self(std::array::from_fn(|piece| (hash >> (16 * piece)) as u16))
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.iter().rev().fold(0, |hash, &piece| (hash << 16) | u64::from(piece)));
    }
}

/// The hash of what is a hash already.
#[derive(Clone, Copy, Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 << 8) | u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The listeners and UDP sockets of all shards. Asked when a shard has none there: most are on all of them, so that is for
/// those that live on one, and for ports that nobody has.
#[derive(Debug, Default)]
pub(super) struct Services(RwLock<HashMap<(u8, SocketAddr), Vec<u16>>>);

impl Services {
    pub(super) fn open(&self, protocol: u8, local: SocketAddr, shard: u16) {
        let mut services = self.0.write().unwrap_or_else(PoisonError::into_inner);
        services.entry((protocol, local)).or_default().push(shard);
    }

    pub(super) fn close(&self, protocol: u8, local: SocketAddr, shard: u16) {
        let mut services = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(shards) = services.get_mut(&(protocol, local)) else { return };
        if let Some(position) = shards.iter().position(|&there| there == shard) {
            shards.swap_remove(position);
        }
        if shards.is_empty() {
            services.remove(&(protocol, local));
        }
    }

    /// A shard that has something on the address, or on all addresses.
    pub(super) fn find(&self, protocol: u8, local: SocketAddr) -> Option<u16> {
        let services = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let any = SocketAddr::new(unspecified(local.ip()), local.port());
        let shards = services.get(&(protocol, local)).or_else(|| services.get(&(protocol, any)))?;
        shards.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::protocol;

    fn flow(port: u16) -> Flow {
        Flow { local: ([192, 0, 2, 1], 80).into(), remote: ([192, 0, 2, 2], port).into() }
    }

    #[test]
    fn a_flow_is_one_shards_until_it_has_left_its_last_table() {
        let directory = Directory::new(&mut Rng::from_seed(1));
        assert_eq!(directory.owner(&flow(1)), None);
        assert!(directory.enter(&flow(1), 3) && directory.enter(&flow(1), 3));
        assert!(!directory.enter(&flow(1), 4), "it stays where it is");
        assert!(directory.enter(&flow(2), 4));
        directory.leave(&flow(1), 4);
        directory.leave(&flow(1), 3);
        assert_eq!((directory.owner(&flow(1)), directory.owner(&flow(2))), (Some(3), Some(4)));
        directory.leave(&flow(1), 3);
        assert_eq!((directory.owner(&flow(1)), directory.owner(&flow(2))), (None, Some(4)));
        assert!(directory.enter(&flow(1), 4), "free for anybody");
    }

    #[test]
    fn a_flow_takes_little_and_what_many_took_is_given_back() {
        assert_eq!(size_of::<(Fingerprint, Entry)>(), 12);
        let directory = Directory::new(&mut Rng::from_seed(1));
        let flows = || (0..50_000).map(flow);
        assert!(flows().all(|flow| directory.enter(&flow, 1)));
        assert_eq!(directory.len(), 50_000, "no two share a hash");
        let room =
            || directory.stripes.iter().map(|stripe| stripe.lock().expect("whole").capacity()).sum::<usize>();
        // A byte of the map's own comes with each.
        assert!(room() * 13 < 50_000 * 32, "{}", room());
        flows().for_each(|flow| directory.leave(&flow, 1));
        assert_eq!(directory.len(), 0);
        assert!(room() < 50_000 / 8, "{}", room());
    }

    #[test]
    fn a_service_is_found_on_its_address_or_on_all() {
        let services = Services::default();
        let (one, all) = (SocketAddr::from(([192, 0, 2, 1], 80)), SocketAddr::from(([0, 0, 0, 0], 80)));
        services.open(protocol::TCP, all, 2);
        assert_eq!(services.find(protocol::TCP, one), Some(2));
        assert_eq!(services.find(protocol::UDP, one), None);
        services.open(protocol::TCP, one, 1);
        assert_eq!(services.find(protocol::TCP, one), Some(1));
        services.close(protocol::TCP, one, 1);
        services.close(protocol::TCP, all, 1);
        assert_eq!(services.find(protocol::TCP, one), Some(2));
        services.close(protocol::TCP, all, 2);
        assert_eq!(services.find(protocol::TCP, one), None);
    }
}
