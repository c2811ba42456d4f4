//! A TCP socket before it is a stream or a listener.

use std::{future::Future, io, net::SocketAddr};

use super::{Stack, TcpListener, TcpStream, options::Linger};
use crate::{
    tcp::{Config, KeepAlive, congestion::Algorithm},
    time::Duration,
    wire::IpFields,
};

/// A socket that is not yet a [`TcpStream`] or a [`TcpListener`]: what `tokio::net::TcpSocket` is to the kernel's stack.
/// What is chosen here holds from the first SYN on, and for whatever a listener accepts.
#[derive(Clone, Debug)]
pub struct TcpSocket {
    stack: Stack,
    config: Config,
    /// The local end, if it was chosen.
    local: Option<SocketAddr>,
    linger: Option<Duration>,
}

impl TcpSocket {
    /// A socket that is as the stack's others.
    pub fn new(stack: &Stack) -> Self {
        let config = stack.shard().with(|core, _| core.stack.default_tcp_config().clone());
        Self { stack: stack.clone(), config, local: None, linger: None }
    }

    /// Chooses the local end: the stack's address, or 0.0.0.0 for whichever it has; port 0 is any. Several connections may
    /// share a port if their peers differ.
    pub fn bind(&mut self, local: SocketAddr) {
        self.local = Some(local);
    }

    /// The local end, if it was chosen.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Sends small writes at once (`TCP_NODELAY`). Default: false.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.config.nodelay = nodelay;
    }

    /// Whether small writes are sent at once.
    pub fn nodelay(&self) -> bool {
        self.config.nodelay
    }

    /// Asks a silent peer from time to time whether it is there (`SO_KEEPALIVE`). Default: not.
    pub fn set_keepalive(&mut self, keepalive: Option<KeepAlive>) {
        self.config.keepalive = keepalive;
    }

    /// Whether and how a silent peer is asked.
    pub fn keepalive(&self) -> Option<KeepAlive> {
        self.config.keepalive
    }

    /// How long what was written may stay unacknowledged (`TCP_USER_TIMEOUT`). Default: five minutes.
    pub fn set_user_timeout(&mut self, timeout: Duration) {
        self.config.user_timeout = timeout;
    }

    /// How long what was written may stay unacknowledged.
    pub fn user_timeout(&self) -> Duration {
        self.config.user_timeout
    }

    /// How long a handshake may take. Default: three minutes.
    pub fn set_connect_timeout(&mut self, timeout: Duration) {
        self.config.connect_timeout = timeout;
    }

    /// How long a handshake may take.
    pub fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout
    }

    /// How long [`TcpStream::close`] waits for what was written to be delivered (`SO_LINGER`). With a time of 0, dropping the
    /// stream resets the connection. Default: as long as it takes.
    pub fn set_linger(&mut self, time: Option<Duration>) {
        self.linger = time;
        self.config.zero_linger = time.is_some_and(|time| time.is_zero());
    }

    /// [`set_linger`](Self::set_linger) with a time of 0.
    pub fn set_zero_linger(&mut self) {
        self.set_linger(Some(Duration::ZERO));
    }

    /// How long closing waits, if that was chosen.
    pub fn linger(&self) -> Option<Duration> {
        self.linger
    }

    /// A Differentiated Services Codepoint, six bits (the upper ones of `IP_TOS`). Default: 0.
    pub fn set_dscp(&mut self, dscp: u8) {
        self.config.dscp = dscp;
    }

    /// The Differentiated Services Codepoint.
    pub fn dscp(&self) -> u8 {
        self.config.dscp & IpFields::MAX_DSCP
    }

    /// Time to live of the packets (`IP_TTL`). Default: 64.
    pub fn set_ttl(&mut self, ttl: u8) {
        self.config.hop_limit = ttl;
    }

    /// Time to live of the packets.
    pub fn ttl(&self) -> u8 {
        self.config.ip_fields().hop_limit
    }

    /// The congestion control algorithm (`TCP_CONGESTION`).
    pub fn set_congestion(&mut self, algorithm: Algorithm) {
        self.config.congestion = algorithm;
    }

    /// The congestion control algorithm.
    pub fn congestion(&self) -> Algorithm {
        self.config.congestion
    }

    /// Bytes that may wait to be acknowledged (`SO_SNDBUF`); without this, as many as the path needs.
    pub fn set_send_buffer_size(&mut self, bytes: usize) {
        (self.config.send_buffer, self.config.send_buffer_max) = (bytes, bytes);
    }

    /// Bytes that may wait to be acknowledged at first.
    pub fn send_buffer_size(&self) -> usize {
        self.config.send_buffer
    }

    /// Bytes that may wait to be read (`SO_RCVBUF`), which is what the peer's window follows; without this, as many as the
    /// path needs. The frames of the stack are a limit, too.
    pub fn set_recv_buffer_size(&mut self, bytes: usize) {
        (self.config.recv_buffer, self.config.recv_buffer_max) = (bytes, bytes);
    }

    /// Bytes that may wait to be read at first.
    pub fn recv_buffer_size(&self) -> usize {
        self.config.recv_buffer
    }

    /// Opens a connection to `remote`. Cancel safe: dropping the future aborts the attempt.
    ///
    /// # Errors
    /// As [`TcpStream::connect`]; `AddrInUse` when the chosen port is a listener's or has a connection to `remote`;
    /// `AddrNotAvailable` when the chosen address is not the stack's.
    pub fn connect(self, remote: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send {
        TcpStream::connect_from(self.stack, self.local, remote, self.config, Linger::new(self.linger))
    }

    /// Listens where it is [bound](Self::bind), or on any port. At most `backlog` established connections wait to be
    /// accepted, on each of the stack's shards.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn listen(self, backlog: usize) -> io::Result<TcpListener> {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let listener =
            TcpListener::listen(&self.stack, self.local.unwrap_or(any), backlog, Some(self.config))?;
        Ok(listener.lingering(self.linger))
    }
}
