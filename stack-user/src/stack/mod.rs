//! One shard's protocol world: sans-IO, on whatever time it is told.
//!
//! A [`Stack`] owns the frames of one UMEM and everything that TCP/IP has to remember. It is driven from outside:
//!
//! | call | when |
//! |---|---|
//! | [`handle_frame`](Stack::handle_frame) or [`handle_burst`](Stack::handle_burst) | a frame came, or several |
//! | [`handle_completion`](Stack::handle_completion), [`handle_completions`](Stack::handle_completions) | a frame went, or several |
//! | [`handle_timeout`](Stack::handle_timeout) | the time of [`poll_timeout`](Stack::poll_timeout) has come |
//! | [`transmit`](Stack::transmit) | after any of these, and after an application's call, until there is room left |
//! | [`poll_event`](Stack::poll_event) | likewise: who can go on now |
//! | [`poll_trace`](Stack::poll_trace) | likewise, if [`tcp_trace`](Stack::tcp_trace) asked: what happened in TCP, and why |
//!
//! It never blocks, reads no clock, and draws its randomness from the generator that it was given. [`ingress`] and
//! [`egress`] hold the two journeys of a frame; [`tcp`], [`passive`] and [`udp`] the verbs that applications call.
#![forbid(unsafe_code)]

mod address;
mod addresses;
mod connect;
mod connections;
mod demux;
mod egress;
mod event;
mod followers;
mod gro;
mod half_open;
mod handover;
mod held_acks;
mod icmp;
mod ingress;
mod listeners;
mod look_ahead;
mod passive;
mod siblings;
mod tcp;
#[cfg(test)]
mod tests;
mod time_wait;
mod timers;
mod trace;
mod udp;

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use addresses::Addresses;
pub use addresses::{AddressEvent, ClaimError, MAX_ADDRESSES};
pub use connect::ConnectError;
use connections::Connections;
use egress::Owner;
pub use event::{Event, ListenerId, TcpId, UdpId};
pub use followers::Followers;
use gro::Gro;
use half_open::SynQueue;
pub use handover::{HandOvers, unite};
use listeners::Listeners;
pub use listeners::MAX_BACKLOG;
pub use passive::{ListenError, ListenerInfo};
pub use tcp::TcpCounts;
use time_wait::TimeWaits;
pub use udp::{UdpBindError, UdpSendError};

use crate::{
    frame::{FramePool, RxFrame},
    net::{icmp::Responder, link::Link, neighbour, reassembly, rss::Rss, udp::Sockets},
    rng::Rng,
    tcp::{EphemeralPorts, SecretKey},
    telemetry::{DropCounters, DropReason},
    time::Instant,
    wire::MacAddr,
};

/// A TCP/IP stack on one link.
#[derive(Debug)]
pub struct Stack<P> {
    pool: P,
    link: Link,
    addresses: Addresses,
    neighbours: neighbour::Cache,
    fragments: reassembly::Reassembler,
    icmp: Responder,
    udp: Sockets,
    connections: Connections,
    listeners: Listeners,
    half_open: SynQueue,
    time_waits: TimeWaits,
    ports: EphemeralPorts,
    secret: SecretKey,
    tcp_config: crate::tcp::Config,
    limits: tcp::Limits,
    /// Frames that are ready: answers to others, and datagrams.
    outgoing: VecDeque<crate::frame::TxFrame>,
    /// Who wants a chunk back that is on the TX ring, by chunk.
    owners: Box<[Option<Owner>]>,
    events: VecDeque<Event>,
    drops: DropCounters,
    rng: Rng,
    /// The other shards; none if there are none, and then nothing of all that costs anything.
    siblings: Option<siblings::Membership>,
    /// Room for what they pass on.
    letters: siblings::Letters,
    /// What is handled just now was passed on, and stays.
    takes_in: bool,
    gro: Gro,
    followers: Followers,
    hand_overs: HandOvers,
    /// How the NIC spreads segments over its queues, and which of them is ours.
    placement: Option<(Arc<Rss>, u32)>,
}

