//! What the stack tells those who run it.

/// A connection of a [`Stack`](super::Stack). Not reused: a later connection in the same row has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpId {
    pub(super) row: u32,
    pub(super) generation: u32,
}

impl TcpId {
    /// The row in the stack's table: small, dense, and reused.
    pub fn index(self) -> usize {
        self.row as usize
    }
}

/// A listener of a [`Stack`](super::Stack). Not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    pub(super) row: u32,
    pub(super) generation: u32,
}

/// A UDP socket of a [`Stack`](super::Stack).
pub use crate::net::udp::SocketId as UdpId;

/// Something happened that somebody may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection can do what it could not before. Its end makes it both: the next read and write tell.
    Tcp {
        /// The connection.
        id: TcpId,
        /// Data, the end of the stream, or an error can be read.
        readable: bool,
        /// There is room to write, or an error to find by writing; or the connection is established.
        writable: bool,
    },
    /// A connection has something to report that may pass by itself (RFC 9293 §3.9.1.8, MUST-47).
    TcpReport {
        /// The connection.
        id: TcpId,
        /// One for which [`is_report`](crate::tcp::Event::is_report) is true.
        report: crate::tcp::Event,
    },
    /// A connection can be accepted.
    Listener {
        /// The listener.
        id: ListenerId,
    },
    /// A socket has a datagram, or an error.
    Udp {
        /// The socket.
        id: UdpId,
    },
    /// An address was claimed or lost, or a connection went.
    Changed,
}
