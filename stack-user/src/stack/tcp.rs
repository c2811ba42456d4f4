//! What applications ask of TCP, and segments on their way to their connections.

use std::net::{IpAddr, SocketAddr};

use super::{Stack, TcpId, demux::Flow, egress::Sender};
use crate::{
    frame::{FramePool, RxFrame},
    net::token_bucket::{TokenBucket, UncertainLimit},
    rng::Rng,
    tcp::{
        self, Connection, Reserved, SeqNumber, State, Unreachable, View, ack::ChallengeBudget,
        payload::Payload, segment::Segment,
    },
    time::{Duration, Instant},
};

/// Resets that answer segments for no connection: 1000 a second, some 100 at once. Lower, and peers of connections that we
/// have forgotten keep trying for longer; higher, and a flood of such segments takes the TX ring from connections, and
/// with forged sources reaches whom it is meant for.
const RESETS: TokenBucket = TokenBucket::new(Duration::from_micros(500), 200);

/// Tokens that a reset takes at most; two on average, as many as come in a millisecond.
const MAX_RESET_PRICE: u32 = 3;

/// Bytes that wait on the heap, of all connections (what `tcp_mem` is to Linux). Frames are bounded by their pool; what is
/// copied out of small ones, or when they are scarce, only by the window of each connection. Lower, and many slow readers at
/// once lose what came for them; higher, and peers who send what nobody can read have so much memory to fill: this is four
/// times a queue's frames.
const MAX_MEMORY: usize = 64 << 20;

/// Connections that their application has closed, and that wait for the peer to take in the rest (what `tcp_max_orphans` is
/// to Linux). Fewer, and a server that closes many at once resets some which would have ended in order; more, and peers who
/// never answer keep more of them, at 2.5 kB each, for as long as the user timeout lasts.
const MAX_ORPHANS: usize = 16_384;

/// What others can make us say, and keep, at most.
#[derive(Debug)]
pub(super) struct Limits {
    /// ACKs that segments provoke which are not acceptable.
    pub(super) challenges: ChallengeBudget,
    /// Resets that answer segments for no connection.
    pub(super) resets: UncertainLimit,
    /// Bytes that all connections may copy, so that they wait without a frame.
    pub(super) memory: usize,
    /// Connections that nobody has any more and whose peers have not taken all.
    pub(super) orphans: usize,
}

impl Limits {
    pub(super) fn new(mut rng: Rng) -> Self {
        let resets = UncertainLimit::new(RESETS, MAX_RESET_PRICE, rng.fork());
        Self { challenges: ChallengeBudget::new(rng), resets, memory: MAX_MEMORY, orphans: MAX_ORPHANS }
    }
}

/// How much TCP has to remember, for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpCounts {
    /// Connections, of whatever state but the following.
    pub connections: usize,
    /// Those among them that rest: nothing is in flight, to be read or to be sent, and they take little memory.
    pub resting: usize,
    /// SYNs whose senders have not answered yet.
    pub half_open: usize,
    /// Connections in TIME-WAIT.
    pub time_wait: usize,
}

impl TcpCounts {
    /// Adds another stack's.
    pub fn add(&mut self, other: &Self) {
        let Self { connections, resting, half_open, time_wait } = other;
        self.connections += connections;
        self.resting += resting;
        self.half_open += half_open;
        self.time_wait += time_wait;
    }
}

impl<P: FramePool> Stack<P> {
    /// How many connections there are.
    pub fn tcp_counts(&self) -> TcpCounts {
        let (connections, resting) = self.connections.count();
        let (half_open, time_wait) = (self.half_open.len(), self.time_waits.len());
        TcpCounts { connections, resting, half_open, time_wait }
    }

    /// How many connections are in which state, half-open ones and TIME-WAITs of which only a row of a table is left among
    /// them. No connection is looked at, so it costs the same however many there are.
    pub fn tcp_state_counts(&self) -> impl Iterator<Item = (State, usize)> {
        let (half_open, time_wait) = (self.half_open.len(), self.time_waits.len());
        self.connections.states().map(move |(state, count)| match state {
            State::SynReceived => (state, count + half_open),
            State::TimeWait => (state, count + time_wait),
            _ => (state, count),
        })
    }

