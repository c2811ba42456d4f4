//! UDP: sockets by their port, what waits for each, and what is sent (RFC 768, RFC 1122 §4.1).

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use thiserror::Error;

use super::{
    icmp::{ErrorKind, IcmpError},
    link::ip_header_len,
};
use crate::{
    frame::{FramePool, RxFrame, TxFrame},
    rng::Rng,
    telemetry::DropReason,
    wire::{Ecn, udp},
};

/// Ports that a socket without a wish gets (RFC 6335 §6: the dynamic ones; RFC 6056 §3.2 allows more, but those
/// below belong to services).
pub const EPHEMERAL_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// Datagrams that wait for one socket. Fewer, and a burst of answers is lost while the program is busy; more
/// only grows stale, as nobody slows a UDP sender down.
const MAX_QUEUED: usize = 128;

/// Below this part of the pool (a quarter), arriving datagrams are moved to the heap, so that sockets which are not
/// read can't keep the chunks that connections need.
const PRESSURE_DIVISOR: usize = 4;

/// Chunks that sending leaves in the pool: ACKs and ARP need some whatever a program sends.
const SEND_RESERVE: usize = 16;

/// A socket, as long as it is not closed. Never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(u64);

/// The data of a received datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// The view of it in the frame that it came in.
    Frame(RxFrame),
    /// A copy: it came in fragments, or chunks are scarce.
    Heap(Vec<u8>),
}

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were copied.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Which of our addresses it came to.
    pub to: IpAddr,
    /// What routers said of congestion.
    pub ecn: Ecn,
}

/// A datagram to send: header and data written, room left in front of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The frame.
    pub frame: TxFrame,
    /// Our address and port.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
}

/// What the layers below know about the way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Our address on that way.
    pub source: IpAddr,
    /// Bytes to leave for the headers below UDP's.
    pub header_room: usize,
    /// The longest IP datagram.
    pub mtu: u16,
}

/// A socket can't have the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has it.
    #[error("{local} is in use by another socket: choose another port, or 0 for any")]
    InUse {
        /// The address and port that were asked for.
        local: SocketAddr,
    },
    /// All ephemeral ports are taken.
    #[error("all ports of {}-{} are in use: close a socket first", .ports.start(), .ports.end())]
    NoPort {
        /// Where one was looked for.
        ports: &'static RangeInclusive<u16>,
    },
}

/// The network says that a datagram of the socket did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Nobody listens on the port.
    #[error("{remote} refused the datagram: nothing listens there")]
    Refused {
        /// Where the datagram was going.
        remote: SocketAddr,
    },
    /// The host, or the next hop to it, does not answer.
    #[error("{remote} can't be reached: it does not answer, or the gateway to it does not")]
    HostUnreachable {
        /// Where the datagram was going.
        remote: SocketAddr,
    },
    /// No router knows the way.
    #[error("{remote} can't be reached: there is no route to its network")]
    NetUnreachable {
        /// Where the datagram was going.
        remote: SocketAddr,
    },
    /// A firewall is in the way.
    #[error("{remote} can't be reached: a firewall refuses the datagram")]
    Prohibited {
        /// Where the datagram was going.
        remote: SocketAddr,
    },
    /// A link on the way takes less.
    #[error("the datagram is too long for a link on its way to {remote}: send less at once")]
    TooLong {
        /// Where the datagram was going.
        remote: SocketAddr,
        /// The longest IP datagram that the link takes, if the router told.
        mtu: Option<u16>,
    },
}

/// Nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecvError {
    /// No datagram waits; wait until one was delivered.
    #[error("no datagram has come: wait until the socket is readable")]
    WouldBlock,
    /// What was sent did not arrive.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Its address is not ours any more.
    #[error("the socket's address was lost or released: no datagram will come")]
    AddressLost,
    /// There is no such socket.
    #[error("the socket is closed: open another")]
    Closed,
}

/// Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// No frame is free; try again when some were sent.
    #[error("all frames are in use: wait until the socket is writable")]
    WouldBlock,
    /// What was sent before did not arrive.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// We do not fragment (RFC 8085 §3.2).
    #[error("the datagram has {len} bytes and the link takes {max}: send less at once")]
    TooLong {
        /// Bytes to send.
        len: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// Neither the call nor the socket names a destination.
    #[error("the socket is not connected: say where to send, or connect it first")]
    NoDestination,
    /// There is no such socket.
    #[error("the socket is closed: open another")]
    Closed,
}

