//! `xstack bench server`: one port for all benchmarks.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use nix::unistd::geteuid;
use tokio::{io::AsyncReadExt, time::timeout};

use super::{Common, iperf3, rpc, transport::Transport};
use crate::cli::{
    console::{Console, printable},
    error::{Exit, Failure},
    network::{Connection, Listener, Network},
    relay::command::raise_descriptor_limit,
    service::Service,
};

/// Where iperf3 listens, too.
pub(super) const PORT: u16 = 5201;

/// Connections at once. `conns` holds a million of them; more than twice as many would be a mistake, or an attack that the
/// memory of the stack should not have to find out.
const MAX_CONNECTIONS: usize = 2_500_000;

/// Ports at most, which is what a client can be told.
const MAX_PORTS: i64 = 1 + rpc::MAX_PORTS as i64;

/// How long a client may be silent before it has said what it speaks. A lost SYN-ACK and a lost first segment take four
/// seconds; whoever is silent for longer has nothing to say.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a test that is stopped may take to tell so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Over our stack root is given up, and what is left is filtered; over the kernel's nothing is set up that would need it.
const STAYS_ROOT: &str = "xstack: warning: with --kernel this stays root, with a port that is open: it needs no privileges, so start \
                          it as an ordinary user";

/// What `xstack bench server` can be told.
#[derive(Args, Clone, Debug)]
pub struct ServerOptions {
    /// Listen on this port
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// Listen on this address
    #[arg(short = 'B', long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind: IpAddr,

    /// Serve one test of iperf3's, and end
    #[arg(short = '1', long)]
    pub one_off: bool,

    /// Report tests of iperf3's every so many seconds; 0 for at the end only
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "1", value_parser = iperf3::interval)]
    pub interval: Duration,

    /// Report them as iperf3's JSON, at the end of each
    #[arg(short = 'J', long)]
    pub json: bool,

    /// Listen on N ports: that one, and others that are free and that clients are told
    ///
    /// A client of `bench crr` or `bench conns` can have about 30000 connections a minute to each of them.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=MAX_PORTS))]
    pub ports: u16,

    /// What all benchmarks have.
    #[command(flatten)]
    pub common: Common,
}

/// What connections share.
struct Shared<N: Transport> {
    bulk: iperf3::Server<N>,
    /// How many there were.
    accepted: AtomicU64,
    /// Where else there is the same.
    ports: Vec<u16>,
}

/// Serves until told to stop.
pub(super) async fn run<N: Transport>(
    options: ServerOptions,
    console: Console,
    network: &Arc<N>,
    stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    raise_descriptor_limit();
    let listener = listen(&**network, SocketAddr::new(options.bind, options.port)).await?;
    let mut others = Vec::new();
    for _ in 1..options.ports {
        others.push(listen(&**network, SocketAddr::new(options.bind, 0)).await?);
    }
    let ports = others.iter().filter_map(|other| Some(other.local_addr().ok()?.port())).collect();
    tell_where(&console, &**network, &listener);
    if options.common.kernel && geteuid().is_root() {
        console.diagnostics.line(STAYS_ROOT);
    }
    let service = Service::new(MAX_CONNECTIONS);
    let style = (options.json, options.interval, options.common.verbose);
    let bulk = iperf3::Server::new(
        (Arc::clone(network), SocketAddr::new(options.bind, options.port)),
        style,
        options.one_off,
        console,
        service.stopping().clone(),
    );
    let shared = Arc::new(Shared { bulk, accepted: AtomicU64::new(0), ports });
    let taken = Arc::clone(&shared);
    let serve = move |stream, remote| {
        let shared = Arc::clone(&taken);
        async move { serve(&shared, stream, remote).await }
    };
    let accepting = service.accept_at(std::iter::once(listener).chain(others), serve);
    let served = tokio::select! {
        biased;
        _ = stop => Ok(Exit::Success),
        () = shared.bulk.done() => Ok(Exit::Success),
        ended = accepting => match ended {
            Ok(_) => Ok(Exit::Success),
            Err(error) => Err(Failure::Interface(format!("nothing more comes in: {error}"))),
        },
    };
    service.stop(LAST_WORDS).await;
    served
}

async fn listen<N: Network>(network: &N, local: SocketAddr) -> Result<N::Listener, Failure> {
    network.listen(local).await.map_err(|source| Failure::Listen { local, source })
}

/// Serves one connection, as its first bytes ask for.
async fn serve<N: Transport>(shared: &Shared<N>, mut stream: N::Stream, remote: SocketAddr) {
    let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
    let mut head = [0; rpc::MAGIC.len()];
    match timeout(HEAD_TIMEOUT, stream.read_exact(&mut head)).await {
        Ok(Ok(_)) if head == rpc::MAGIC => rpc::serve(stream, &shared.ports).await,
        Ok(Ok(_)) if head.iter().all(|byte| iperf3::is_of_a_cookie(*byte)) => {
            // There is one of these, and there may be a million of the others, whose tasks have no room for it.
            Box::pin(shared.bulk.serve(stream, remote, number, &head)).await;
        }
        // Whoever says something else, or nothing, is no client of ours.
        _ => stream.reset(),
    }
}

/// Whoever starts it waits for this line.
fn tell_where<N: Network>(console: &Console, network: &N, listener: &N::Listener) {
    let Ok(local) = listener.local_addr() else { return };
    let addresses = if local.ip().is_unspecified() { network.addresses() } else { Vec::new() };
    let at: Vec<_> = match &addresses[..] {
        [] => vec![local],
        addresses => addresses.iter().map(|&ip| SocketAddr::new(ip, local.port())).collect(),
    };
    let told: Vec<_> = at.iter().map(SocketAddr::to_string).collect();
    console.diagnostics.line(&printable(&format!("xstack: benchmarks are served at {}", told.join(", "))));
}
