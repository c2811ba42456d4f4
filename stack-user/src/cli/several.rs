//! Several networks as one: a host with more than one interface.
//!
//! What listens on an address is the network's that has it, and what listens on all addresses is on all networks. A
//! connection goes out through the network that its peer is on, else through the first that has a router
//! (RFC 1122 §3.3.1.1, §3.3.4.3).

use std::{
    cmp::Reverse,
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::future::{join_all, select_all};

use super::{
    error::Failure,
    network::{ConnectError, Listener, Network, ResolveError},
    privileges::Profile,
};
use crate::net::routes::Reach;

/// How often a port is looked for that is free on all networks: the first one gives one, and another may have it in use. Fewer,
/// and a host with many listeners might find none; more does not help.
const PORT_ATTEMPTS: usize = 16;

/// A network that can stand beside others.
pub trait Part: Network {
    /// How it reaches a peer.
    fn reach(&self, remote: IpAddr) -> Reach;

    /// Whether it was told whom to ask for names.
    fn has_name_servers(&self) -> bool;
}

/// Networks in the order of preference, one at least.
#[derive(Debug)]
pub struct Several<N> {
    first: N,
    others: Vec<N>,
}

impl<N: Part> Several<N> {
    /// These networks.
    pub fn new(first: N, others: Vec<N>) -> Self {
        Self { first, others }
    }

    /// All of them, in the order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &N> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The one that `key` gives most for: of several, the first.
    fn best<K: Ord>(&self, key: impl Fn(&N) -> K) -> &N {
        self.iter().min_by_key(|network| Reverse(key(network))).unwrap_or(&self.first)
    }

    /// Where connections to a peer come from.
    fn towards(&self, remote: IpAddr) -> &N {
        self.best(|network| network.reach(remote))
    }

    /// Who is asked for names: the first that was told its name servers. If none was, they are the host's, which are most
    /// often beyond a router.
    fn asked(&self) -> &N {
        let everywhere = IpAddr::from([0, 0, 0, 0]);
        self.best(|network| (network.has_name_servers(), network.reach(everywhere)))
    }

    async fn listen_at(
        &self,
        local: SocketAddr,
        backlog: Option<usize>,
    ) -> io::Result<Listeners<N::Listener>> {
        if !local.ip().is_unspecified() {
            // If nobody has the address, any of them says so in its own words.
            let owner = self.best(|network| network.addresses().contains(&local.ip()));
            return Ok(Listeners::new(vec![listen(owner, local, backlog).await?]));
        }
        for _ in 1..PORT_ATTEMPTS {
            match self.listen_on_all(local, backlog).await {
                Err(error) if local.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                done => return done.map(Listeners::new),
            }
        }
        self.listen_on_all(local, backlog).await.map(Listeners::new)
    }

    async fn listen_on_all(&self, local: SocketAddr, backlog: Option<usize>) -> io::Result<Vec<N::Listener>> {
        let mut listeners = vec![listen(&self.first, local, backlog).await?];
        let local = SocketAddr::new(local.ip(), listeners[0].local_addr()?.port());
        for network in &self.others {
            listeners.push(listen(network, local, backlog).await?);
        }
        Ok(listeners)
    }
}

async fn listen<N: Network>(
    network: &N,
    local: SocketAddr,
    backlog: Option<usize>,
) -> io::Result<N::Listener> {
    match backlog {
        Some(backlog) => network.listen_with(local, backlog).await,
        None => network.listen(local).await,
    }
}

impl<N: Part> Network for Several<N> {
    type Stream = N::Stream;
    type Listener = Listeners<N::Listener>;

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.asked().resolve(host).await
    }

    async fn connect(&self, remote: SocketAddr) -> Result<N::Stream, ConnectError> {
        self.towards(remote.ip()).connect(remote).await
    }

    async fn listen(&self, local: SocketAddr) -> io::Result<Listeners<N::Listener>> {
        self.listen_at(local, None).await
    }

    async fn listen_with(&self, local: SocketAddr, backlog: usize) -> io::Result<Listeners<N::Listener>> {
        self.listen_at(local, Some(backlog)).await
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.iter().flat_map(Network::addresses).collect()
    }

    fn becomes_another_user(&self) -> bool {
        self.iter().any(Network::becomes_another_user)
    }

    fn becomes(&self) -> Option<(u32, u32)> {
        self.iter().find_map(Network::becomes)
    }

    /// All of the process's threads give up everything at once: the first does it for all.
    fn give_up_privileges(&self, profile: Profile) -> Result<(), Failure> {
        self.iter().try_for_each(|network| network.give_up_privileges(profile))
    }

    async fn close(self) {
        let Self { first, others } = self;
        join_all(std::iter::once(first).chain(others).map(Network::close)).await;
    }
}

