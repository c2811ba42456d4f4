//! From a host's name to a connection: every address in turn, within the time there is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::options::Override;
use super::target::Origin;
use crate::cli::error::Failure;
use crate::cli::network::{ConnectError, Network, ResolveError};
use crate::cli::relay::dial::share;
use crate::telemetry::STORY;

/// curl's own limit on connecting. Less gives up on hosts behind slow links, more keeps scripts waiting for nothing.
pub(super) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// The time in which something must be done. That it has passed is told by its own clock: by one that was started later, a limit of
/// 200 ms could have passed after 198.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) start: Instant,
    pub(super) deadline: Instant,
}

/// Connects to `origin` within `limit`.
pub(super) async fn dial<N: Network>(
    network: &N,
    origin: &Origin,
    overrides: &[Override],
    Limit { start, deadline }: Limit,
) -> Result<N::Stream, Failure> {
    let began = Instant::now();
    let elapsed_ms = || start.elapsed().as_millis();
    let addresses = match timeout_at(deadline, addresses(network, origin, overrides)).await {
        Ok(result) => result.map_err(|reason| Failure::Resolve { host: origin.host.clone(), reason })?,
        Err(_) => return Err(Failure::ResolveTimedOut { elapsed_ms: elapsed_ms() }),
    };
    // A resolver that has no address says so by an error; an empty list must not look like a refusal.
    let mut outcome = Err(Failure::Resolve { host: origin.host.clone(), reason: ResolveError::UnknownHost });
    for (index, address) in addresses.iter().enumerate() {
        let remote = SocketAddr::new(*address, origin.port);
        tracing::info!(target: STORY, "  Trying {remote}...");
        let share = share(deadline, addresses.len() - index);
        outcome = match timeout_at(share, network.connect(remote)).await {
            Ok(Ok(stream)) => {
                tracing::info!(target: STORY, "Connected to {} ({address}) port {}", origin.host, origin.port);
                return Ok(stream);
            }
            Ok(Err(reason)) => {
                tracing::info!(target: STORY, "connect to {remote} failed: {reason}");
                let (host, port) = (origin.host.clone(), origin.port);
                Err(Failure::Connect { host, port, elapsed_ms: began.elapsed().as_millis(), reason })
            }
            Err(_) => {
                tracing::info!(target: STORY, "connect to {remote} failed: {}", ConnectError::TimedOut);
                Err(Failure::ConnectTimedOut { elapsed_ms: elapsed_ms() })
            }
        };
    }
    outcome
}

async fn addresses<N: Network>(
    network: &N,
    origin: &Origin,
    overrides: &[Override],
) -> Result<Vec<IpAddr>, ResolveError> {
    // The last entry for a host counts, as with curl.
    if let Some(entry) = overrides.iter().rev().find(|entry| entry.matches(origin)) {
        tracing::info!(target: STORY, "{} port {} has its address from --resolve", origin.host, origin.port);
        return Ok(entry.addresses.clone());
    }
    match origin.address() {
        Some(address) => Ok(vec![address]),
        None => network.resolve(&origin.host).await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::cli::{curl::target::Target, network::testing::Slow};

    #[tokio::test(start_paused = true)]
    async fn what_is_told_of_a_limit_counts_from_where_the_limit_does() {
        let origin = Target::parse("http://example.com/").expect("a URL").origin();
        let mut told = Vec::new();
        for limit in [8, 20] {
            let start = Instant::now();
            let limit = Limit { start, deadline: start + Duration::from_secs(limit) };
            // Something else had the core first.
            advance(Duration::from_millis(50)).await;
            let failure = dial(&Slow, &origin, &[], limit).await.expect_err("nobody is there");
            told.push(failure.to_string());
        }
        assert_eq!(
            told,
            ["Resolving timed out after 8000 milliseconds", "Connection timed out after 20000 milliseconds"]
        );
    }
}
