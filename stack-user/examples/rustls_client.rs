//! A TLS client: rustls over our stream. It asks for a page, and writes what comes, header and all, to stdout.
//!
//! `rustls_client INTERFACE ADDRESS HOST PORT CERTIFICATE`: ADDRESS is the one to claim (or `auto`), and CERTIFICATE a PEM
//! file with the authority that signs.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use stack_user::api::{Resolver, Stack, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next =
        || arguments.next().context("usage: rustls_client INTERFACE ADDRESS HOST PORT CERTIFICATE");
    let (interface, address, host, port) = (next()?, next()?.parse()?, next()?, next()?.parse::<u16>()?);
    let mut authorities = RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_file(next()?)?)?;
    let config = ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth();

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    let resolver = Resolver::new(&stack, &[])?;
    let stream = TcpStream::connect_host(&resolver, (host.as_str(), port)).await?;
    let name = ServerName::try_from(host.clone())?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    std::io::Write::write_all(&mut std::io::stdout(), &answer)?;
    Ok(())
}
