//! The SYN queue: half-open connections of all listeners, by flow, with their timers.

use std::{collections::HashMap, net::IpAddr};

use slab::Slab;

use super::{
    ListenerId,
    demux::{Flow, Keyed},
    egress::Sender,
    siblings::Membership,
    timers::TimerWheel,
};
use crate::{rng::Rng, tcp::HalfOpen, time::Instant};

/// Half-open connections of all listeners together. Fewer, and a burst of clients over a slow path is turned away; more,
/// and a flood of forged SYNs makes us remember more of them (about 200 bytes each).
const MAX_HALF_OPEN: usize = 8192;

/// All half-open connections of a stack.
#[derive(Debug)]
pub(super) struct SynQueue {
    rows: Slab<Row>,
    by_flow: HashMap<Flow, u32, Keyed>,
    timers: TimerWheel,
    limit: usize,
    siblings: Option<Membership>,
}

/// A SYN, and where it came from.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) half_open: HalfOpen,
    pub(super) flow: Flow,
    pub(super) listener: ListenerId,
    /// Who is answered. Neighbours are not looked up for a SYN, which may be forged.
    pub(super) sender: Sender,
}

impl SynQueue {
    pub(super) fn new(now: Instant, rng: &mut Rng) -> Self {
        Self {
            rows: Slab::new(),
            by_flow: HashMap::with_hasher(Keyed::new(rng)),
            timers: TimerWheel::new(now),
            limit: MAX_HALF_OPEN,
            siblings: None,
        }
    }

    /// Others are told of what comes in from now on.
    pub(super) fn join(&mut self, siblings: &Membership) {
        self.siblings = Some(siblings.clone());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no room for another.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= self.limit
    }

    /// Another bound than the usual one, which is returned.
    #[cfg(test)]
    pub(super) fn set_limit(&mut self, limit: usize) -> usize {
        std::mem::replace(&mut self.limit, limit)
    }

    pub(super) fn insert(&mut self, row: Row) -> usize {
        let flow = row.flow;
        let key = self.rows.insert(row);
        self.by_flow.insert(flow, key as u32);
        if let Some(siblings) = &self.siblings {
            let _reserved = siblings.enter(&flow);
        }
        key
    }

    pub(super) fn find(&self, flow: &Flow) -> Option<usize> {
        self.by_flow.get(flow).map(|&key| key as usize)
    }

    pub(super) fn get(&self, key: usize) -> Option<&Row> {
        self.rows.get(key)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Row> {
        self.rows.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<Row> {
        let row = self.rows.try_remove(key)?;
        self.by_flow.remove(&row.flow);
        if let Some(siblings) = &self.siblings {
            siblings.leave(&row.flow);
        }
        self.timers.cancel(key);
        Some(row)
    }

    /// The half-open connections of one listener, or of all.
    pub(super) fn keys(&self, listener: Option<ListenerId>) -> Vec<usize> {
        let of_listener = |row: &Row| listener.is_none_or(|id| row.listener == id);
        self.rows.iter().filter(|(_, row)| of_listener(row)).map(|(key, _)| key).collect()
    }

    /// Those to one address of ours.
    pub(super) fn keys_at(&self, local: IpAddr) -> Vec<usize> {
        self.rows.iter().filter(|(_, row)| row.flow.local.ip() == local).map(|(key, _)| key).collect()
    }

    pub(super) fn arm(&mut self, key: usize, deadline: Instant) {
        self.timers.arm(key, deadline);
    }

    /// One whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        self.timers.pop_due(now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.poll_timeout()
    }
}
