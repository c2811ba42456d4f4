//! Clients of hyper-util: a connector that looks names up and connects through the stack.
//!
//! ```no_run
//! use http_body_util::Empty;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use stack_user::api::{Resolver, Stack, connectors::hyper::Connector};
//!
//! # async fn fetch() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = Stack::builder().start().await?;
//! let connector = Connector::new(Resolver::new(&stack, &[])?);
//! let client = Client::builder(TokioExecutor::new()).build::<_, Empty<bytes::Bytes>>(connector);
//! let response = client.get("http://example.com/".parse()?).await?;
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tower::Service;

use crate::api::{
    Resolver, TcpSocket, TcpStream,
    lookup::{connect_first, lookup_host},
};

/// A `tower::Service` from a URI to a connection: what `hyper_util::client::legacy::connect::HttpConnector` is to the kernel's
/// stack. Small writes are sent at once, unless the socket that it was [given](Self::with_socket) says otherwise.
#[derive(Clone, Debug)]
pub struct Connector {
    resolver: Resolver,
    socket: TcpSocket,
    enforces_http: bool,
}

/// The ends of a connection: among the extensions of the responses that came over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl Connector {
    /// A connector that asks `resolver`, and connects through its stack.
    pub fn new(resolver: Resolver) -> Self {
        let mut socket = TcpSocket::new(resolver.stack());
        socket.set_nodelay(true);
        Self::with_socket(resolver, socket)
    }

    /// A connector whose connections are as `socket` says.
    pub fn with_socket(resolver: Resolver, socket: TcpSocket) -> Self {
        Self { resolver, socket, enforces_http: true }
    }

    /// Whether only `http` is connected to, which is the default: nothing here speaks TLS, and a request must not go out in
    /// the clear because of that. A connector that speaks TLS over this one, such as that of `hyper_rustls`, needs false.
    pub fn enforce_http(&mut self, enforces_http: bool) {
        self.enforces_http = enforces_http;
    }

    fn target<'a>(&self, uri: &'a Uri) -> Result<(&'a str, u16), String> {
        let default_port = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => 80,
            Some(scheme) if *scheme == Scheme::HTTPS && !self.enforces_http => 443,
            Some(scheme) => {
                return Err(format!("the scheme of {uri} is '{scheme}', and this connector speaks http"));
            }
            None => return Err(format!("{uri} has no scheme: say http://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(format!("{uri} names no host"))?;
        // An IPv6 address is in brackets.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok((host, uri.port_u16().unwrap_or(default_port)))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let target =
                connector.target(&uri).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
            let addresses: Vec<_> = lookup_host(&connector.resolver, target).await?.collect();
            let stream =
                connect_first(&addresses, |address| connector.socket.clone().connect(address)).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connection for TcpStream {
    fn connected(&self) -> Connected {
        Connected::new().extra(Ends { local: self.local_addr(), remote: self.peer_addr() })
    }
}
