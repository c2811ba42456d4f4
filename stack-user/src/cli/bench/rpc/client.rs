//! From a host's name to a connection on which the server has agreed.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use url::Host;

use super::{
    broken::Broken,
    options::Target,
    protocol::{ANSWER, Head, Hello, Lengths, Purpose},
};
use crate::{
    cli::{
        console::printable,
        error::Failure,
        network::{ConnectError, Network, ResolveError},
        relay::dial::share,
    },
    telemetry::STORY,
};

/// How long a connection and the server's agreement may take: the SYN and the hello may each be lost twice.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The places where the server is to be had, the one that was asked first: it listens on several ports, so that a client can
/// have more connections to it than there are ports on the client's side.
///
/// Whether it agrees to the lengths is asked along with that.
pub(super) async fn ask<N: Network>(
    network: &N,
    target: &Target,
    lengths: Lengths,
) -> Result<Vec<SocketAddr>, Failure> {
    let (mut stream, remote) = dial(network, target).await?;
    let hello = Hello { purpose: Purpose::Ask, lengths };
    let ports = agree(&mut stream, hello).await?;
    let _ = stream.shutdown().await;
    let others = ports.into_iter().map(|port| SocketAddr::new(remote.ip(), port));
    Ok(std::iter::once(remote).chain(others).collect())
}

/// A connection to the first of the host's addresses that has one for us, and which it is.
pub(super) async fn dial<N: Network>(
    network: &N,
    target: &Target,
) -> Result<(N::Stream, SocketAddr), Failure> {
    let begun = Instant::now();
    let elapsed_ms = || begun.elapsed().as_millis();
    let (host, port) = (&target.host, target.port);
    let deadline = begun + PATIENCE;
    let addresses = match timeout_at(deadline, resolve(network, host)).await {
        Ok(resolved) => resolved?,
        Err(_) => return Err(Failure::ResolveTimedOut { elapsed_ms: elapsed_ms() }),
    };
    let unknown = ResolveError::UnknownHost;
    let mut outcome = Err(Failure::Resolve { host: host.clone(), reason: unknown });
    for (index, &ip) in addresses.iter().enumerate() {
        let remote = SocketAddr::new(ip, port);
        let share = share(deadline, addresses.len() - index);
        let connected = timeout_at(share, network.connect(remote)).await;
        match connected.unwrap_or(Err(ConnectError::TimedOut)) {
            Ok(stream) => {
                tracing::info!(target: STORY, "connected to {remote}");
                return Ok((stream, remote));
            }
            Err(reason) => {
                let (host, elapsed_ms) = (host.clone(), elapsed_ms());
                outcome = Err(Failure::Connect { host, port, elapsed_ms, reason });
            }
        }
    }
    outcome
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

/// One more connection for a purpose.
pub(super) async fn open<N: Network>(
    network: &N,
    remote: SocketAddr,
    hello: Hello,
) -> Result<N::Stream, Broken> {
    let connected = timeout(PATIENCE, network.connect(remote)).await;
    let mut stream = connected.unwrap_or(Err(ConnectError::TimedOut))?;
    agree(&mut stream, hello).await?;
    Ok(stream)
}

/// Says what the connection is for. Returns the server's other ports, if that was the question.
pub(super) async fn agree<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    hello: Hello,
) -> Result<Vec<u16>, Broken> {
    let agreed = async {
        stream.write_all(&hello.encode()).await?;
        let mut answer = [0; ANSWER];
        exactly(stream, &mut answer).await?;
        let head = Head::decode(&answer)?;
        let mut ports = vec![0; 2 * head.ports];
        exactly(stream, &mut ports).await?;
        let mut text = vec![0; head.text];
        exactly(stream, &mut text).await?;
        if !head.agreed {
            return Err(Broken::Refused(printable(&String::from_utf8_lossy(&text))));
        }
        Ok(ports.chunks_exact(2).map(|port| u16::from_be_bytes([port[0], port[1]])).collect())
    };
    timeout(PATIENCE, agreed).await.unwrap_or(Err(Broken::Silent(PATIENCE.as_secs())))
}

/// Whoever closes in the middle of an answer, or resets, does not speak our protocol.
async fn exactly<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut [u8]) -> Result<(), Broken> {
    match stream.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Broken::Stranger),
        Err(error) => Err(error.into()),
    }
}
