//! From a segment's addresses and ports to its connection, in O(1).

use std::{
    cell::Cell,
    hash::{BuildHasher, Hash, Hasher},
    net::SocketAddr,
};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::siblings::Membership;
use crate::rng::Rng;

/// The rows of connections by their four-tuple, which is kept in the row only. So an entry takes eight bytes, and whoever
/// looks one up says which row is the right one.
///
/// The hash is keyed: a peer that chooses its ports can't make entries collide.
#[derive(Debug)]
pub(super) struct Demux {
    entries: HashTable<Entry>,
    key: Keyed,
    /// The row that was found last. Segments come in trains, and the rest of one needs no hash.
    last: Cell<Option<u32>>,
    siblings: Option<Membership>,
}

/// What TCP knows a connection by (RFC 9293 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// In twelve bytes for IPv4, where the fields one by one would be as many words to a keyed hash as there are fields.
impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (self.local, self.remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                state.write_u64(u64::from(local.ip().to_bits()) << 32 | u64::from(remote.ip().to_bits()));
                state.write_u32(u32::from(local.port()) << 16 | u32::from(remote.port()));
            }
            ends => ends.hash(state),
        }
    }
}

/// A row, and half of its flow's hash: enough to find its place anew when the table grows, without a look at the row.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    row: u32,
}

impl Demux {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { entries: HashTable::new(), key: Keyed::new(rng), last: Cell::new(None), siblings: None }
    }

    /// Others are told of what comes in from now on.
    pub(super) fn join(&mut self, siblings: &Membership) {
        self.siblings = Some(siblings.clone());
    }

    /// The row of a flow: the one that `is_it`.
    pub(super) fn find(&self, flow: &Flow, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        // It is in the table, or something had been put in or taken out since.
        let last = self.last.get().filter(|&row| is_it(row));
        if last.is_some() {
            return last;
        }
        let hash = self.hash(flow);
        let found = self.entries.find(spread(hash), |entry| entry.hash == hash && is_it(entry.row))?.row;
        self.last.set(Some(found));
        Some(found)
    }

    /// The row that a flow of this [hash](Self::hash) has if no other one has the same.
    pub(super) fn likely(&self, hash: u32) -> Option<u32> {
        self.entries.find(spread(hash), |entry| entry.hash == hash).map(|entry| entry.row)
    }

    /// Puts a flow in the place of the one that `is_it`, if there is one, or in a new place.
    pub(super) fn insert(&mut self, flow: &Flow, row: u32, is_it: impl Fn(u32) -> bool) {
        self.last.set(None);
        let hash = self.hash(flow);
        let known = self.entries.find_mut(spread(hash), |entry| entry.hash == hash && is_it(entry.row));
        if let Some(entry) = known {
            entry.row = row;
            return;
        }
        self.entries.insert_unique(spread(hash), Entry { hash, row }, |entry| spread(entry.hash));
        if let Some(siblings) = &self.siblings {
            let _reserved = siblings.enter(flow);
        }
    }

    /// Forgets a flow, unless it has become another row's.
    pub(super) fn remove(&mut self, flow: &Flow, row: u32) {
        self.last.set(None);
        let hash = self.hash(flow);
        let is_it = |entry: &Entry| entry.hash == hash && entry.row == row;
        if let Ok(entry) = self.entries.find_entry(spread(hash), is_it) {
            entry.remove();
            if let Some(siblings) = &self.siblings {
                siblings.leave(flow);
            }
        }
    }

    /// What a flow is found by.
    pub(super) fn hash(&self, flow: &Flow) -> u32 {
        let hash = self.key.hash_one(flow);
        (hash ^ hash >> 32) as u32
    }
}

/// The table takes the place from the low bits, and seven bits to compare from the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// A keyed hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed(u64, u64);

impl Keyed {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self(rng.next_u64(), rng.next_u64())
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> Flow {
        Flow { local: ([10, 0, 0, 1], 80).into(), remote: ([10, 0, 0, 2], port).into() }
    }

    /// Rows are given to other flows in between: what was found last is found as long as it is there, and no longer.
    #[test]
    fn the_flow_that_was_found_last_is_found_as_long_as_it_is_there() {
        let mut demux = Demux::new(&mut Rng::from_seed(1));
        let find =
            |demux: &Demux, rows: &[Flow], flow: Flow| demux.find(&flow, |row| rows[row as usize] == flow);
        let mut rows = vec![flow(1), flow(2)];
        for (row, flow) in rows.iter().enumerate() {
            demux.insert(flow, row as u32, |_| false);
        }
        for _ in 0..2 {
            assert_eq!(find(&demux, &rows, flow(1)), Some(0));
            assert_eq!(find(&demux, &rows, flow(2)), Some(1));
            assert_eq!(find(&demux, &rows, flow(3)), None);
        }
        // The row of what was found last stays, as one of a closed connection does whose handle is held.
        assert_eq!(find(&demux, &rows, flow(2)), Some(1));
        demux.remove(&flow(2), 1);
        assert_eq!(find(&demux, &rows, flow(2)), None);
        // Its row is another flow's now.
        rows[1] = flow(3);
        demux.insert(&flow(3), 1, |_| false);
        assert_eq!(find(&demux, &rows, flow(3)), Some(1));
        assert_eq!(find(&demux, &rows, flow(2)), None);
        // And a flow may move to another row while the one that it had stays.
        rows.push(flow(3));
        demux.insert(&flow(3), 2, |row| row == 1);
        assert_eq!(find(&demux, &rows, flow(3)), Some(2));
    }
}
