//! Why a connection ended, and why a call did not do its work.

use thiserror::Error;

/// Why the peer can't be reached, as an ICMP error or our own link layer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// No way to the peer's network.
    #[error("no router knows a way to its network")]
    Network,
    /// The last router can't reach the peer.
    #[error("the last router on the way gets no answer from it")]
    Host,
    /// The peer doesn't speak TCP.
    #[error("it does not speak TCP")]
    Protocol,
    /// Nothing is behind the port.
    #[error("nothing listens on the port")]
    Port,
    /// A filter forbids it.
    #[error("a filter on the way forbids it")]
    Admin,
    /// The packet was too large and must not be cut; the next hop carries `mtu` bytes (0: it doesn't say).
    #[error("a link on the way carries only {mtu} bytes")]
    FragmentationNeeded {
        /// Bytes of an IP packet that the next hop carries.
        mtu: u16,
    },
    /// Nobody on our own link answers for the next hop's address.
    #[error("no neighbour answers for it, or for the gateway to it, on the local link")]
    NoNeighbour,
    /// The time to live ran out on the way.
    #[error("packets to it run in circles until their time to live ends")]
    TimeExceeded,
}

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer answered our SYN with RST, or said that there is no such port.
    #[error("the peer refused the connection: nothing listens on that port, or a firewall rejects it")]
    Refused,
    /// The peer reset the connection.
    #[error("the peer reset the connection: its program ended, or it forgot the connection")]
    Reset,
    /// The application aborted the connection.
    #[error("the connection was aborted on this side")]
    Aborted,
    /// Somebody else on the link took the address that the connection was from.
    #[error("our address was lost: another station on the link insists on it; choose another with --address")]
    AddressLost,
    /// The peer did not answer our SYNs.
    #[error("no answer to the connection request in time: the peer is off, or a firewall drops our packets")]
    ConnectTimedOut,
    /// The peer stopped acknowledging.
    #[error("the peer stopped answering: it, or the way to it, has gone")]
    TimedOut,
    /// The peer can't be reached.
    #[error("the peer can't be reached: {0}")]
    Unreachable(Unreachable),
}

/// Why [`write`](super::Connection::write) took no byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Not connected yet, or no room: wait for `Connected` or `Writable`.
    #[error("nothing can be written now; wait until the connection is writable")]
    WouldBlock,
    /// This side has closed.
    #[error("nothing can be written after this side was closed")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Why [`read`](super::Connection::read) gave no byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing has come: wait for `Readable` or `PeerClosed`.
    #[error("nothing can be read now; wait until the connection is readable")]
    WouldBlock,
    /// This side has closed.
    #[error("nothing can be read after this side was closed")]
    Closed,
    /// The connection failed, and all that came before has been read.
    #[error(transparent)]
    Failed(#[from] Error),
}
