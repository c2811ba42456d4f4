//! Fetches a page, `http` or `https`, by hyper's client over our stack, and writes it to stdout.
//!
//! `hyper_client INTERFACE ADDRESS URL [CERTIFICATE]`: ADDRESS is the one to claim (or `auto`), and CERTIFICATE a PEM file
//! with the authority that signs for https.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use stack_user::api::{Resolver, Stack, connectors::hyper::Connector};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: hyper_client INTERFACE ADDRESS URL [CERTIFICATE]");
    let (interface, address, url) = (next()?, next()?.parse()?, next()?);
    let mut authorities = RootCertStore::empty();
    if let Ok(file) = next() {
        authorities.add(CertificateDer::from_pem_file(file)?)?;
    }

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    // The name servers are the host's own.
    let mut connector = Connector::new(Resolver::new(&stack, &[])?);
    connector.enforce_http(false);
    let tls = ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);

    let response = client.get(url.parse()?).await?;
    ensure!(response.status().is_success(), "{url}: {}", response.status());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        std::io::stdout().write_all(frame?.data_ref().unwrap_or(&Bytes::new()))?;
    }
    Ok(std::io::stdout().flush()?)
}
