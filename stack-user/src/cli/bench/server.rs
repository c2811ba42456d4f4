//! `xstack bench server`: one port for all benchmarks.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio::{io::AsyncReadExt, time::timeout};

use super::{Common, iperf3, rpc};
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

/// How long a client may be silent before it has said what it speaks. A lost SYN-ACK and a lost first segment take four
/// seconds; whoever is silent for longer has nothing to say.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// What all benchmarks have.
    #[command(flatten)]
    pub common: Common,
}

/// Serves until told to stop.
pub(super) async fn run<N: Network>(
    options: ServerOptions,
    console: Console,
    network: &Arc<N>,
    stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    raise_descriptor_limit();
    let local = SocketAddr::new(options.bind, options.port);
    let listener = network.listen(local).await.map_err(|source| Failure::Listen { local, source })?;
    tell_where(&console, &**network, &listener);
    let service = Service::new(MAX_CONNECTIONS);
    let served = tokio::select! {
        biased;
        _ = stop => Ok(Exit::Success),
        ended = service.accept(listener, |stream, _| serve(stream)) => match ended {
            Ok(()) => Ok(Exit::Success),
            Err(error) => Err(Failure::Interface(format!("nothing more comes in: {error}"))),
        },
    };
    service.stop(Duration::ZERO).await;
    served
}

/// Serves one connection, as its first bytes ask for.
async fn serve<S: Connection>(mut stream: S) {
    let mut head = [0; rpc::MAGIC.len()];
    match timeout(HEAD_TIMEOUT, stream.read_exact(&mut head)).await {
        Ok(Ok(_)) if head == rpc::MAGIC => rpc::serve(stream).await,
        Ok(Ok(_)) if head.iter().all(|byte| iperf3::is_of_a_cookie(*byte)) => {
            iperf3::serve(stream, &head).await
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
