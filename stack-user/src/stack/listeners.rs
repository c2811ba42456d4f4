//! Listeners, and the connections that wait to be accepted.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use slab::Slab;

use super::{ListenerId, ListenerInfo, TcpId};
use crate::{tcp::Config, time::Instant};

/// Who listens on which address.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    rows: Slab<Listener>,
    by_address: HashMap<SocketAddr, u32>,
    /// How many listeners there are at a port.
    ports: HashMap<(bool, u16), usize>,
    generation: u32,
}

/// A passive open without a foreign socket (RFC 9293 §3.10.1).
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: SocketAddr,
    generation: u32,
    /// Connections that may wait in `established`.
    backlog: usize,
    /// What its connections are configured as, if not as the stack's others.
    pub(super) config: Option<Box<Config>>,
    /// The accept queue: established, and nobody has taken them yet.
    established: VecDeque<TcpId>,
    /// How many half-open connections are this listener's.
    pub(super) half_open: usize,
    /// Until when an ACK may bring back a SYN cookie.
    pub(super) cookies_until: Instant,
}

/// What a listener may ask for at most. More, and the frames that unaccepted connections hold starve the others.
pub const MAX_BACKLOG: usize = 4096;

/// Half-open connections that a listener may have at least, however short its accept queue: they take little memory, and
/// a round trip each.
const MIN_SYN_QUEUE: usize = 64;

impl Listener {
    /// Whether the accept queue takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.established.len() >= self.backlog
    }

    /// Whether the SYN queue takes no more.
    pub(super) fn syn_queue_is_full(&self) -> bool {
        self.half_open >= self.backlog.max(MIN_SYN_QUEUE)
    }

    /// The handshake of a connection is complete.
    pub(super) fn push(&mut self, id: TcpId) {
        self.established.push_back(id);
    }

    pub(super) fn info(&self) -> ListenerInfo {
        let Self { local, half_open, backlog, .. } = *self;
        ListenerInfo { local, half_open, waiting: self.established.len(), backlog }
    }

    /// The connection that has waited longest.
    pub(super) fn pop(&mut self) -> Option<TcpId> {
        self.established.pop_front()
    }
}

impl Listeners {
    /// Adds a listener, or returns `None` if there is one that it could not be told from.
    pub(super) fn insert(
        &mut self,
        local: SocketAddr,
        backlog: usize,
        config: Option<Config>,
    ) -> Option<ListenerId> {
        if self.conflicts(local) {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let backlog = backlog.clamp(1, MAX_BACKLOG);
        let listener = Listener {
            local,
            generation,
            backlog,
            config: config.map(Box::new),
            established: VecDeque::new(),
            half_open: 0,
            cookies_until: Instant::ZERO,
        };
        let row = self.rows.insert(listener) as u32;
        self.by_address.insert(local, row);
        *self.ports.entry(port(local)).or_default() += 1;
        Some(ListenerId { row, generation })
    }

    /// As other systems have it, an address and all addresses of its family can't be listened on at one port: whoever
    /// came second would take connections from the first.
    pub(super) fn conflicts(&self, local: SocketAddr) -> bool {
        if local.ip().is_unspecified() {
            self.ports.contains_key(&port(local))
        } else {
            self.find(local).is_some()
        }
    }

    /// Who listens on an address: on just that, or on all (RFC 9293 §3.9.1.1).
    pub(super) fn find(&self, local: SocketAddr) -> Option<ListenerId> {
        let any = SocketAddr::new(unspecified(local.ip()), local.port());
        let row = *self.by_address.get(&local).or_else(|| self.by_address.get(&any))?;
        let generation = self.rows.get(row as usize)?.generation;
        Some(ListenerId { row, generation })
    }

    pub(super) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.rows.get(id.row as usize).filter(|listener| listener.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.rows.get_mut(id.row as usize).filter(|listener| listener.generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        self.get(id)?;
        let listener = self.rows.remove(id.row as usize);
        self.by_address.remove(&listener.local);
        if let Entry::Occupied(mut count) = self.ports.entry(port(listener.local)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(listener)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        let id = |row: usize, generation| ListenerId { row: row as u32, generation };
        self.rows.iter().map(move |(row, listener)| (id(row, listener.generation), listener))
    }
}

/// A port of a family.
fn port(local: SocketAddr) -> (bool, u16) {
    (local.is_ipv4(), local.port())
}

/// All addresses of a family.
pub(super) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