/// All sockets of a stack.
#[derive(Debug, Default)]
pub struct Sockets {
    sockets: BTreeMap<SocketId, Socket>,
    by_port: BTreeMap<u16, Vec<SocketId>>,
    next_id: u64,
}

#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    /// The only one that datagrams are taken from.
    remote: Option<SocketAddr>,
    /// Where the last datagram went: what an error of an unconnected socket may be about.
    last_destination: Option<SocketAddr>,
    queue: VecDeque<Waiting>,
    error: Option<NetworkError>,
    /// Its address is not ours any more.
    is_lost: bool,
}

/// A datagram that nobody has received yet.
#[derive(Debug)]
struct Waiting {
    payload: Payload,
    from: SocketAddr,
    to: IpAddr,
    ecn: Ecn,
}

impl Sockets {
    /// No sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a socket. Port 0 asks for a random one (RFC 6056 §3.3.1); an unspecified address takes what comes
    /// for any address of ours.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(&mut self, local: SocketAddr, rng: &mut Rng) -> Result<SocketId, BindError> {
        let local = if local.port() == 0 { self.choose_port(local.ip(), rng)? } else { local };
        if self.is_taken(local) {
            return Err(BindError::InUse { local });
        }
        let id = SocketId(self.next_id);
        self.next_id += 1;
        let queue = VecDeque::new();
        let socket =
            Socket { local, remote: None, last_destination: None, queue, error: None, is_lost: false };
        self.sockets.insert(id, socket);
        self.by_port.entry(local.port()).or_default().push(id);
        Ok(id)
    }

    /// Sends to `remote` from now on, and takes datagrams from there only. What waits from others is dropped. A socket on
    /// all addresses moves to `source`. Returns `false` when there is no such socket.
    pub fn connect<P: FramePool>(
        &mut self,
        pool: &mut P,
        id: SocketId,
        remote: SocketAddr,
        source: Option<IpAddr>,
    ) -> bool {
        let Some(socket) = self.sockets.get_mut(&id) else { return false };
        socket.remote = Some(remote);
        if let Some(source) = source.filter(|_| socket.local.ip().is_unspecified()) {
            socket.local.set_ip(source);
        }
        socket.error = None;
        let (kept, others) = socket.queue.drain(..).partition(|waiting| waiting.from == remote);
        socket.queue = kept;
        release_all(pool, others);
        true
    }

    /// Closes a socket; what waits for it is dropped.
    pub fn close<P: FramePool>(&mut self, pool: &mut P, id: SocketId) {
        let Some(socket) = self.sockets.remove(&id) else { return };
        if let Some(ids) = self.by_port.get_mut(&socket.local.port()) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.by_port.remove(&socket.local.port());
            }
        }
        release_all(pool, socket.queue);
    }

    /// The address and port that a socket has.
    pub fn local(&self, id: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&id).map(|socket| socket.local)
    }

    /// Whom a socket is connected to.
    pub fn remote(&self, id: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&id)?.remote
    }

    /// Whether [`recv`](Self::recv) has something to say at once.
    pub fn is_readable(&self, id: SocketId) -> bool {
        self.sockets
            .get(&id)
            .is_none_or(|socket| socket.error.is_some() || socket.is_lost || !socket.queue.is_empty())
    }

    /// The socket that a datagram from `remote` to `local` is for: of several, the one that is the most
    /// particular.
    pub fn lookup(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        let ids = self.by_port.get(&local.port())?;
        let scores =
            ids.iter().filter_map(|&id| Some((self.sockets.get(&id)?.score(local.ip(), remote)?, id)));
        scores.max_by_key(|&(score, _)| score).map(|(_, id)| id)
    }

    /// Puts a datagram from `remote`, that came to our address `to`, at the end of a socket's queue. The payload is kept, or given back to the
    /// pool.
    ///
    /// # Errors
    /// `UdpQueueFull`, `UdpNoSocket`.
    pub fn deliver<P: FramePool>(
        &mut self,
        pool: &mut P,
        id: SocketId,
        remote: SocketAddr,
        to: IpAddr,
        ecn: Ecn,
        payload: Payload,
    ) -> Result<(), DropReason> {
        let Some(socket) = self.sockets.get_mut(&id) else {
            payload.release(pool);
            return Err(DropReason::UdpNoSocket);
        };
        if socket.queue.len() >= MAX_QUEUED {
            payload.release(pool);
            return Err(DropReason::UdpQueueFull);
        }
        let payload = payload.under_pressure(pool);
        socket.queue.push_back(Waiting { payload, from: remote, to, ecn });
        Ok(())
    }

    /// Takes the datagram that waited longest: copies it, or as much as fits, into `buf`.
    ///
    /// # Errors
    /// See [`RecvError`]; an error of the network comes once, before what waits.
    pub fn recv<P: FramePool>(
        &mut self,
        pool: &mut P,
        id: SocketId,
        buf: &mut [u8],
    ) -> Result<Received, RecvError> {
        let socket = self.sockets.get_mut(&id).ok_or(RecvError::Closed)?;
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        let Waiting { payload, from, to, ecn } = socket.queue.pop_front().ok_or(socket.nothing_more())?;
        let len = payload.copy_to(pool, buf);
        payload.release(pool);
        Ok(Received { len, from, to, ecn })
    }

    /// As [`recv`](Self::recv), and the datagram can be received once more.
    ///
    /// # Errors
    /// As there; an error of the network stays, too.
    pub fn peek<P: FramePool>(&self, pool: &P, id: SocketId, buf: &mut [u8]) -> Result<Received, RecvError> {
        let socket = self.sockets.get(&id).ok_or(RecvError::Closed)?;
        if let Some(error) = socket.error {
            return Err(error.into());
        }
        let &Waiting { ref payload, from, to, ecn } = socket.queue.front().ok_or(socket.nothing_more())?;
        Ok(Received { len: payload.copy_to(pool, buf), from, to, ecn })
    }

    /// An address is not ours any more. Returns the sockets that had it, to be woken.
    pub fn lose_address(&mut self, address: IpAddr) -> Vec<SocketId> {
        let of_it = self.sockets.iter_mut().filter(|(_, socket)| socket.local.ip() == address);
        of_it
            .map(|(&id, socket)| {
                socket.is_lost = true;
                id
            })
            .collect()
    }

    /// An address is ours, maybe again.
    pub fn regain_address(&mut self, address: IpAddr) {
        let of_it = self.sockets.values_mut().filter(|socket| socket.local.ip() == address);
        of_it.for_each(|socket| socket.is_lost = false);
    }

    /// Writes a datagram into a frame. A connected socket needs no `destination`.
    ///
    /// # Errors
    /// See [`SendError`]; an error of the network comes once, and nothing is sent then.
    pub fn send<P: FramePool>(
        &mut self,
        pool: &mut P,
        id: SocketId,
        destination: Option<SocketAddr>,
        path: Path,
        data: &[u8],
    ) -> Result<Outgoing, SendError> {
        let socket = self.sockets.get_mut(&id).ok_or(SendError::Closed)?;
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        let destination = destination.or(socket.remote).ok_or(SendError::NoDestination)?;
        let max = path.max_data(pool.tx_frame_capacity());
        if data.len() > max {
            return Err(SendError::TooLong { len: data.len(), max });
        }
        if pool.available() <= SEND_RESERVE {
            return Err(SendError::WouldBlock);
        }
        let local_ip = socket.local.ip();
        let source_ip = if local_ip.is_unspecified() { path.source } else { local_ip };
        let source = SocketAddr::new(source_ip, socket.local.port());
        let end = path.header_room + udp::LEN + data.len();
        let mut frame = pool.allocate_tx(end).ok_or(SendError::WouldBlock)?;
        frame.set_len(end);
        let header = udp::Header { source_port: source.port(), destination_port: destination.port() };
        let header = header.in_front_of(source.ip(), destination.ip(), data);
        pool.tx_write(&mut frame, path.header_room, &header);
        pool.tx_write(&mut frame, path.header_room + udp::LEN, data);
        socket.last_destination = Some(destination);
        Ok(Outgoing { frame, source, destination })
    }

    /// Tells the socket that an ICMP error is about (RFC 1122 §4.1.3.3). Returns it, to be woken.
    ///
    /// # Errors
    /// `IcmpUnmatched` when no socket sent such a datagram last: the error is late, or forged.
    pub fn handle_error(&mut self, error: &IcmpError) -> Result<SocketId, DropReason> {
        let remote = error.remote;
        let failure = match error.kind {
            ErrorKind::PortUnreachable | ErrorKind::ProtocolUnreachable => NetworkError::Refused { remote },
            ErrorKind::HostUnreachable | ErrorKind::TimeExceeded | ErrorKind::ParameterProblem => {
                NetworkError::HostUnreachable { remote }
            }
            ErrorKind::NetUnreachable => NetworkError::NetUnreachable { remote },
            ErrorKind::Prohibited => NetworkError::Prohibited { remote },
            ErrorKind::FragmentationNeeded { mtu } => NetworkError::TooLong { remote, mtu },
        };
        self.fail(error.local, failure).ok_or(DropReason::IcmpUnmatched)
    }

    /// Tells the socket whose datagram from `local` to `remote` could not be sent, because the next hop does not
    /// answer. Returns it, to be woken.
    pub fn handle_no_neighbour(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        self.fail(local, NetworkError::HostUnreachable { remote })
    }

    fn fail(&mut self, local: SocketAddr, error: NetworkError) -> Option<SocketId> {
        let remote = error.remote();
        let id = self.lookup(local, remote)?;
        let socket = self.sockets.get_mut(&id)?;
        if socket.remote.or(socket.last_destination) != Some(remote) {
            return None;
        }
        socket.error = Some(error);
        Some(id)
    }

    fn is_taken(&self, local: SocketAddr) -> bool {
        let overlaps =
            |other: IpAddr| other == local.ip() || other.is_unspecified() || local.ip().is_unspecified();
        let ids = self.by_port.get(&local.port()).map_or(&[][..], Vec::as_slice);
        ids.iter().any(|id| self.sockets.get(id).is_some_and(|socket| overlaps(socket.local.ip())))
    }

    /// RFC 6056 §3.3.1, algorithm 1: a random port, and if it is taken the next one that is not.
    fn choose_port(&self, ip: IpAddr, rng: &mut Rng) -> Result<SocketAddr, BindError> {
        let (first, last) = (*EPHEMERAL_PORTS.start(), *EPHEMERAL_PORTS.end());
        let start = first + rng.below(u64::from(last - first) + 1) as u16;
        let mut candidates = (start..=last).chain(first..start).map(|port| SocketAddr::new(ip, port));
        candidates.find(|&local| !self.is_taken(local)).ok_or(BindError::NoPort { ports: &EPHEMERAL_PORTS })
    }
}

