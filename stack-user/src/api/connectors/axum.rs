//! Servers of axum: our listener in `axum::serve`.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use stack_user::api::{Stack, TcpListener};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = Stack::builder().start().await?;
//! let listener = TcpListener::bind(&stack, "0.0.0.0:80".parse()?).await?;
//! let router = Router::new().route("/", get(|| async { "hello" }));
//! axum::serve(listener, router).await?;
//! # Ok(())
//! # }
//! ```
//!
//! For handlers that want the peer's address, `router.into_make_service_with_connect_info::<Peer>()` makes a [`Peer`] of it.
//! (With `listener.tap_io(|_| ())` of `axum::serve::ListenerExt` it can be a `SocketAddr`, too, as tokio's.)

use std::{future::pending, io, net::SocketAddr};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};

use crate::api::{TcpListener, TcpStream};

/// The peer's address, for `axum::extract::ConnectInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    /// Waits for a connection. When the stack has stopped or was [shut down](crate::api::Stack::shut_down), none will come:
    /// that is logged, and this waits for ever, since axum has no way to hear of it. End such a server by its
    /// `with_graceful_shutdown`.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match Self::accept(self).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!("no more connections on {}: {error}", Self::local_addr(self));
                pending().await
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}
