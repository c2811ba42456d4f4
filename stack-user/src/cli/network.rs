//! What a command needs of a network: names become addresses, addresses become streams.
//!
//! Commands are written against this trait, not against our own stack, so that their tests run them over the
//! kernel's sockets and compare them with the programs they take after.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::error::Failure;
use super::privileges::Profile;
use crate::api;
use crate::tcp::KeepAlive;

/// A TCP/IP stack, as far as an application sees it.
pub trait Network: Send + Sync + 'static {
    /// A connection.
    type Stream: Connection;

    /// A listener.
    type Listener: Listener<Stream = Self::Stream>;

    /// The addresses of `host`, best first, never none. `host` is a name in its ASCII form, not an address.
    fn resolve(&self, host: &str) -> impl Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send;

    /// Connects; the caller sets the time limit by dropping the future.
    fn connect(&self, remote: SocketAddr) -> impl Future<Output = Result<Self::Stream, ConnectError>> + Send;

    /// Listens on an address of this network, or on all of them if it is unspecified; port 0 asks for any.
    ///
    /// # Errors
    /// As the sockets': `AddrInUse`, `AddrNotAvailable`.
    fn listen(&self, local: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// The same, with at most so many established connections that wait to be accepted, where that can be said.
    ///
    /// # Errors
    /// As there.
    fn listen_with(
        &self,
        local: SocketAddr,
        _backlog: usize,
    ) -> impl Future<Output = io::Result<Self::Listener>> + Send {
        self.listen(local)
    }

    /// The addresses at which peers reach what listens on all of them, as far as they are known.
    fn addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    /// The stack, if it is ours: for what can't be done over any network.
    fn ours(&self) -> Option<&api::Stack> {
        None
    }

    /// Whether [giving up privileges](Self::give_up_privileges) changes the process's user, or has changed it: files that
    /// are to belong to whoever started it are opened before.
    fn becomes_another_user(&self) -> bool {
        false
    }

    /// The user and group that the process becomes by that, or has become: whose its socket files are to be.
    fn becomes(&self) -> Option<(u32, u32)> {
        None
    }

    /// Gives up what the process needed to open this network, and what it binds before it serves; from then on it can do
    /// what `profile` says, in all of its threads. A network that was opened without privileges has none to give up.
    ///
    /// # Errors
    /// [`Failure::Privileges`], and then the process must not go on.
    fn give_up_privileges(&self, profile: Profile) -> Result<(), Failure> {
        let _ = profile;
        Ok(())
    }

    /// Ends what is left in order (FINs acknowledged, address released, program detached). The caller bounds
    /// the time that this may take; dropping the network has to be enough to leave the host as it was.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}

/// A connection, as far as a server or a relay sees it.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ends it at once, by a reset, so that the peer does not take what it has got for the whole.
    fn reset(self)
    where
        Self: Sized;

    /// Our end's address, if it has one.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// Has a silent peer asked from time to time whether it is still there, where that is possible.
    fn set_keepalive(&self, _keepalive: KeepAlive) {}

    /// Where its tasks are best run: on the thread that its stack uses for it, if there is one.
    fn runtime(&self) -> Option<Handle> {
        None
    }

    /// Why it failed, if it did: for those who have read to the end of its stream, and would not hear of it otherwise.
    fn failure(&self) -> Option<io::Error> {
        None
    }
}

/// In memory there are no resets: the other end sees that this one is gone.
impl Connection for tokio::io::DuplexStream {
    fn reset(self) {}
}

/// Where connections come in.
pub trait Listener: Send + Sync + 'static {
    /// What comes in.
    type Stream: Connection;

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection, and its peer. Cancel safe.
    ///
    /// # Errors
    /// About one connection, or about the listener: whoever accepts decides whether to go on.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The name does not exist, or has no address of a family that we speak.
    #[error("no such host")]
    UnknownHost,
    /// No name server gave an answer, or none is known: the text says which and why.
    #[error("{0}")]
    Failed(String),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host answered with RST.
    #[error("connection refused")]
    Refused,
    /// No route, no answer from the neighbour, or an ICMP error says so.
    #[error("{0}")]
    Unreachable(String),
    /// The SYN was repeated as often as is sensible, without an answer.
    #[error("connection timed out")]
    TimedOut,
    /// The connection was established and reset before it could be used.
    #[error("connection reset by peer")]
    Reset,
    /// No port is left on our side for another connection to that address and port, or no address.
    #[error("{0}")]
    NoLocalPort(String),
    /// IPv6, where it is not spoken.
    #[error("IPv6 is not supported yet, use an IPv4 address")]
    FamilyUnsupported,
    /// Anything else: no memory left, the stack stopped…
    #[error("{0}")]
    Other(String),
}

/// A network for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::time::Duration;

    use tokio::{
        net::{TcpListener, TcpStream},
        time::sleep,
    };

    use super::*;

    /// Names take nine seconds, and nobody answers.
    pub(crate) struct Slow;

    impl Network for Slow {
        type Stream = TcpStream;
        type Listener = TcpListener;

        async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
            sleep(Duration::from_secs(9)).await;
            Ok((1..=3).map(|last| [192, 0, 2, last].into()).collect())
        }

        async fn connect(&self, _: SocketAddr) -> Result<TcpStream, ConnectError> {
            std::future::pending().await
        }

        async fn listen(&self, _: SocketAddr) -> io::Result<TcpListener> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}
