//! What other crates want of a network, by our stack.
//!
//! Most crates that are written for streams need nothing: a [`TcpStream`](super::TcpStream) is tokio's `AsyncRead + AsyncWrite`,
//! and whatever takes those takes it. The modules here are for crates that open connections, listen or send datagrams
//! themselves. Each is behind a feature of its name.
//!
//! | Crate | How | Example |
//! |---|---|---|
//! | hyper, client | [`hyper::Connector`] in `hyper_util::client::legacy::Client` (feature `hyper`) | `hyper_client` |
//! | hyper, server | `TokioIo::new(stream)` | `hyper_server` |
//! | tower | the client as a `tower::Service`, in layers | `tower_client` |
//! | axum | [`TcpListener`](super::TcpListener) in `axum::serve` (feature `axum`) | `axum_server` |
//! | rustls | `tokio_rustls::{TlsConnector, TlsAcceptor}` over a stream; `hyper_rustls` over the [`hyper::Connector`] | `rustls_client`, `rustls_server` |
//! | quinn | [`quinn::endpoint`] over a [`UdpSocket`](super::UdpSocket) (feature `quinn`) | `quinn_echo` |
//! | reqwest | its transport can't be replaced, but it speaks to a SOCKS proxy in its own process | `reqwest_client` |
//!
//! # reqwest
//!
//! `reqwest` 0.13 makes its connections itself: `ClientBuilder::connector_layer` wraps its connector and can't replace it,
//! because the type of a connection is private, and `dns_resolver` replaces the lookup only. Two ways work. The client of
//! hyper-util with tower's layers is what reqwest is made of, and takes our connector. A program that has to use reqwest
//! itself runs a small SOCKS proxy on its own loopback interface, whose other side is our stack: the example does, with a
//! password that no other process knows.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "quinn")]
pub mod quinn;
