//! An https server: rustls over our streams, and hyper over rustls.
//!
//! `rustls_server INTERFACE ADDRESS PORT CERTIFICATE`: ADDRESS is the one to claim. It makes a certificate for that address
//! and writes it to the file CERTIFICATE, for clients to trust. It serves until SIGTERM or Ctrl-C.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use stack_user::api::{Stack, TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

/// A client that connects and then says nothing must not be waited for.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: rustls_server INTERFACE ADDRESS PORT CERTIFICATE");
    let (interface, address, port, certificate) = (next()?, next()?.parse()?, next()?.parse()?, next()?);
    let mut terminated = signal(SignalKind::terminate())?;

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    let ours = stack.address().context("the address was lost")?;
    let identity = rcgen::generate_simple_self_signed([ours.to_string()])?;
    std::fs::write(certificate, identity.cert.pem())?;
    let key =
        PrivateKeyDer::try_from(identity.signing_key.serialize_der()).map_err(|error| anyhow!(error))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)?;
    let tls = TlsAcceptor::from(Arc::new(config));

    let listener = TcpListener::bind(&stack, (ours, port).into()).await?;
    eprintln!("listening on {}", listener.local_addr());
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminated.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(tls, stream).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
    stack.shut_down(Duration::from_secs(1)).await;
    Ok(())
}

async fn serve(tls: TlsAcceptor, stream: TcpStream) -> Result<()> {
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
    let version = stream.get_ref().1.protocol_version();
    let answer = service_fn(|_| async {
        let text = format!("this came by {version:?}\n");
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
    });
    Ok(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await?)
}
