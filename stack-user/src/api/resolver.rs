//! Host names, looked up by hickory through our own UDP and TCP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::io::{AsyncRead, AsyncWrite};
use hickory_resolver::{
    Resolver as Hickory,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{
        NetError,
        runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, TokioTime},
    },
    system_conf::parse_resolv_conf,
};
use tokio::task::JoinSet;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::{Stack, TcpStream, UdpSocket};
use crate::time::Duration;

/// How long to wait for a name server before asking again, or the next. A local one answers within milliseconds, one
/// across the world within 300; resolvers before us settled on 5 s, which makes a single lost datagram felt.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a query is repeated. With [`QUERY_TIMEOUT`], a dead name server is given up after 5 seconds.
const QUERY_ATTEMPTS: usize = 4;

/// Where a host's name servers are listed. systemd-resolved puts its own loopback stub into the first and the real
/// servers into the second.
const RESOLV_CONFS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Looks up host names by the DNS, through the stack.
#[derive(Clone)]
pub struct Resolver {
    hickory: Arc<Hickory<Provider>>,
    name_servers: Arc<[IpAddr]>,
    stack: Stack,
    obstacle: Obstacle,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is nobody to ask.
    #[error(
        "no name server to ask: {} lists none that can be reached through the stack; name one with --dns",
        RESOLV_CONFS[0]
    )]
    NoNameServer,
    /// The name is not one that the DNS can hold (RFC 1035 §2.3.4).
    #[error("'{0}' is not a valid host name")]
    InvalidName(String),
    /// The DNS says that the name, or an IPv4 address for it, does not exist.
    #[error("the name servers know no address of '{0}'")]
    NotFound(String),
    /// No name server answered in time.
    #[error("no answer about '{name}' from the name servers ({servers})")]
    NoAnswer {
        /// The name that was asked for.
        name: String,
        /// Who was asked.
        servers: String,
    },
    /// No name server could be asked.
    #[error("'{name}' can't be asked for at the name servers ({servers}): {reason}")]
    Unreachable {
        /// The name that was to be asked for.
        name: String,
        /// Who was to be asked.
        servers: String,
        /// What our stack says of the last of them.
        reason: String,
    },
    /// The settings found on the host can't be used.
    #[error("the host's DNS settings can't be used: {source}; name a server with --dns")]
    BadConfiguration {
        /// What hickory says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something else went wrong on the way.
    #[error("looking up '{name}' failed: {source}")]
    Failed {
        /// The name that was asked for.
        name: String,
        /// What hickory says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Resolver {
    /// A resolver that asks `name_servers`, or those of the host when there are none.
    ///
    /// # Errors
    /// [`ResolveError::NoNameServer`] when the host has none either, but for stubs on its loopback interface.
    pub fn new(stack: &Stack, name_servers: &[IpAddr]) -> Result<Self, ResolveError> {
        let (name_servers, search) = match name_servers {
            [] => host_name_servers().ok_or(ResolveError::NoNameServer)?,
            given => (given.to_vec(), ResolverConfig::default()),
        };
        let configs = name_servers.iter().copied().map(NameServerConfig::udp_and_tcp).collect();
        let config = ResolverConfig::from_parts(search.domain().cloned(), search.search().to_vec(), configs);
        let obstacle = Obstacle::default();
        let provider = Provider { stack: stack.clone(), tasks: Tasks::default(), obstacle: obstacle.clone() };
        let mut builder = Hickory::builder_with_config(config, provider);
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = QUERY_ATTEMPTS;
        options.ip_strategy = LookupIpStrategy::Ipv4Only;
        let hickory =
            builder.build().map_err(|source| ResolveError::BadConfiguration { source: Box::new(source) })?;
        let (hickory, stack) = (Arc::new(hickory), stack.clone());
        Ok(Self { hickory, name_servers: name_servers.into(), stack, obstacle })
    }

    /// Who is asked.
    pub fn name_servers(&self) -> &[IpAddr] {
        &self.name_servers
    }

    /// The stack that it asks through.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The addresses of `name`, at least one.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        if hickory_resolver::proto::rr::Name::from_utf8(name).is_err() {
            return Err(ResolveError::InvalidName(name.to_owned()));
        }
        // An obstacle of an earlier lookup that found its way after all is no explanation for this one.
        self.obstacle.take();
        match self.hickory.lookup_ip(name).await {
            Ok(found) => {
                let addresses: Vec<_> = found.iter().collect();
                if addresses.is_empty() {
                    Err(ResolveError::NotFound(name.to_owned()))
                } else {
                    Ok(addresses)
                }
            }
            Err(error) => Err(self.explain(name, error)),
        }
    }

    fn explain(&self, name: &str, error: NetError) -> ResolveError {
        let name = name.to_owned();
        let servers = || self.name_servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        match error {
            NetError::Timeout | NetError::NoConnections | NetError::Io(_) => match self.obstacle.take() {
                Some(reason) => ResolveError::Unreachable { name, servers: servers(), reason },
                None => ResolveError::NoAnswer { name, servers: servers() },
            },
            error if error.is_no_records_found() => ResolveError::NotFound(name),
            error => ResolveError::Failed { name, source: Box::new(error) },
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// The name servers of the host that can be reached from outside of it, and its search domains.
fn host_name_servers() -> Option<(Vec<IpAddr>, ResolverConfig)> {
    RESOLV_CONFS.iter().find_map(|path| reachable_name_servers(Path::new(path)))
}

fn reachable_name_servers(path: &Path) -> Option<(Vec<IpAddr>, ResolverConfig)> {
    let (config, _) = parse_resolv_conf(std::fs::read(path).ok()?).ok()?;
    let reachable = |ip: &IpAddr| ip.is_ipv4() && !ip.is_loopback() && !ip.is_unspecified();
    let servers: Vec<_> = config.name_servers().iter().map(|server| server.ip).filter(reachable).collect();
    (!servers.is_empty()).then_some((servers, config))
}

/// What hickory needs of a network, by our stack.
#[derive(Clone)]
struct Provider {
    stack: Stack,
    tasks: Tasks,
    obstacle: Obstacle,
}

/// The tasks that hickory starts; they end with the resolver.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Spawn for Tasks {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(future);
    }
}

