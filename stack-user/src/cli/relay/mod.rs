//! What `forward` and `proxy` are made of: connections that come in on one side, and go on to the other.
//!
//! [`endpoint`] says where they come in and go to, [`unix`] listens on socket files, [`dial`] connects, [`pump`] carries
//! the bytes, and [`handle`] runs all of it: listeners that can be stopped and looked at.

pub(crate) mod command;
pub mod dial;
pub mod endpoint;
pub mod handle;
pub mod options;
pub mod outgoing;
pub mod pump;
pub mod unix;

use std::net::SocketAddr;
use std::sync::Arc;

use super::network::Connection;

pub use dial::{DialError, Dialer};
pub use endpoint::{Endpoint, Listen, Ports, Side, Target};
pub use handle::{Counters, Handle, StartError};
pub use options::{Limits, RelayOptions};

/// What is done with a connection that came in, whichever side it came from.
pub trait Serve: Send + Sync + 'static {
    /// Serves it to its end. `peer` is where it came from, unless that was a socket file.
    fn serve<S: Connection>(
        self: Arc<Self>,
        client: S,
        accepted: Accepted,
    ) -> impl Future<Output = ()> + Send;
}

/// What is known of a connection that came in.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Its peer, unless it came in on a socket file.
    pub peer: Option<SocketAddr>,
    /// Which of the listener's ports it came to, counted from its first.
    pub port: u16,
}