    /// A connection, to look at.
    pub fn tcp(&self, id: TcpId) -> Option<View<'_>> {
        self.connections.get(id)
    }

    /// Writes to a connection: see [`Connection::write`].
    ///
    /// # Errors
    /// As there.
    pub fn tcp_write(&mut self, now: Instant, id: TcpId, bytes: &[u8]) -> Result<usize, tcp::WriteError> {
        let connection = self.connections.get_mut(id).ok_or(tcp::WriteError::Closed)?;
        let written = connection.write(now, &mut self.pool, bytes);
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        written
    }

    /// Writes urgent data to a connection: see [`Connection::write_urgent`].
    ///
    /// # Errors
    /// As there.
    pub fn tcp_write_urgent(
        &mut self,
        now: Instant,
        id: TcpId,
        bytes: &[u8],
    ) -> Result<usize, tcp::WriteError> {
        let connection = self.connections.get_mut(id).ok_or(tcp::WriteError::Closed)?;
        let written = connection.write_urgent(now, &mut self.pool, bytes);
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        written
    }

    /// Reads from a connection: see [`Connection::read`].
    ///
    /// # Errors
    /// As there.
    pub fn tcp_read(&mut self, now: Instant, id: TcpId, bytes: &mut [u8]) -> Result<usize, tcp::ReadError> {
        let read = match self.connections.awake_mut(id) {
            // To find nothing changes nothing. Whoever waits for more looks once too often each time.
            Some(connection) => Ok(connection.read(now, &mut self.pool, bytes)?),
            None => {
                let connection = self.connections.get_mut(id).ok_or(tcp::ReadError::Closed)?;
                connection.read(now, &mut self.pool, bytes)
            }
        };
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        read
    }

    /// Looks at what can be read from a connection: see [`Connection::peek`].
    ///
    /// # Errors
    /// As there.
    pub fn tcp_peek(&self, id: TcpId, bytes: &mut [u8]) -> Result<usize, tcp::ReadError> {
        self.connections.get(id).ok_or(tcp::ReadError::Closed)?.peek(&self.pool, bytes)
    }

    /// Takes what can be read from a connection as it lies: see [`Connection::read_in_place`].
    ///
    /// # Errors
    /// As there.
    pub fn tcp_read_in_place(&mut self, now: Instant, id: TcpId) -> Result<Option<Payload>, tcp::ReadError> {
        let connection = self.connections.get_mut(id).ok_or(tcp::ReadError::Closed)?;
        let read = connection.read_in_place(now, &mut self.pool);
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        read
    }

    /// Hands out a frame to write into: see [`Connection::reserve`].
    ///
    /// # Errors
    /// As there.
    pub fn tcp_reserve(&mut self, now: Instant, id: TcpId) -> Result<Reserved, tcp::WriteError> {
        let connection = self.connections.get_mut(id).ok_or(tcp::WriteError::Closed)?;
        let reserved = connection.reserve(now, &mut self.pool);
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        reserved
    }

    /// Sends what was written into a frame: see [`Connection::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn tcp_commit(&mut self, id: TcpId, reserved: Reserved, len: usize) -> Result<(), tcp::WriteError> {
        let Some(connection) = self.connections.get_mut(id) else {
            self.pool.release_tx(reserved.frame);
            return Err(tcp::WriteError::Closed);
        };
        let committed = connection.commit(&mut self.pool, reserved, len);
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        committed
    }

    /// Whether a connection can be written to: see [`Connection::is_writable`].
    pub fn tcp_is_writable(&mut self, now: Instant, id: TcpId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let writable = connection.is_writable(now, &self.pool);
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
        writable
    }

    /// Switches Nagle's algorithm off, or on again: see [`Connection::set_nodelay`].
    pub fn tcp_set_nodelay(&mut self, id: TcpId, nodelay: bool) {
        self.work_on(id, |connection, _| connection.set_nodelay(nodelay));
    }

    /// Chooses the Differentiated Services Codepoint of a connection: see [`Connection::set_dscp`].
    pub fn tcp_set_dscp(&mut self, id: TcpId, dscp: u8) {
        self.work_on(id, |connection, _| connection.set_dscp(dscp));
    }

    /// Chooses the time to live of a connection's packets: see [`Connection::set_hop_limit`].
    pub fn tcp_set_hop_limit(&mut self, id: TcpId, hop_limit: u8) {
        self.work_on(id, |connection, _| connection.set_hop_limit(hop_limit));
    }

    /// Asks a silent peer from time to time whether it is there: see [`Connection::set_keepalive`].
    pub fn tcp_set_keepalive(&mut self, now: Instant, id: TcpId, keepalive: Option<tcp::KeepAlive>) {
        self.work_on(id, |connection, _| connection.set_keepalive(now, keepalive));
    }

    /// How long the peer may leave data unacknowledged: see [`Connection::set_user_timeout`].
    pub fn tcp_set_user_timeout(&mut self, now: Instant, id: TcpId, timeout: Duration) {
        self.work_on(id, |connection, _| connection.set_user_timeout(now, timeout));
    }

    /// Closing resets: see [`Connection::set_zero_linger`].
    pub fn tcp_set_zero_linger(&mut self, id: TcpId, zero_linger: bool) {
        self.work_on(id, |connection, _| connection.set_zero_linger(zero_linger));
    }

    /// Closes our direction of a connection.
    pub fn tcp_shutdown_write(&mut self, now: Instant, id: TcpId) {
        self.work_on(id, |connection, _| connection.shutdown_write(now));
    }

    /// The application is done with a connection: what it wrote is still delivered, what comes is refused. If too many that
    /// were closed wait for their peers, it is reset instead.
    pub fn tcp_close(&mut self, now: Instant, id: TcpId) {
        let is_one_too_many = self.connections.let_go(id) > self.limits.orphans;
        self.work_on(id, |connection, pool| {
            if is_one_too_many {
                connection.abort(now);
            }
            connection.close(now, pool);
        });
    }

    /// Resets a connection.
    pub fn tcp_abort(&mut self, now: Instant, id: TcpId) {
        self.work_on(id, |connection, _| connection.abort(now));
    }

    /// Resets all connections.
    pub fn abort_all(&mut self, now: Instant) {
        self.forget_all_half_open();
        self.time_waits.clear();
        for id in self.connections.ids() {
            self.tcp_abort(now, id);
        }
    }

    /// Ends a connection without a word to its peer.
    pub(super) fn fail_connection(&mut self, now: Instant, id: TcpId, error: tcp::Error) {
        self.work_on(id, |connection, pool| connection.fail(now, pool, error));
    }

    /// Whether a connection is left whose peer still expects something: one that is neither closed nor in TIME-WAIT.
    pub fn has_unfinished_connections(&self) -> bool {
        self.connections.has_unfinished()
    }

    /// What a connection starts from: beyond where the last one between the same sockets ended, if that is known.
    pub(super) fn secrets(&self, now: Instant, flow: &Flow) -> tcp::Secrets {
        let secrets = self.secret.for_connection(now, flow.local, flow.remote);
        self.time_waits.get(flow).map_or(secrets, |entry| entry.continued(secrets))
    }

    /// Connections in TIME-WAIT, for statistics: our end, and the peer's.
    pub fn tcp_time_waits(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.time_waits.flows()
    }

    /// A TCP segment, `frame` being all of it, in a packet that was marked with CE or not.
    pub(super) fn handle_tcp(
        &mut self,
        now: Instant,
        sender: Sender,
        destination: IpAddr,
        mut frame: RxFrame,
        ce: bool,
    ) {
        let parsed = if frame.is_long() {
            Segment::parse_pieces(sender.ip, destination, frame.len(), self.pool.rx_pieces(&frame))
        } else {
            Segment::parse(sender.ip, destination, self.pool.rx_bytes(&frame))
        };
        let (mut segment, payload) = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => return self.drop_received(frame, reason),
        };
        segment.ce = ce;
        frame.trim_front(payload);
        let local = SocketAddr::new(destination, segment.destination_port);
        let remote = SocketAddr::new(sender.ip, segment.source_port);
        self.handle_segment(now, sender, Flow { local, remote }, &segment, frame);
    }

    /// A segment, `frame` being its data.
    pub(super) fn handle_segment(
        &mut self,
        now: Instant,
        sender: Sender,
        flow: Flow,
        segment: &Segment,
        frame: RxFrame,
    ) {
        let Some(id) = self.connections.find(&flow) else {
            return match self.owner_elsewhere(&flow) {
                Some(shard) => self.pass_on_segment(shard, sender, flow, segment, frame),
                None => self.handle_passive(now, sender, flow, segment, frame),
            };
        };
        let may_copy = self.connections.memory() < self.limits.memory;
        let Some(connection) = self.connections.get_mut(id) else { return self.pool.release_rx(frame) };
        connection.permit_challenges(self.limits.challenges.has(now));
        connection.permit_copies(may_copy);
        let una = connection.send_unacknowledged();
        let end = segment.seq + frame.len();
        let result = connection.handle_segment(now, &mut self.pool, segment, frame);
        // One that was dropped has shown nothing of what stands in its headers: a duplicate's numbers are not looked at, and an ACK of
        // what was never sent, or a timestamp that is too old, condemns its followers, too.
        let expected = connection.takes_followers(segment).filter(|&(seq, _)| seq == end && result.is_ok());
        self.gro.taken = expected.map(|(seq, room)| (id, seq.0, room));
        let arrived = connection.send_unacknowledged() != una;
        if connection.take_challenged() {
            self.limits.challenges.spend();
        }
        if let Err(reason) = result {
            self.drops.count(reason);
        }
        if arrived {
            self.confirm_neighbour(now, flow.local.ip(), sender.ip);
        }
        self.connections.worked_on(id, &mut self.pool, &mut self.events);
    }

    /// An ICMP error about a segment that we sent (RFC 5927): its connection decides what to believe.
    pub(super) fn tell_unreachable(
        &mut self,
        now: Instant,
        id: TcpId,
        what: Unreachable,
        quoted: Option<SeqNumber>,
    ) {
        self.work_on(id, |connection, pool| connection.handle_unreachable(now, pool, what, quoted));
    }

    fn work_on(&mut self, id: TcpId, work: impl FnOnce(&mut Connection, &mut P)) {
        if let Some(connection) = self.connections.get_mut(id) {
            work(connection, &mut self.pool);
            self.connections.worked_on(id, &mut self.pool, &mut self.events);
        }
    }
}
