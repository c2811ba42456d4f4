//! What can be chosen for a connection.

use super::congestion::Algorithm;
use crate::{frame::FramePool, time::Duration, wire::tcp::Header};

/// What a connection holds in either direction takes at most this part of the pool's chunks, so that a few whose
/// applications don't read, or whose peers take nothing, leave chunks for others. More parts, and a single transfer over
/// a long way doesn't fill it; fewer, and two such connections are too many.
pub(super) const POOL_SHARE: usize = 4;

/// The choices, with defaults that suit a client on the internet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes that are left free in front of the TCP header in each frame, for IP and Ethernet. Default: 34, IPv4 in
    /// untagged Ethernet.
    pub header_room: usize,
    /// The largest payload that we announce to take: the MTU less 20 bytes of TCP and the IP header. Default: 1460.
    pub mss: u16,
    /// Received bytes that may wait for the application; the receive window follows from it. A small pool makes it
    /// smaller. Default: 1 MiB, which fills 100 Mbit/s over 80 ms.
    pub recv_buffer: usize,
    /// Written bytes that may wait for their acknowledgement. Default: 1 MiB.
    pub send_buffer: usize,
    /// How long the handshake may take. Default: 3 minutes (RFC 9293 §3.8.3, MUST-23).
    pub connect_timeout: Duration,
    /// How long the peer may leave data unacknowledged. Default: 5 minutes (RFC 9293 §3.8.3 asks for 100 s or more).
    pub user_timeout: Duration,
    /// How long TIME-WAIT lasts: 2 MSL. Default: 60 s, as in Linux; RFC 9293 §3.4.2 has an MSL of 2 minutes, from
    /// times when packets lived that long.
    pub time_wait: Duration,
    /// How long FIN-WAIT-2 lasts after `close`, when nobody would read what the peer sends. Default: 60 s.
    pub fin_wait_2: Duration,
    /// Send small segments at once (RFC 9293 §3.7.4, MUST-17). Default: false, so Nagle's algorithm is on.
    pub nodelay: bool,
    /// The congestion control algorithm.
    pub congestion: Algorithm,
}

impl Config {
    /// Makes what is chosen fit what a pool of frames can bear.
    pub fn fit<P: FramePool>(&mut self, pool: &P) {
        let largest = pool.tx_capacity().saturating_sub(self.header_room + Header::LEN);
        self.mss = self.mss.min(largest.try_into().unwrap_or(u16::MAX));
        let share = pool.chunks() / POOL_SHARE * usize::from(self.mss);
        self.recv_buffer = self.recv_buffer.min(share);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header_room: 34,
            mss: 1460,
            recv_buffer: 1 << 20,
            send_buffer: 1 << 20,
            connect_timeout: Duration::from_secs(180),
            user_timeout: Duration::from_secs(300),
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            nodelay: false,
            congestion: Algorithm::default(),
        }
    }
}
