//! Fetches a page by reqwest over our stack, and writes it to stdout.
//!
//! reqwest makes its connections itself and has no place for others. But it speaks to a SOCKS proxy: this program has one, on
//! the loopback interface, whose other side is our stack. Names are looked up there, too, and https stays encrypted from end
//! to end. (A program that is free to choose takes hyper's client instead: see hyper_client and tower_client.)
//!
//! `reqwest_client INTERFACE ADDRESS URL [CERTIFICATE]`: ADDRESS is the one to claim (or `auto`), and CERTIFICATE a PEM file
//! with the authority that signs for https.

use std::io::{self, Write};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use rand_core::{OsRng, TryRngCore};
use reqwest::{Client, Proxy};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use stack_user::api::{Resolver, Stack};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net,
};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: reqwest_client INTERFACE ADDRESS URL [CERTIFICATE]");
    let (interface, address, url) = (next()?, next()?.parse()?, next()?);
    let mut authorities = RootCertStore::empty();
    if let Ok(file) = next() {
        authorities.add(CertificateDer::from_pem_file(file)?)?;
    }
    let tls = ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth();

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    let proxy = proxy(Resolver::new(&stack, &[])?).await?;
    // `socks5h`: the proxy looks the names up.
    let client = Client::builder().proxy(Proxy::all(proxy)?).tls_backend_preconfigured(tls).build()?;
    let mut response = client.get(&url).send().await?.error_for_status()?;
    while let Some(chunk) = response.chunk().await? {
        io::stdout().write_all(&chunk)?;
    }
    Ok(io::stdout().flush()?)
}

/// Starts the proxy (RFC 1928). Returns its URL, with a password (RFC 1929) that other users of this host do not know.
async fn proxy(resolver: Resolver) -> Result<String> {
    let mut secret = [0; 16];
    OsRng.try_fill_bytes(&mut secret)?;
    let password = HEXLOWER.encode(&secret);
    let listener = net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("socks5h://us:{password}@{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (resolver, password) = (resolver.clone(), password.clone());
            tokio::spawn(async move {
                if let Err(error) = relay(stream, &resolver, &password).await {
                    eprintln!("proxy: {error}");
                }
            });
        }
    });
    Ok(url)
}

/// One connection of the proxy: the dialogue as reqwest holds it, and then bytes both ways.
async fn relay(mut client: net::TcpStream, resolver: &Resolver, password: &str) -> io::Result<()> {
    const NO_REPLY_ADDRESS: [u8; 7] = [0, 1, 0, 0, 0, 0, 0];
    let refused = || io::Error::new(io::ErrorKind::PermissionDenied, "not our client");
    // Version, the number of methods and these; we want user and password.
    let [5, methods] = read(&mut client).await? else { return Err(refused()) };
    client.read_exact(&mut vec![0; methods.into()]).await?;
    client.write_all(&[5, 2]).await?;
    let [1, user] = read(&mut client).await? else { return Err(refused()) };
    read_text(&mut client, user).await?;
    let [length] = read(&mut client).await?;
    if read_text(&mut client, length).await? != password {
        return Err(refused());
    }
    client.write_all(&[1, 0]).await?;
    // Version, CONNECT, a reserved byte, the kind of address.
    let host = match read(&mut client).await? {
        [5, 1, _, 1] => std::net::Ipv4Addr::from(read(&mut client).await?).to_string(),
        [5, 1, _, 3] => {
            let [length] = read(&mut client).await?;
            read_text(&mut client, length).await?
        }
        _ => return Err(refused()),
    };
    let port = u16::from_be_bytes(read(&mut client).await?);
    match stack_user::api::TcpStream::connect_host(resolver, (host, port)).await {
        Ok(mut server) => {
            client.write_all(&[&[5, 0][..], &NO_REPLY_ADDRESS, &[0]].concat()).await?;
            copy_bidirectional(&mut client, &mut server).await.map(|_| ())
        }
        Err(error) => {
            // A general failure; what exactly is on stderr.
            client.write_all(&[&[5, 1][..], &NO_REPLY_ADDRESS, &[0]].concat()).await?;
            Err(error)
        }
    }
}

async fn read<const N: usize>(stream: &mut net::TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn read_text(stream: &mut net::TcpStream, length: u8) -> io::Result<String> {
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(io::Error::other)
}