/// Listeners on the same port of several networks, or the one on an address.
#[derive(Debug)]
pub struct Listeners<L> {
    listeners: Vec<L>,
    /// Who is asked first the next time, so that one to which many come does not keep others waiting.
    turn: AtomicUsize,
}

impl<L: Listener> Listeners<L> {
    /// One at least.
    fn new(listeners: Vec<L>) -> Self {
        Self { listeners, turn: AtomicUsize::new(0) }
    }
}

impl<L: Listener> Listener for Listeners<L> {
    type Stream = L::Stream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let first = self.listeners.first().ok_or(io::ErrorKind::NotConnected)?;
        first.local_addr()
    }

    /// What was not ready when another was is asked again the next time: as each of them is cancel safe, so is this.
    async fn accept(&self) -> io::Result<(L::Stream, SocketAddr)> {
        if let [only] = &self.listeners[..] {
            return only.accept().await;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.listeners.len();
        let (before, from) = self.listeners.split_at(turn);
        let accepting = from.iter().chain(before).map(|listener| Box::pin(listener.accept()));
        select_all(accepting).await.0
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::{
        net::{TcpListener, TcpSocket, TcpStream},
        time::timeout,
    };

    use super::*;
    use crate::{
        cli::{kernel::connect_error, network::Connection},
        net::route::Prefix,
    };

    const PATIENCE: Duration = Duration::from_secs(10);

    /// One address of the kernel's loopback, as if it were an interface of its own.
    struct Fake {
        address: Ipv4Addr,
        subnet: Prefix,
        has_router: bool,
        has_name_servers: bool,
    }

    impl Network for Fake {
        type Stream = TcpStream;
        type Listener = TcpListener;

        /// A name is where it was looked up.
        async fn resolve(&self, _host: &str) -> Result<Vec<IpAddr>, ResolveError> {
            Ok(vec![self.address.into()])
        }

        async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
            let connecting = async {
                let socket = TcpSocket::new_v4()?;
                socket.bind((self.address, 0).into())?;
                socket.connect(remote).await
            };
            connecting.await.map_err(|error| connect_error(&error))
        }

        async fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
            let ip = if local.ip().is_unspecified() { self.address.into() } else { local.ip() };
            if ip != self.address {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            TcpListener::bind((ip, local.port())).await
        }

        fn addresses(&self) -> Vec<IpAddr> {
            vec![self.address.into()]
        }
    }

    impl Part for Fake {
        fn reach(&self, remote: IpAddr) -> Reach {
            match (self.subnet.contains(remote), self.has_router) {
                (true, _) => Reach::OnLink(self.subnet.length()),
                (false, true) => Reach::ThroughRouter,
                (false, false) => Reach::Nowhere,
            }
        }

        fn has_name_servers(&self) -> bool {
            self.has_name_servers
        }
    }

    fn fake(last: u8, subnet: &str, has_router: bool) -> Fake {
        let subnet = subnet.parse().expect("a prefix");
        Fake { address: Ipv4Addr::new(127, 0, 7, last), subnet, has_router, has_name_servers: false }
    }

    fn three() -> Several<Fake> {
        let others = vec![fake(2, "127.2.0.0/16", true), fake(3, "127.2.3.0/24", true)];
        Several::new(fake(1, "127.1.0.0/16", false), others)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn rfc1122_3_3_1_1_a_connection_goes_through_the_network_of_its_peer_else_the_first_with_a_router()
    {
        let networks = three();
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("loopback");
        let port = TcpListener::local_addr(&listener).expect("an address").port();
        for (peer, from) in [
            ("127.1.0.9", "127.0.7.1"),
            ("127.2.0.9", "127.0.7.2"),
            // In the wider one, too.
            ("127.2.3.9", "127.0.7.3"),
            ("127.9.9.9", "127.0.7.2"),
        ] {
            let stream = networks.connect((ip(peer), port).into()).await.expect(peer);
            assert_eq!(Connection::local_addr(&stream).map(|local| local.ip()), Some(ip(from)), "{peer}");
        }
        let nowhere = Several::new(fake(1, "127.1.0.0/16", false), vec![fake(2, "127.2.0.0/16", false)]);
        assert_eq!(nowhere.towards(ip("127.9.9.9")).address, Ipv4Addr::new(127, 0, 7, 1), "it says why not");
    }

    #[tokio::test]
    async fn names_are_asked_for_where_name_servers_were_told_else_where_there_is_a_router() {
        let mut networks = three();
        assert_eq!(networks.resolve("x").await, Ok(vec![ip("127.0.7.2")]));
        networks.others[1].has_name_servers = true;
        assert_eq!(networks.resolve("x").await, Ok(vec![ip("127.0.7.3")]));
        networks.first.has_name_servers = true;
        assert_eq!(networks.resolve("x").await, Ok(vec![ip("127.0.7.3")]), "that is the one with a router");
        networks.others[1].has_name_servers = false;
        assert_eq!(networks.resolve("x").await, Ok(vec![ip("127.0.7.1")]));
    }

    #[tokio::test]
    async fn an_address_is_its_networks_and_none_is_all_of_them() {
        let networks = three();
        assert_eq!(networks.addresses(), [ip("127.0.7.1"), ip("127.0.7.2"), ip("127.0.7.3")]);
        let one = networks.listen("127.0.7.2:0".parse().expect("ok")).await.expect("listens");
        assert_eq!(one.local_addr().expect("an address").ip(), ip("127.0.7.2"));
        let foreign = networks.listen("127.0.7.9:0".parse().expect("ok")).await.err();
        assert_eq!(foreign.map(|error| error.kind()), Some(io::ErrorKind::AddrNotAvailable));

        let all = networks.listen("0.0.0.0:0".parse().expect("ok")).await.expect("listens");
        let port = all.local_addr().expect("an address").port();
        for last in 1..=3 {
            let to = SocketAddr::from(([127, 0, 7, last], port));
            let _client = TcpStream::connect(to).await.expect("somebody listens");
            let (stream, _) = timeout(PATIENCE, all.accept()).await.expect("comes in").expect("accepts");
            assert_eq!(Connection::local_addr(&stream), Some(to));
        }
        // A port that one of them has is not free on all.
        let taken = networks.listen((ip("0.0.0.0"), one.local_addr().expect("an address").port()).into());
        assert_eq!(taken.await.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[tokio::test]
    async fn who_is_busy_keeps_nobody_waiting_and_nothing_is_lost_by_not_waiting() {
        let networks = three();
        let all = networks.listen("0.0.0.0:0".parse().expect("ok")).await.expect("listens");
        let port = all.local_addr().expect("an address").port();
        // Somebody waits, and gives up.
        assert!(timeout(Duration::from_millis(20), all.accept()).await.is_err());
        let mut clients = Vec::new();
        for last in [1, 1, 1, 1, 1, 1, 3] {
            clients.push(TcpStream::connect((Ipv4Addr::new(127, 0, 7, last), port)).await.expect("connects"));
        }
        let mut order = Vec::new();
        for _ in 0..clients.len() {
            let (stream, _) = timeout(PATIENCE, all.accept()).await.expect("comes in").expect("accepts");
            order.push(Connection::local_addr(&stream).map(|local| local.ip()));
        }
        let turn = order.iter().position(|at| *at == Some(ip("127.0.7.3")));
        assert!(turn.is_some_and(|turn| turn < 3), "{order:?}");
    }
}
