//! From a host's name to a connection, by one deadline.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use url::Host;

use crate::{
    cli::{
        error::Failure,
        network::{ConnectError, Network, ResolveError},
        relay::dial::share,
    },
    telemetry::STORY,
};

/// A connection to the first of the host's addresses that has one for us, and which it is: all of it within `patience`, however
/// many addresses there are.
pub(super) async fn dial<N: Network>(
    network: &N,
    host: &str,
    port: u16,
    patience: Duration,
) -> Result<(N::Stream, SocketAddr), Failure> {
    let begun = Instant::now();
    let deadline = begun + patience;
    let addresses = match timeout_at(deadline, resolve(network, host)).await {
        Ok(resolved) => resolved?,
        Err(_) => return Err(Failure::ResolveTimedOut { elapsed_ms: begun.elapsed().as_millis() }),
    };
    let mut outcome = Err(Failure::Resolve { host: host.to_owned(), reason: ResolveError::UnknownHost });
    for (index, &ip) in addresses.iter().enumerate() {
        let remote = SocketAddr::new(ip, port);
        let share = share(deadline, addresses.len() - index);
        match connect(network, host, remote, (begun, share)).await {
            Ok(stream) => {
                tracing::info!(target: STORY, "connected to {remote}");
                return Ok((stream, remote));
            }
            Err(failure) => outcome = Err(failure),
        }
    }
    outcome
}

/// One more connection to a host, within `patience`.
pub(super) async fn dial_again<N: Network>(
    network: &N,
    host: &str,
    remote: SocketAddr,
    patience: Duration,
) -> Result<N::Stream, Failure> {
    let begun = Instant::now();
    connect(network, host, remote, (begun, begun + patience)).await
}

async fn connect<N: Network>(
    network: &N,
    host: &str,
    remote: SocketAddr,
    (begun, deadline): (Instant, Instant),
) -> Result<N::Stream, Failure> {
    let connected = timeout_at(deadline, network.connect(remote)).await;
    connected.unwrap_or(Err(ConnectError::TimedOut)).map_err(|reason| Failure::Connect {
        host: host.to_owned(),
        port: remote.port(),
        elapsed_ms: begun.elapsed().as_millis(),
        reason,
    })
}

async fn resolve<N: Network>(network: &N, host: &str) -> Result<Vec<IpAddr>, Failure> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    match Host::parse(host) {
        Ok(Host::Domain(name)) => {
            let resolved = network.resolve(&name).await;
            resolved.map_err(|reason| Failure::Resolve { host: host.to_owned(), reason })
        }
        Ok(Host::Ipv4(ip)) => Ok(vec![ip.into()]),
        Ok(Host::Ipv6(ip)) => Ok(vec![ip.into()]),
        Err(error) => Err(Failure::Usage(format!("'{host}' is neither a name nor an address: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::network::testing::Slow;

    #[tokio::test(start_paused = true)]
    async fn a_name_and_all_of_its_addresses_have_one_deadline() {
        let begun = Instant::now();
        let failure =
            dial(&Slow, "example.com", 5201, Duration::from_secs(10)).await.expect_err("nobody is there");
        assert!(matches!(failure, Failure::Connect { port: 5201, .. }), "{failure:?}");
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        let failure =
            dial(&Slow, "example.com", 5201, Duration::from_secs(5)).await.expect_err("no name yet");
        assert!(matches!(failure, Failure::ResolveTimedOut { elapsed_ms: 5_000 }), "{failure:?}");
        assert_eq!(begun.elapsed(), Duration::from_secs(15));
    }
}
