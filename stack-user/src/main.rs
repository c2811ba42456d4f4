//! The `xstack` command.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use stack_user::cli::error::Failure;
use stack_user::cli::global::GlobalOptions;
use stack_user::cli::network::{ConnectError, Network, ResolveError};
use tokio::io::DuplexStream;

fn main() -> ExitCode {
    stack_user::cli::main(open)
}

/// No stack can be brought up yet: the layers below are being built.
async fn open(_: &GlobalOptions) -> Result<Detached, Failure> {
    let reason = io::Error::from(io::ErrorKind::Unsupported);
    Err(Failure::Interface(format!("Could not attach to a network interface: {reason}")))
}

enum Detached {}

impl Network for Detached {
    type Stream = DuplexStream;

    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match *self {}
    }

    async fn connect(&self, _: SocketAddr) -> Result<DuplexStream, ConnectError> {
        match *self {}
    }
}
