//! A connection on which the server has agreed.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    broken::Broken,
    options::Target,
    protocol::{ANSWER, Head, Hello, Lengths, Purpose},
};
use crate::cli::{
    bench::dial::dial,
    console::printable,
    error::Failure,
    network::{ConnectError, Network},
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
    let (mut stream, remote) = dial(network, &target.host, target.port, PATIENCE).await?;
    let hello = Hello { purpose: Purpose::Ask, lengths };
    let ports = agree(&mut stream, hello).await?;
    let _ = stream.shutdown().await;
    let others = ports.into_iter().map(|port| SocketAddr::new(remote.ip(), port));
    Ok(std::iter::once(remote).chain(others).collect())
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
