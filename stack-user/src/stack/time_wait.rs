//! Connections in TIME-WAIT, by flow, the oldest first.
//!
//! All of them last equally long, so a list in the order of their ends needs no timer for each.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use slab::Slab;

use super::{
    demux::{Flow, Keyed},
    siblings::Membership,
};
use crate::{
    rng::Rng,
    tcp::TimeWait,
    time::{Duration, Instant},
};

/// Connections in TIME-WAIT at once; one more, and the oldest leaves early. Fewer, and a busy server forgets them while
/// old segments may be under way (at 1000 connections a second this is a minute's worth); more, and they take more than
/// the 10 MB that these may take.
const MAX_TIME_WAIT: usize = 1 << 16;

/// A flow may be used again after that long, when timestamps tell both apart: their clock must have moved on, and the
/// peer's may tick once in a second (RFC 7323 §5.4).
const MIN_REUSE: Duration = Duration::from_secs(1);

/// The end of the list.
const NIL: u32 = u32::MAX;

/// All of a stack's.
#[derive(Debug)]
pub(super) struct TimeWaits {
    rows: Slab<Row>,
    by_flow: HashMap<Compact, u32, Keyed>,
    oldest: u32,
    latest: u32,
    limit: usize,
    siblings: Option<Membership>,
}

#[derive(Debug)]
struct Row {
    entry: TimeWait,
    flow: Compact,
    since: Instant,
    /// Until when.
    deadline: Instant,
    older: u32,
    later: u32,
}

/// A flow without what TCP doesn't look at (flow labels, scopes), in little more than half the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Compact {
    local: IpAddr,
    remote: IpAddr,
    ports: (u16, u16),
}

impl From<&Flow> for Compact {
    fn from(flow: &Flow) -> Self {
        let &Flow { local, remote } = flow;
        Self { local: local.ip(), remote: remote.ip(), ports: (local.port(), remote.port()) }
    }
}

impl From<Compact> for Flow {
    fn from(Compact { local, remote, ports }: Compact) -> Self {
        Self { local: SocketAddr::new(local, ports.0), remote: SocketAddr::new(remote, ports.1) }
    }
}

