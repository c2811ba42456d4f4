//! What can be chosen for a connection.

use super::{
    autotune::WINDOW_POOL_SHARE, congestion::Algorithm, keepalive::KeepAlive, user_timeout::UserTimeoutLimits,
};
use crate::{
    frame::FramePool,
    time::Duration,
    wire::{IpFields, tcp::Header},
};

/// The choices, with defaults that suit a client on the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes that are left free in front of the TCP header in each frame, for IP and Ethernet. Default: 34, IPv4 in
    /// untagged Ethernet.
    pub header_room: usize,
    /// The largest payload that we announce to take: the MTU less 20 bytes of TCP and the IP header. Default: 1460.
    pub mss: u16,
    /// Received bytes that may wait for the application at first; the receive window follows from it. It grows with what
    /// the application takes in a round trip. A small pool makes it smaller. Default: 128 KiB, which is more than twice
    /// what a sender has on its way in the first three round trips.
    pub recv_buffer: usize,
    /// What it may grow to; the window's shift follows from this one. Equal to `recv_buffer`, the buffer is fixed.
    /// Default: 6 MiB, twice of 100 Mbit/s over 250 ms. A pool bounds it, too: half of its chunks.
    pub recv_buffer_max: usize,
    /// Written bytes that may wait for their acknowledgement at first. It grows with the congestion window. Default:
    /// 128 KiB.
    pub send_buffer: usize,
    /// What it may grow to. Equal to `send_buffer`, the buffer is fixed. Default: 4 MiB.
    pub send_buffer_max: usize,
    /// How long the handshake may take. Default: 3 minutes (RFC 9293 §3.8.3, MUST-23).
    pub connect_timeout: Duration,
    /// How long the peer may leave data unacknowledged. Default: 5 minutes (R2 of RFC 9293 §3.8.3,
    /// MUST-20; at least 100 s by SHLD-11).
    pub user_timeout: Duration,
    /// Whether both ends tell each other how long that is (RFC 5482 §3, ENABLED), and how far the peer may change ours.
    /// Default: not, as the RFC has it; firewalls know the option little.
    pub user_timeout_option: Option<UserTimeoutLimits>,
    /// How long TIME-WAIT lasts: 2 MSL. Default: 60 s, as in Linux; RFC 9293 §3.4.2 has an MSL of 2 minutes, from
    /// times when packets lived that long.
    pub time_wait: Duration,
    /// How long FIN-WAIT-2 lasts after `close`, when nobody would read what the peer sends. Default: 60 s.
    pub fin_wait_2: Duration,
    /// Time to live of the packets (RFC 9293 §3.9.2, MUST-49). Default: 64. Zero counts as one, since no packet may leave
    /// with zero (RFC 1122 §3.2.1.7).
    pub hop_limit: u8,
    /// Differentiated Services Codepoint of the packets, six bits (RFC 9293 §3.9.1.9, MUST-48). Default: 0, best effort.
    pub dscp: u8,
    /// Send small segments at once (RFC 9293 §3.7.4, MUST-17). Default: false, so Nagle's algorithm is on.
    pub nodelay: bool,
    /// Whether and how a silent peer is asked if it is still there. Default: not (RFC 9293 §3.8.4, MUST-25).
    pub keepalive: Option<KeepAlive>,
    /// How long an ACK that is due may wait: for the others of a burst of full segments, so that one answers them all (of 16 at most), or
    /// for what the application has to say to a SYN. More than 40 ms counts as that. It is for who is called again as soon as that: a
    /// driver that polls. Default: not at all, which a driver that polls takes for 20 microseconds; another time it leaves as it is.
    pub ack_hold: Duration,
    /// Where ACKs are held: how long that of a FIN, or of less than a full segment among a connection's first 16, may wait for what the
    /// application has to say to it; not less than `ack_hold`, and not more than 40 ms. Default: as long as `ack_hold`, for which a
    /// driver that polls takes 200 microseconds, or as long as it polls if that is less.
    pub answer_hold: Duration,
    /// `close` resets the connection, and gives up what has not been sent. Default: false.
    pub zero_linger: bool,
    /// Offer explicit congestion notification, and agree to it (RFC 3168; RFC 9293 §3.8.2, SHLD-8). Default: false, since
    /// some firewalls still drop a SYN that has it, which costs the time of a retransmission.
    pub ecn: bool,
    /// Spread what is sent over the round trip. Default: true; without it, an ACK of much lets a burst go, and after a
    /// pause the window starts again.
    pub pacing: bool,
    /// The congestion control algorithm.
    pub congestion: Algorithm,
    /// How the path's MTU is found where ICMP doesn't tell. Default: once full segments vanish.
    pub path_mtu_probing: PathMtuProbing,
}

/// When segments of other sizes than ICMP says are tried (RFC 4821, RFC 8899).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathMtuProbing {
    /// Never: ICMP alone tells (RFC 1191, RFC 8201). On a path that filters it, full segments vanish for ever.
    Off,
    /// Segments get smaller when several time-outs of full ones say that the path is a black hole, and then the search
    /// goes upwards.
    #[default]
    BlackHole,
    /// Segments start small, and the search goes upwards from the first.
    Always,
}

impl Config {
    /// Makes what is chosen fit what a pool of frames can bear.
    pub fn fit<P: FramePool>(&mut self, pool: &P) {
        let headers = self.header_room + Header::LEN;
        let largest = pool.tx_frame_capacity().saturating_sub(headers);
        self.mss = self.mss.min(largest.try_into().unwrap_or(u16::MAX));
        let chunks_for_each = (headers + usize::from(self.mss)).div_ceil(pool.tx_capacity()).max(1);
        let share = pool.chunks() / WINDOW_POOL_SHARE / chunks_for_each * usize::from(self.mss);
        self.recv_buffer = self.recv_buffer.min(share);
        self.recv_buffer_max = self.largest_recv_buffer().min(share);
    }

    /// What the IP header of the packets says.
    pub fn ip_fields(&self) -> IpFields {
        IpFields::new(self.hop_limit.max(1), self.dscp)
    }

    /// What the receive buffer may grow to: a start beyond the maximum is one itself.
    pub fn largest_recv_buffer(&self) -> usize {
        self.recv_buffer_max.max(self.recv_buffer)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header_room: 34,
            mss: 1460,
            recv_buffer: 128 << 10,
            recv_buffer_max: 6 << 20,
            send_buffer: 128 << 10,
            send_buffer_max: 4 << 20,
            connect_timeout: Duration::from_secs(180),
            user_timeout: Duration::from_secs(300),
            user_timeout_option: None,
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            hop_limit: IpFields::DEFAULT_HOP_LIMIT,
            dscp: 0,
            nodelay: false,
            keepalive: None,
            ack_hold: Duration::ZERO,
            answer_hold: Duration::ZERO,
            zero_linger: false,
            ecn: false,
            pacing: true,
            congestion: Algorithm::default(),
            path_mtu_probing: PathMtuProbing::default(),
        }
    }
}
