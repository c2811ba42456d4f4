//! Looking at a running stack from outside: its shards, listeners and connections, without being in their way.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::Stack;
use crate::{
    frame::FramePool,
    stack::ListenerInfo,
    tcp::{self, State, View},
    wire::MacAddr,
};

/// How many rows are looked at while a shard's lock is held. Fewer, and the lock is taken more often than it has to be;
/// more, and a burst of frames waits for whoever is curious: a row takes a fraction of a microsecond.
const PAGE: usize = 256;

/// A connection, as it was when it was looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// What TCP knows of it.
    pub tcp: tcp::Info,
}

/// How far a walk over all connections has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    shard: usize,
    row: usize,
}

/// One shard, as it was when it was looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardInfo {
    /// Its device and how that is bound, in a line.
    pub device: String,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
    /// Chunks of its UMEM.
    pub chunks: usize,
    /// Of these, the ones that nothing is in.
    pub free_chunks: usize,
    /// Of these, the ones that the device has; `None` where it does not count them, such as behind made-up faults. All others
    /// hold data of connections.
    pub device_chunks: Option<usize>,
}

/// A neighbour on the link, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NeighbourInfo {
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address, as far as it is known.
    pub mac: Option<MacAddr>,
    /// `reachable`, `stale`, `delay`, `probe`, `incomplete` or `failed`, as `ip neigh` has it.
    pub state: &'static str,
}

impl Stack {
    /// The neighbours that the shards know or have asked for, by address: at most some thousand. Each shard looks after those
    /// that it needs itself; what is told is what the first one says that knows a link-layer address.
    pub fn neighbours(&self) -> Vec<NeighbourInfo> {
        let mut all: BTreeMap<IpAddr, NeighbourInfo> = BTreeMap::new();
        for shard in self.shards() {
            let of_shard: Vec<_> = shard.with(|core, _| core.stack.neighbours().collect());
            for (address, mac, state) in of_shard {
                let known = all.get(&address).is_some_and(|known| known.mac.is_some() || mac.is_none());
                if !known {
                    all.insert(address, NeighbourInfo { address, mac, state });
                }
            }
        }
        all.into_values().collect()
    }

    /// The shards.
    pub fn shard_infos(&self) -> Vec<ShardInfo> {
        let info = |shard: &crate::runtime::Shard| {
            shard.with(|core, _| ShardInfo {
                device: core.device().describe(),
                stopped: core.running().err().map(|why| why.to_string()),
                chunks: core.stack.pool().chunks(),
                free_chunks: core.stack.pool().available(),
                device_chunks: core.chunks_in_device(),
            })
        };
        self.shards().iter().map(|shard| info(shard)).collect()
    }

    /// The listeners: one for each address, however many shards answer for it.
    pub fn listeners(&self) -> Vec<ListenerInfo> {
        let mut all: Vec<ListenerInfo> = Vec::new();
        let mut known = HashMap::new();
        for shard in self.shards() {
            let of_shard: Vec<_> =
                shard.with(|core, _| core.stack.tcp_listeners().map(|(_, info)| info).collect());
            for info in of_shard {
                let at = *known.entry(info.local).or_insert(all.len());
                match all.get_mut(at) {
                    Some(sum) => {
                        sum.half_open += info.half_open;
                        sum.waiting += info.waiting;
                        sum.backlog += info.backlog;
                    }
                    None => all.push(info),
                }
            }
        }
        all
    }

    /// Some of the connections, from where `cursor` is; none are left when that returns `None`. Each call holds one shard's
    /// lock for a bounded time, so that a walk over a million of them disturbs nobody; those that come or go meanwhile are
    /// seen or not.
    pub fn connections(&self, cursor: &mut Cursor) -> Option<Vec<ConnectionInfo>> {
        let shard = self.shards().get(cursor.shard)?;
        let (page, next) = shard.with(|core, _| {
            let (rows, next) = core.stack.tcp_connections_from(cursor.row, PAGE);
            let info = |(_, connection): (_, View<'_>)| ConnectionInfo {
                local: connection.local(),
                remote: connection.remote(),
                tcp: connection.info(),
            };
            (rows.map(info).collect(), next)
        });
        *cursor = match next {
            Some(row) => Cursor { row, ..*cursor },
            None => Cursor { shard: cursor.shard + 1, row: 0 },
        };
        Some(page)
    }

    /// How many connections are in which state. TIME-WAITs that a table answers for are among them. The shards keep count: no
    /// connection is looked at.
    pub fn connection_counts(&self) -> HashMap<State, usize> {
        let mut counts = HashMap::new();
        for shard in self.shards() {
            shard.with(|core, _| {
                core.stack.tcp_state_counts().for_each(|(state, n)| *counts.entry(state).or_default() += n);
            });
        }
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// The connections of which only a TIME-WAIT is left, as [`connections`](Self::connections) gives the others: our end
    /// and the peer's.
    pub fn time_waits(&self, cursor: &mut Cursor) -> Option<Vec<(SocketAddr, SocketAddr)>> {
        let shard = self.shards().get(cursor.shard)?;
        let page: Vec<_> =
            shard.with(|core, _| core.stack.tcp_time_waits().skip(cursor.row).take(PAGE).collect());
        *cursor = match page.len() {
            PAGE => Cursor { row: cursor.row + PAGE, ..*cursor },
            _ => Cursor { shard: cursor.shard + 1, row: 0 },
        };
        Some(page)
    }
}