impl TimeWaits {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let by_flow = HashMap::with_hasher(Keyed::new(rng));
        Self { rows: Slab::new(), by_flow, oldest: NIL, latest: NIL, limit: MAX_TIME_WAIT, siblings: None }
    }

    /// Others are told of what comes in from now on.
    pub(super) fn join(&mut self, siblings: &Membership) {
        self.siblings = Some(siblings.clone());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn insert(&mut self, now: Instant, flow: &Flow, entry: TimeWait, lasts: Duration) {
        self.remove(flow);
        if self.rows.len() >= self.limit {
            self.remove_row(self.oldest);
        }
        if let Some(siblings) = &self.siblings {
            let _reserved = siblings.enter(flow);
        }
        let flow = Compact::from(flow);
        let row = Row { entry, flow, since: now, deadline: now + lasts, older: NIL, later: NIL };
        let key = self.rows.insert(row) as u32;
        self.by_flow.insert(flow, key);
        self.link(key);
    }

    pub(super) fn get(&self, flow: &Flow) -> Option<&TimeWait> {
        self.row(flow).map(|row| &row.entry)
    }

    /// Whether our side may use the flow for another connection.
    pub(super) fn may_be_reused(&self, now: Instant, flow: &Flow) -> bool {
        self.row(flow).is_none_or(|row| row.entry.may_be_reused() && now.since(row.since) > MIN_REUSE)
    }

    /// 2 MSL start again.
    pub(super) fn refresh(&mut self, now: Instant, flow: &Flow) {
        let Some(&key) = self.by_flow.get(&Compact::from(flow)) else { return };
        self.unlink(key);
        if let Some(row) = self.rows.get_mut(key as usize) {
            row.deadline = now + (row.deadline - row.since);
            row.since = now;
        }
        self.link(key);
    }

    pub(super) fn remove(&mut self, flow: &Flow) -> Option<TimeWait> {
        let key = *self.by_flow.get(&Compact::from(flow))?;
        self.remove_row(key)
    }

    /// Those of an address that is not ours any more.
    pub(super) fn forget(&mut self, local: IpAddr) {
        let of_it: Vec<_> =
            self.rows.iter().filter(|(_, row)| row.flow.local == local).map(|(key, _)| key).collect();
        for key in of_it {
            self.remove_row(key as u32);
        }
    }

    pub(super) fn clear(&mut self) {
        while self.remove_row(self.oldest).is_some() {}
    }

    /// Every flow, for statistics.
    pub(super) fn flows(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.rows.iter().map(|(_, row)| {
            let Flow { local, remote } = row.flow.into();
            (local, remote)
        })
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            self.remove_row(self.oldest);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.rows.get(self.oldest as usize).map(|row| row.deadline)
    }

    fn row(&self, flow: &Flow) -> Option<&Row> {
        self.by_flow.get(&Compact::from(flow)).and_then(|&key| self.rows.get(key as usize))
    }

    fn remove_row(&mut self, key: u32) -> Option<TimeWait> {
        self.unlink(key);
        let row = self.rows.try_remove(key as usize)?;
        self.by_flow.remove(&row.flow);
        if let Some(siblings) = &self.siblings {
            siblings.leave(&row.flow.into());
        }
        Some(row.entry)
    }

    /// Puts a row at the list's end: none ends later, unless the configuration was changed, and then it waits for those
    /// before it.
    fn link(&mut self, key: u32) {
        let before = std::mem::replace(&mut self.latest, key);
        match self.rows.get_mut(before as usize) {
            Some(row) => row.later = key,
            None => self.oldest = key,
        }
        if let Some(row) = self.rows.get_mut(key as usize) {
            (row.older, row.later) = (before, NIL);
        }
    }

    fn unlink(&mut self, key: u32) {
        let Some(&Row { older, later, .. }) = self.rows.get(key as usize) else { return };
        match self.rows.get_mut(older as usize) {
            Some(row) => row.later = later,
            None => self.oldest = later,
        }
        match self.rows.get_mut(later as usize) {
            Some(row) => row.older = older,
            None => self.latest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Connection;

    fn flow(port: u16) -> Flow {
        Flow { local: ([192, 0, 2, 1], 80).into(), remote: ([192, 0, 2, 2], port).into() }
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    const LASTS: Duration = Duration::from_millis(100);

    fn table(limit: usize) -> TimeWaits {
        TimeWaits { limit, ..TimeWaits::new(&mut Rng::from_seed(1)) }
    }

    fn entry() -> TimeWait {
        TimeWait::for_tests()
    }

    #[test]
    fn the_oldest_leave_in_time_and_a_refreshed_one_later() {
        let mut table = table(10);
        for port in 1..=3 {
            table.insert(ms(port.into()), &flow(port), entry(), LASTS);
        }
        table.refresh(ms(50), &flow(1));
        assert_eq!(table.poll_timeout(), Some(ms(102)));
        table.handle_timeout(ms(102));
        assert!(table.get(&flow(2)).is_none() && table.get(&flow(3)).is_some());
        table.handle_timeout(ms(149));
        assert_eq!(table.rows.len(), 1);
        assert_eq!(table.poll_timeout(), Some(ms(150)));
        table.handle_timeout(ms(150));
        assert_eq!((table.rows.len(), table.poll_timeout()), (0, None));
    }

    #[test]
    fn there_are_never_more_than_the_limit_and_the_oldest_makes_room() {
        let mut table = table(3);
        for port in 1..=5 {
            table.insert(ms(0), &flow(port), entry(), LASTS);
        }
        assert_eq!(table.rows.len(), 3);
        assert!(table.get(&flow(2)).is_none() && table.get(&flow(3)).is_some());
        table.insert(ms(1), &flow(3), entry(), LASTS);
        assert_eq!(table.rows.len(), 3, "a flow has one");
        assert!(table.remove(&flow(4)).is_some() && table.remove(&flow(4)).is_none());
        assert_eq!(table.flows().count(), 2);
        table.clear();
        assert_eq!(table.poll_timeout(), None);
    }

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 88, "{}", size_of::<Row>());
        let connection = size_of::<Connection>();
        assert!(connection > 8 * size_of::<Row>(), "{connection}");
    }
}
