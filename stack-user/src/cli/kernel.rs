//! The kernel's own stack as a network: what relays connect ours with, and what ours is compared with.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::network::{ConnectError, Connection, Listener, Network, ResolveError};
use crate::tcp::KeepAlive;

/// The sockets and the resolver of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelNetwork;

impl Network for KernelNetwork {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        // Which service is asked for does not matter, but the system's resolver wants one.
        let found = tokio::net::lookup_host((host, 0)).await;
        let mut addresses = Vec::new();
        for address in found.map_err(|error| ResolveError::Failed(error.to_string()))? {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        if addresses.is_empty() { Err(ResolveError::UnknownHost) } else { Ok(addresses) }
    }

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        let stream = TcpStream::connect(remote).await.map_err(|error| connect_error(&error))?;
        // Neither end of a relay, nor one who sends whole requests, gains by waiting for an ACK.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(local).await
    }

    async fn listen_with(&self, local: SocketAddr, backlog: usize) -> io::Result<TcpListener> {
        let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As for `bind`: TIME-WAIT keeps nobody from a port.
        socket.set_reuseaddr(true)?;
        socket.bind(local)?;
        socket.listen(u32::try_from(backlog).unwrap_or(u32::MAX))
    }
}

/// A failed connection attempt, as its kind tells.
pub fn connect_error(error: &io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused,
        io::ErrorKind::TimedOut => ConnectError::TimedOut,
        io::ErrorKind::ConnectionReset => ConnectError::Reset,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ConnectError::Unreachable(error.to_string())
        }
        io::ErrorKind::AddrNotAvailable => ConnectError::NoLocalPort(error.to_string()),
        _ => ConnectError::Other(error.to_string()),
    }
}

impl Connection for TcpStream {
    fn reset(self) {
        let _ = self.set_zero_linger();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Self::local_addr(self).ok()
    }

    fn set_keepalive(&self, keepalive: KeepAlive) {
        let seconds = |time: std::time::Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
        // A system that refuses one of them keeps its own.
        let _ = setsockopt(self, sockopt::TcpKeepIdle, &seconds(keepalive.idle));
        let _ = setsockopt(self, sockopt::TcpKeepInterval, &seconds(keepalive.interval));
        let _ = setsockopt(self, sockopt::TcpKeepCount, &keepalive.probes);
        let _ = setsockopt(self, sockopt::KeepAlive, &true);
    }

    fn failure(&self) -> Option<io::Error> {
        self.take_error().ok().flatten()
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, remote) = Self::accept(self).await?;
        let _ = stream.set_nodelay(true);
        Ok((stream, remote))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[tokio::test]
    async fn a_silent_peer_is_asked_as_often_as_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = TcpListener::local_addr(&listener).expect("an address");
        let stream = KernelNetwork.connect(address).await.expect("connects");
        assert_eq!(getsockopt(&stream, sockopt::KeepAlive), Ok(false), "nobody is asked unasked");
        let second = std::time::Duration::from_secs(1);
        Connection::set_keepalive(&stream, KeepAlive { idle: 60 * second, interval: 15 * second, probes: 4 });
        assert_eq!(getsockopt(&stream, sockopt::KeepAlive), Ok(true));
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle), Ok(60));
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepInterval), Ok(15));
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepCount), Ok(4));
    }
}
