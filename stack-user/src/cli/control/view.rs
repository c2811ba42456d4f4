//! What is told through the control socket: the daemon makes it, the commands print it, and scripts read it as JSON.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{
    api::{ConnectionInfo, NeighbourInfo, Stack},
    stack::{AddressEvent, ListenerInfo},
    tcp::{Info, State},
    time::Duration,
};

/// The version of what is told. It grows when something has another meaning than before, not when something is added.
pub const VERSION: u32 = 1;

/// Neighbours of an interface that are told. Fewer, and a rack's switch is not told whole; more, and a link that is full of
/// them hides the rest of what is told.
pub const MAX_NEIGHBOURS: usize = 256;

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub api: u32,
    /// The daemon's own version.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

impl Hello {
    /// That it is us.
    pub fn ours() -> Self {
        Self { api: VERSION, version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() }
    }
}

/// All that is told of the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Who tells it.
    #[serde(flatten)]
    pub hello: Hello,
    /// Since it started.
    pub uptime_seconds: f64,
    /// The file that it was configured by.
    pub configuration: String,
    /// Each interface that it runs on.
    pub networks: Vec<Network>,
    /// Forwards, then proxies.
    pub relays: Vec<Relay>,
    /// How many connections are in which state.
    pub connections: Vec<Count>,
    /// Clients of the control socket whose connections go through it.
    pub control_sessions: usize,
    /// Received frames that were dropped, by reason.
    pub drops: Vec<Count>,
    /// Segments that came and went behind another of their connection. An older daemon does not tell.
    #[serde(default)]
    pub followers: Vec<Count>,
    /// The devices' counters.
    pub device: Vec<Count>,
    /// The XDP program's counters.
    pub program: Vec<Count>,
    /// What whoever runs this host should change.
    pub advice: Option<String>,
}

/// A number of something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Of what.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// An interface and what is held there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub interface: String,
    /// The addresses that the daemon holds there.
    pub addresses: Vec<Address>,
    /// Each of its queues, or all of them together.
    pub shards: Vec<Shard>,
    /// Who is known on the link, by address; [`MAX_NEIGHBOURS`] at most.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
}

/// A neighbour on the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address, as far as it is known.
    pub mac: Option<String>,
    /// As `ip neigh` has it: `reachable`, `stale`, `delay`, `probe`, `incomplete` or `failed`.
    pub state: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Which.
    pub address: IpAddr,
    /// `claimed`, `probing`, `leaving`, `refused` or `lost`.
    pub state: String,
}

/// What a shard's frames are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The device and how it is bound.
    pub device: String,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
    /// Frames that it has.
    pub frames: usize,
    /// Of these, the ones that are free.
    pub free_frames: usize,
}

/// A forward or a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// `forward` or `proxy`.
    pub kind: String,
    /// Where it listens.
    pub listening: Vec<String>,
    /// Where it leads.
    pub to: String,
    /// Connections now.
    pub active: u64,
    /// Connections since it was started.
    pub accepted: u64,
    /// Of these, those whose target could not be reached.
    pub failed: u64,
    /// Of these, those that were refused.
    pub refused: u64,
    /// Bytes from clients to targets.
    pub to_target: u64,
    /// Bytes from targets to clients.
    pub to_client: u64,
}

impl Count {
    /// So many of that.
    pub fn new(name: impl Into<String>, count: u64) -> Self {
        Self { name: name.into(), count }
    }
}

/// One line of `xstack connections`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// As ss has it: `ESTAB`, `LISTEN`…
    pub state: String,
    /// Bytes to read; for a listener, connections that wait to be accepted.
    pub recv_q: usize,
    /// Bytes that are not acknowledged; for a listener, how many may wait.
    pub send_q: usize,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: Option<SocketAddr>,
    /// What TCP knows of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub info: Option<TcpInfo>,
}

/// In the manner of Linux's `TCP_INFO`. Times are in milliseconds, rates in bytes per second, the rest in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TcpInfo {
    pub congestion: String,
    pub rto: f64,
    pub rtt: Option<f64>,
    pub rttvar: Option<f64>,
    pub min_rtt: Option<f64>,
    pub mss: usize,
    pub pmtu: usize,
    pub cwnd: usize,
    pub ssthresh: Option<usize>,
    pub pacing_rate: Option<u64>,
    pub delivery_rate: Option<u64>,
    pub send_window: usize,
    pub receive_window: usize,
    pub in_flight: usize,
    pub unsent: usize,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub segments_sent: u64,
    pub segments_received: u64,
    pub retransmissions: u64,
    pub lost: usize,
    pub sacked: usize,
    pub timestamps: bool,
    pub sack: bool,
    pub ecn: bool,
    pub window_scale: (u8, u8),
}

// What is told is compared in tests only, and there is no NaN among it.
impl Eq for TcpInfo {}

impl From<&Info> for TcpInfo {
    fn from(info: &Info) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            congestion: info.congestion.to_owned(),
            rto: ms(info.rto),
            rtt: info.srtt.map(ms),
            rttvar: info.rttvar.map(ms),
            min_rtt: info.min_rtt.map(ms),
            mss: info.mss,
            pmtu: info.path_mtu,
            cwnd: info.cwnd,
            ssthresh: (info.ssthresh != usize::MAX).then_some(info.ssthresh),
            pacing_rate: info.pacing_rate,
            delivery_rate: info.delivery_rate,
            send_window: info.send_window,
            receive_window: info.receive_window,
            in_flight: info.in_flight,
            unsent: info.unsent,
            bytes_acked: info.bytes_acked,
            bytes_received: info.bytes_received,
            segments_sent: info.segments_sent,
            segments_received: info.segments_received,
            retransmissions: info.retransmissions,
            lost: info.lost,
            sacked: info.sacked,
            timestamps: info.timestamps,
            sack: info.sack,
            ecn: info.ecn,
            window_scale: info.window_shifts,
        }
    }
}

