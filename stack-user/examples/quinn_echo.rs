//! An echo over QUIC by quinn, on our UDP.
//!
//! `quinn_echo INTERFACE ADDRESS server PORT CERTIFICATE` gives back what comes, and writes its certificate to a file;
//! `quinn_echo INTERFACE ADDRESS client REMOTE CERTIFICATE FILE` sends what FILE has, and what comes back to stdout.
//! ADDRESS is the one to claim. With `--kernel` in place of INTERFACE and ADDRESS, it uses the kernel's sockets instead.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use stack_user::api::{Stack, UdpSocket, connectors};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str =
    "usage: quinn_echo INTERFACE ADDRESS (server PORT CERTIFICATE | client REMOTE CERTIFICATE FILE)";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context(USAGE);
    let stack = match next()?.as_str() {
        "--kernel" => None,
        interface => {
            let builder = Stack::builder().interface(Some(interface.into())).address(next()?.parse()?);
            Some(builder.start().await?)
        }
    };
    match next()?.as_str() {
        "server" => serve(stack.as_ref(), next()?.parse()?, &next()?).await?,
        "client" => ask(stack.as_ref(), next()?.parse()?, &next()?, &next()?).await?,
        _ => bail!(USAGE),
    }
    Ok(())
}

/// An endpoint on our stack, or on the kernel's.
async fn endpoint(stack: Option<&Stack>, port: u16, config: Option<ServerConfig>) -> Result<Endpoint> {
    let local = SocketAddr::from(([0, 0, 0, 0], port));
    Ok(match (stack, config) {
        (Some(stack), config) => connectors::quinn::endpoint(UdpSocket::bind(stack, local).await?, config)?,
        (None, Some(config)) => Endpoint::server(config, local)?,
        (None, None) => Endpoint::client(local)?,
    })
}

async fn serve(stack: Option<&Stack>, port: u16, certificate: &str) -> Result<()> {
    let identity = rcgen::generate_simple_self_signed(["localhost".into()])?;
    std::fs::write(certificate, identity.cert.pem())?;
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::with_single_cert(vec![identity.cert.der().clone()], key)?;
    let mut terminated = signal(SignalKind::terminate())?;

    let endpoint = endpoint(stack, port, Some(config)).await?;
    eprintln!("listening on {}", endpoint.local_addr()?);
    loop {
        let incoming = tokio::select! {
            Some(incoming) = endpoint.accept() => incoming,
            _ = terminated.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        };
        tokio::spawn(async move {
            let peer = incoming.remote_address();
            if let Err(error) = echo(incoming.await?).await {
                eprintln!("{peer}: {error}");
            }
            anyhow::Ok(())
        });
    }
    endpoint.close(VarInt::from_u32(0), b"the server stops");
    let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    Ok(())
}

/// Gives back what comes on each stream of a connection.
async fn echo(connection: Connection) -> Result<()> {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        tokio::io::copy(&mut receive, &mut send).await?;
        send.finish()?;
    }
    let path = connection.stats().path;
    eprintln!("{}: {} of {} packets lost", connection.remote_address(), path.lost_packets, path.sent_packets);
    Ok(())
}

async fn ask(stack: Option<&Stack>, server: SocketAddr, certificate: &str, file: &str) -> Result<()> {
    let mut authorities = RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_file(certificate)?)?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(authorities))?;
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    config.transport_config(Arc::new(transport));
    let data = std::fs::read(file)?;

    let endpoint = endpoint(stack, 0, None).await?;
    let connection = endpoint.connect_with(config, server, "localhost")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let sends = async {
        send.write_all(&data).await?;
        anyhow::Ok(send.finish()?)
    };
    let receives = async {
        while let Some(chunk) = receive.read_chunk(64 << 10, true).await? {
            std::io::stdout().write_all(&chunk.bytes)?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sends, receives)?;
    connection.close(VarInt::from_u32(0), b"done");
    endpoint.wait_idle().await;
    Ok(())
}
