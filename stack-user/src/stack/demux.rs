//! From a segment's addresses and ports to its connection, in O(1).

use std::{collections::HashMap, hash::BuildHasher, net::SocketAddr};

use siphasher::sip::SipHasher13;

use super::{TcpId, siblings::Membership};
use crate::rng::Rng;

/// The connections by their four-tuple.
///
/// The hash is keyed: a peer that chooses its ports can't make entries collide.
#[derive(Debug)]
pub(super) struct Demux {
    flows: HashMap<Flow, TcpId, Keyed>,
    siblings: Option<Membership>,
}

/// What TCP knows a connection by (RFC 9293 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

impl Demux {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { flows: HashMap::with_hasher(Keyed::new(rng)), siblings: None }
    }

    /// Others are told of what comes in from now on.
    pub(super) fn join(&mut self, siblings: &Membership) {
        self.siblings = Some(siblings.clone());
    }

    pub(super) fn find(&self, flow: &Flow) -> Option<TcpId> {
        self.flows.get(flow).copied()
    }

    pub(super) fn contains(&self, flow: &Flow) -> bool {
        self.flows.contains_key(flow)
    }

    pub(super) fn insert(&mut self, flow: Flow, id: TcpId) {
        let is_new = self.flows.insert(flow, id).is_none();
        if let Some(siblings) = self.siblings.as_ref().filter(|_| is_new) {
            let _reserved = siblings.enter(&flow);
        }
    }

    /// Forgets a flow, unless it has become another connection's.
    pub(super) fn remove(&mut self, flow: &Flow, id: TcpId) {
        if self.find(flow) == Some(id) {
            self.flows.remove(flow);
            if let Some(siblings) = &self.siblings {
                siblings.leave(flow);
            }
        }
    }
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