impl Socket {
    /// A connection.
    pub fn connection(connection: &ConnectionInfo, with_info: bool) -> Self {
        let info = &connection.tcp;
        Self {
            state: state_name(info.state).to_owned(),
            recv_q: info.readable,
            send_q: info.unacknowledged,
            local: connection.local,
            peer: Some(connection.remote),
            info: with_info.then(|| info.into()),
        }
    }

    /// A listener.
    pub fn listener(listener: &ListenerInfo) -> Self {
        Self {
            state: LISTEN.to_owned(),
            recv_q: listener.waiting,
            send_q: listener.backlog,
            local: listener.local,
            peer: None,
            info: None,
        }
    }

    /// A connection that is finished.
    pub fn time_wait(local: SocketAddr, peer: SocketAddr) -> Self {
        let state = state_name(State::TimeWait).to_owned();
        Self { state, recv_q: 0, send_q: 0, local, peer: Some(peer), info: None }
    }
}

/// A listener's state.
pub const LISTEN: &str = "LISTEN";

/// The states as ss names them.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::SynSent => "SYN-SENT",
        State::SynReceived => "SYN-RECV",
        State::Established => "ESTAB",
        State::FinWait1 => "FIN-WAIT-1",
        State::FinWait2 => "FIN-WAIT-2",
        State::CloseWait => "CLOSE-WAIT",
        State::Closing => "CLOSING",
        State::LastAck => "LAST-ACK",
        State::TimeWait => "TIME-WAIT",
        State::Closed => "UNCONN",
    }
}

/// The listeners of all stacks: what listens on all addresses is one, as with the shards of one stack.
pub fn listeners(stacks: &[Stack]) -> Vec<ListenerInfo> {
    let mut all: Vec<ListenerInfo> = Vec::new();
    let mut known = HashMap::new();
    for listener in stacks.iter().flat_map(Stack::listeners) {
        let at = *known.entry(listener.local).or_insert(all.len());
        match all.get_mut(at) {
            Some(sum) => {
                sum.half_open += listener.half_open;
                sum.waiting += listener.waiting;
                sum.backlog += listener.backlog;
            }
            None => all.push(listener),
        }
    }
    all
}

impl Status {
    /// What stacks tell of themselves, each with the name of its interface. Who runs them fills in the rest.
    pub fn of(interfaces: &[String], stacks: &[Stack]) -> Self {
        let mut connections = summed(stacks, |stack| {
            stack.connection_counts().into_iter().map(|(state, n)| (state_name(state), n as u64)).collect()
        });
        connections.push(Count::new(LISTEN, listeners(stacks).len() as u64));
        connections.sort_by(|a, b| a.name.cmp(&b.name));
        let networks = interfaces.iter().zip(stacks).map(|(interface, stack)| Network::of(interface, stack));
        let mut advice: Vec<_> = stacks.iter().filter_map(Stack::advice).collect();
        advice.dedup();
        Self {
            hello: Hello::ours(),
            uptime_seconds: 0.0,
            configuration: String::new(),
            networks: networks.collect(),
            relays: Vec::new(),
            connections,
            control_sessions: 0,
            drops: summed(stacks, |stack| {
                stack.drops().iter().map(|(reason, n)| (reason.name(), n)).collect()
            }),
            followers: summed(stacks, |stack| {
                let followers = stack.followers();
                vec![("received", followers.taken_in), ("sent", followers.sent)]
            }),
            device: summed(stacks, |stack| stack.device_counters().unwrap_or_default()),
            program: summed(stacks, |stack| stack.program_counters().unwrap_or_default()),
            advice: Some(advice.join("; ")).filter(|advice| !advice.is_empty()),
        }
    }
}

impl Network {
    fn of(interface: &str, stack: &Stack) -> Self {
        let address = |(address, event)| Address { address, state: claim_name(event).to_owned() };
        let shard = |info: crate::api::ShardInfo| Shard {
            device: info.device,
            stopped: info.stopped,
            frames: info.chunks,
            free_frames: info.free_chunks,
        };
        let neighbour = |info: NeighbourInfo| Neighbour {
            address: info.address,
            mac: info.mac.map(|mac| mac.to_string()),
            state: info.state.to_owned(),
        };
        Self {
            interface: interface.to_owned(),
            addresses: stack.address_states().into_iter().map(address).collect(),
            shards: stack.shard_infos().into_iter().map(shard).collect(),
            neighbours: stack.neighbours().into_iter().take(MAX_NEIGHBOURS).map(neighbour).collect(),
        }
    }
}

/// How a claim stands, in a word.
fn claim_name(event: AddressEvent) -> &'static str {
    match event {
        AddressEvent::Probing => "probing",
        AddressEvent::Claimed => "claimed",
        AddressEvent::Leaving => "leaving",
        AddressEvent::Refused { .. } => "refused",
        AddressEvent::Lost { .. } => "lost",
    }
}

/// What each stack counts, together, in the order in which it is first told.
fn summed(stacks: &[Stack], counts: impl Fn(&Stack) -> Vec<(&'static str, u64)>) -> Vec<Count> {
    let mut sums: Vec<Count> = Vec::new();
    for (name, n) in stacks.iter().flat_map(counts) {
        match sums.iter_mut().find(|sum| sum.name == name) {
            Some(sum) => sum.count += n,
            None => sums.push(Count::new(name, n)),
        }
    }
    sums
}