impl RuntimeProvider for Provider {
    type Handle = Tasks;
    type Timer = TokioTime;
    type Udp = DnsUdp;
    type Tcp = DnsTcp;

    fn create_handle(&self) -> Tasks {
        self.tasks.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _bind_to: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<DnsTcp>>>> {
        let stack = self.stack.clone();
        Box::pin(async move {
            let connect = TcpStream::connect(&stack, server);
            let stream = tokio::time::timeout(timeout.unwrap_or(QUERY_TIMEOUT), connect).await??;
            Ok(DnsTcp(stream.compat()))
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<DnsUdp>>>> {
        let stack = self.stack.clone();
        let obstacle = self.obstacle.clone();
        // hickory draws a random port for each query, and another one when that is taken.
        Box::pin(async move {
            let any = SocketAddr::from(([0, 0, 0, 0], local.port()));
            Ok(DnsUdp { socket: UdpSocket::bind(&stack, any).await?, obstacle })
        })
    }
}

/// What our stack said when a name server could not be reached. hickory's own error tells no more than that.
#[derive(Clone, Default)]
struct Obstacle(Arc<Mutex<Option<String>>>);

impl Obstacle {
    /// Passes a result on, and remembers its error.
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
        result
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A [`UdpSocket`] that remembers what kept it from a name server.
struct DnsUdp {
    socket: UdpSocket,
    obstacle: Obstacle,
}

impl DnsUdpSocket for DnsUdp {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.socket.poll_recv_from(cx, buf).map(|received| self.obstacle.note(received))
    }

    fn poll_send_to(&self, _cx: &mut Context<'_>, buf: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        Poll::Ready(self.obstacle.note(self.socket.try_send_to(buf, to)))
    }
}

/// A [`TcpStream`] with the traits of the `futures` crates, which hickory speaks.
struct DnsTcp(Compat<TcpStream>);

impl AsyncRead for DnsTcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for DnsTcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

impl DnsTcpStream for DnsTcp {
    type Time = TokioTime;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers_of(resolv_conf: &str) -> Option<Vec<IpAddr>> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), resolv_conf).expect("written");
        reachable_name_servers(file.path()).map(|(servers, _)| servers)
    }

    #[test]
    fn a_loopback_stub_is_not_a_name_server_for_us() {
        assert_eq!(servers_of("nameserver 127.0.0.53\noptions edns0\n"), None);
        assert_eq!(
            servers_of("nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch lan\n"),
            Some(vec!["10.0.0.1".parse().expect("an address"), "10.0.0.2".parse().expect("an address")])
        );
        assert_eq!(servers_of(""), None);
    }
}