impl<P: FramePool> Stack<P> {
    /// A stack without an address, on the interface `mac`; frames carry the tag of `vlan` if there is one.
    pub fn new(now: Instant, mac: MacAddr, vlan: Option<u16>, pool: P, mut rng: Rng) -> Self {
        let chunks = pool.chunks();
        Self {
            link: Link { mac, vlan },
            addresses: Addresses::default(),
            neighbours: neighbour::Cache::new(),
            fragments: reassembly::Reassembler::new(),
            icmp: Responder::new(rng.fork()),
            udp: Sockets::new(),
            connections: Connections::new(now, &mut rng),
            listeners: Listeners::default(),
            half_open: SynQueue::new(now, &mut rng),
            time_waits: TimeWaits::new(&mut rng),
            ports: EphemeralPorts::new(&mut rng),
            secret: SecretKey::new(&mut rng),
            tcp_config: crate::tcp::Config::default(),
            limits: tcp::Limits::new(rng.fork()),
            outgoing: VecDeque::new(),
            owners: vec![None; chunks].into_boxed_slice(),
            events: VecDeque::new(),
            drops: DropCounters::default(),
            pool,
            rng,
            siblings: None,
            letters: siblings::Letters::default(),
            takes_in: false,
            gro: Gro::default(),
            followers: Followers::default(),
            hand_overs: HandOvers::default(),
            placement: None,
        }
    }

    /// Lets time pass: does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.addresses.handle_timeout(now) {
            self.handle_claim_events(now);
        }
        if self.neighbours.poll_timeout().is_some_and(|at| at <= now) {
            self.neighbours.handle_timeout(now);
        }
        self.handle_fragment_timeout(now);
        self.handle_half_open_timeout(now);
        self.time_waits.handle_timeout(now);
        self.connections.release_held(now);
        while let Some(id) = self.connections.pop_due(now) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.handle_timeout(now, &mut self.pool);
            let ends = (connection.local().ip(), connection.remote().ip());
            let suspected = connection.take_suspicion().then_some(ends);
            self.connections.worked_on(id, &mut self.pool, &mut self.events);
            if let Some((local, peer)) = suspected {
                self.suspect_neighbour(now, local, peer);
            }
        }
    }

    /// When something is due, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.addresses.poll_timeout(),
            self.neighbours.poll_timeout(),
            self.fragments.poll_timeout(),
            self.connections.poll_timeout(),
            self.half_open.poll_timeout(),
            self.time_waits.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing that somebody may wait for.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What connections are opened with from now on. `header_room` and `mss` follow from the link, whatever stands there.
    pub fn set_tcp_config(&mut self, config: crate::tcp::Config) {
        self.tcp_config = config;
    }

    /// Continues the sequence numbers and timestamps of an earlier life, which had this key and a clock that was behind
    /// ours: to be called before there is a connection.
    pub fn set_secret(&mut self, key: SecretKey) {
        self.secret = key;
    }

    /// Has connections choose ports whose answers come to this `queue` of the NIC, as far as it is one that any come to.
    pub fn place(&mut self, rss: Arc<Rss>, queue: u32) {
        self.placement = rss.uses(queue).then_some((rss, queue));
    }

    /// How connections are configured unless they are configured otherwise.
    pub fn default_tcp_config(&self) -> &crate::tcp::Config {
        &self.tcp_config
    }

    /// The frames.
    pub fn pool(&self) -> &P {
        &self.pool
    }

    /// The frames, for the device.
    pub fn pool_mut(&mut self) -> &mut P {
        &mut self.pool
    }

    /// Our link-layer address.
    pub fn mac(&self) -> MacAddr {
        self.link.mac
    }

    /// How many frames were dropped, and why.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// The link-layer address of a neighbour, if it is known.
    pub fn neighbour(&self, ip: IpAddr) -> Option<MacAddr> {
        self.neighbours.peek(ip)
    }

    /// All neighbours that were asked for: see [`Cache::entries`](neighbour::Cache::entries).
    pub fn neighbours(&self) -> impl Iterator<Item = (IpAddr, Option<MacAddr>, &'static str)> {
        self.neighbours.entries()
    }

    /// Finds out the gateways' link-layer addresses before anybody waits for them.
    pub fn find_gateway(&mut self, now: Instant) {
        let Self { addresses, neighbours, .. } = self;
        for route in addresses.routes().iter() {
            if let Some(gateway) = route.gateway() {
                neighbours.lookup(now, route.address(), gateway);
            }
        }
    }

    /// The configuration of a connection from our address. The MSS is what the link carries in one piece (RFC 9293
    /// §3.7.1, MUST-67): what routers had to cut is put together, but nobody shall count on it.
    fn tcp_config(&self, chosen: Option<&crate::tcp::Config>, local: IpAddr, mtu: u16) -> crate::tcp::Config {
        let room = self.link.header_room(local);
        let ip_header = (room - self.link.ethernet_len()) as u16;
        let mss = mtu.saturating_sub(ip_header + crate::wire::tcp::Header::LEN as u16);
        crate::tcp::Config { header_room: room, mss, ..chosen.unwrap_or(&self.tcp_config).clone() }
    }

    /// Counts a received frame that is of no use, and gives it back.
    fn drop_received(&mut self, frame: RxFrame, reason: DropReason) {
        self.drops.count(reason);
        self.pool.release_rx(frame);
    }
}
