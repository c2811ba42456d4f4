//! The states of a connection (RFC 9293 §3.3.2): opening (§3.5) and closing (§3.6).

use core::fmt;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// SYN sent, none received.
    SynSent,
    /// SYN sent and received, ours not acknowledged yet.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// We have finished; our FIN is not acknowledged yet.
    FinWait1,
    /// We have finished, the peer knows, and may still send.
    FinWait2,
    /// The peer has finished, we may still send.
    CloseWait,
    /// Both have finished at the same time; our FIN is not acknowledged yet.
    Closing,
    /// The peer has finished, then we; our FIN is not acknowledged yet.
    LastAck,
    /// All is done; we stay to answer a FIN that comes again.
    TimeWait,
    /// No connection.
    Closed,
}

impl State {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
    ];

    /// Whether the sequence numbers of both sides are known and agreed.
    pub fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed)
    }

    /// Whether the application may hand over more to send.
    pub fn may_write(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }

    /// Whether the send queue, FIN included, is transmitted in this state.
    pub fn may_transmit(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait | Self::FinWait1 | Self::Closing | Self::LastAck)
    }

    /// Whether the peer may send data that we have not seen: its FIN has not come.
    pub fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        })
    }
}