impl Socket {
    /// Why there is no datagram.
    fn nothing_more(&self) -> RecvError {
        if self.is_lost { RecvError::AddressLost } else { RecvError::WouldBlock }
    }

    /// How particular the socket is about a datagram; `None` when it does not want it.
    fn score(&self, local: IpAddr, remote: SocketAddr) -> Option<u8> {
        let mut score = 0;
        if !self.local.ip().is_unspecified() {
            (self.local.ip() == local).then_some(())?;
            score += 1;
        }
        if let Some(only) = self.remote {
            (only == remote).then_some(())?;
            score += 2;
        }
        Some(score)
    }
}

impl NetworkError {
    /// Where the datagram was going.
    pub fn remote(&self) -> SocketAddr {
        match *self {
            Self::Refused { remote }
            | Self::HostUnreachable { remote }
            | Self::NetUnreachable { remote }
            | Self::Prohibited { remote }
            | Self::TooLong { remote, .. } => remote,
        }
    }
}

impl Path {
    /// Bytes of data that a datagram on this path can carry, in a frame of `capacity` bytes.
    fn max_data(&self, capacity: usize) -> usize {
        let link = usize::from(self.mtu).saturating_sub(ip_header_len(self.source));
        link.min(capacity.saturating_sub(self.header_room)).saturating_sub(udp::LEN)
    }
}

impl Payload {
    /// Done with the data.
    pub fn release<P: FramePool>(self, pool: &mut P) {
        if let Self::Frame(frame) = self {
            pool.release_rx(frame);
        }
    }

    fn copy_to<P: FramePool>(&self, pool: &P, buf: &mut [u8]) -> usize {
        match self {
            Self::Frame(frame) => {
                pool.rx_pieces(frame).fold(0, |done, piece| done + copy(piece, &mut buf[done..]))
            }
            Self::Heap(data) => copy(data, buf),
        }
    }

    fn under_pressure<P: FramePool>(self, pool: &mut P) -> Self {
        match self {
            Self::Frame(frame) if pool.available() < pool.chunks() / PRESSURE_DIVISOR => {
                let copy = pool.rx_gather(&frame).into_owned();
                pool.release_rx(frame);
                Self::Heap(copy)
            }
            payload => payload,
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let n = from.len().min(to.len());
    to[..n].copy_from_slice(&from[..n]);
    n
}

fn release_all<P: FramePool>(pool: &mut P, queue: VecDeque<Waiting>) {
    for Waiting { payload, .. } in queue {
        payload.release(pool);
    }
}

#[cfg(test)]
mod tests;
