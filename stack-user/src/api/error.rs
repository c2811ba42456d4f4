//! Protocol errors as `std::io` knows them, which is how tokio programs handle errors.

use std::io;

use crate::{
    net::udp::{BindError, NetworkError, RecvError, SendError},
    stack::{ConnectError, ListenError, UdpBindError, UdpSendError},
    tcp,
};

impl From<tcp::Error> for io::Error {
    fn from(error: tcp::Error) -> Self {
        use io::ErrorKind as Kind;
        use tcp::Unreachable;
        let kind = match error {
            tcp::Error::Refused => Kind::ConnectionRefused,
            tcp::Error::Reset => Kind::ConnectionReset,
            tcp::Error::Aborted | tcp::Error::AddressLost => Kind::ConnectionAborted,
            tcp::Error::ConnectTimedOut | tcp::Error::TimedOut => Kind::TimedOut,
            tcp::Error::Unreachable(Unreachable::Network) => Kind::NetworkUnreachable,
            tcp::Error::Unreachable(_) => Kind::HostUnreachable,
        };
        Self::new(kind, error)
    }
}

impl From<tcp::ReadError> for io::Error {
    fn from(error: tcp::ReadError) -> Self {
        match error {
            tcp::ReadError::WouldBlock => Self::new(io::ErrorKind::WouldBlock, error),
            tcp::ReadError::Closed => Self::new(io::ErrorKind::NotConnected, error),
            tcp::ReadError::Failed(error) => error.into(),
        }
    }
}

impl From<tcp::WriteError> for io::Error {
    fn from(error: tcp::WriteError) -> Self {
        match error {
            tcp::WriteError::WouldBlock => Self::new(io::ErrorKind::WouldBlock, error),
            tcp::WriteError::Closed => Self::new(io::ErrorKind::BrokenPipe, error),
            tcp::WriteError::Failed(error) => error.into(),
        }
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        let kind = match error {
            ConnectError::NoAddress | ConnectError::NotOurs(_) | ConnectError::NoPort(_) => {
                io::ErrorKind::AddrNotAvailable
            }
            ConnectError::InUse(..) => io::ErrorKind::AddrInUse,
            ConnectError::NoRoute(_) => io::ErrorKind::NetworkUnreachable,
            ConnectError::BadRemote(_) => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl From<ListenError> for io::Error {
    fn from(error: ListenError) -> Self {
        let kind = match error {
            ListenError::NotOurs(_) => io::ErrorKind::AddrNotAvailable,
            ListenError::InUse(_) | ListenError::NoPort => io::ErrorKind::AddrInUse,
        };
        Self::new(kind, error)
    }
}

impl From<UdpBindError> for io::Error {
    fn from(error: UdpBindError) -> Self {
        let kind = match error {
            UdpBindError::NoAddress | UdpBindError::NotOurs(_) => io::ErrorKind::AddrNotAvailable,
            UdpBindError::Port(BindError::InUse { .. } | BindError::NoPort { .. }) => {
                io::ErrorKind::AddrInUse
            }
        };
        Self::new(kind, error)
    }
}

impl From<UdpSendError> for io::Error {
    fn from(error: UdpSendError) -> Self {
        let kind = match error {
            UdpSendError::NoAddress => io::ErrorKind::AddrNotAvailable,
            UdpSendError::NoRoute(_) => io::ErrorKind::NetworkUnreachable,
            UdpSendError::Socket(SendError::Network(error)) => return error.into(),
            // Sending never waits, so nobody would tell when to try again.
            UdpSendError::Socket(SendError::WouldBlock) => io::ErrorKind::OutOfMemory,
            UdpSendError::Socket(SendError::TooLong { .. }) => io::ErrorKind::InvalidInput,
            UdpSendError::Socket(SendError::NoDestination | SendError::Closed) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        let kind = match error {
            RecvError::WouldBlock => io::ErrorKind::WouldBlock,
            RecvError::Network(error) => return error.into(),
            RecvError::AddressLost => io::ErrorKind::AddrNotAvailable,
            RecvError::Closed => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

impl From<NetworkError> for io::Error {
    fn from(error: NetworkError) -> Self {
        let kind = match error {
            NetworkError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            NetworkError::HostUnreachable { .. } => io::ErrorKind::HostUnreachable,
            NetworkError::NetUnreachable { .. } => io::ErrorKind::NetworkUnreachable,
            NetworkError::Prohibited { .. } => io::ErrorKind::PermissionDenied,
            NetworkError::TooLong { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs decide by the kind, so it is the one that the kernel's stack has for the same trouble.
    #[test]
    fn kinds_are_those_that_the_documentation_promises() {
        let remote = std::net::SocketAddr::from(([192, 0, 2, 1], 80));
        let kind = |error: io::Error| error.kind();
        assert_eq!(kind(ConnectError::NoPort(remote).into()), io::ErrorKind::AddrNotAvailable);
        assert_eq!(kind(ConnectError::BadRemote(remote).into()), io::ErrorKind::InvalidInput);
        assert_eq!(kind(UdpSendError::Socket(SendError::WouldBlock).into()), io::ErrorKind::OutOfMemory);
        assert_eq!(kind(tcp::Error::AddressLost.into()), io::ErrorKind::ConnectionAborted);
    }
}
