//! The daemon's control socket: [`server`] is its end, [`client`] everybody else's.
//!
//! `xstack status` and `xstack connections` ask what the daemon does, and `xstack curl --daemon` has it connect. All of them
//! need no privilege but to be allowed: the daemon looks at the credentials that the kernel vouches for ([`access`]).

pub mod access;
pub mod choice;
pub mod client;
pub mod connections;
pub mod filter;
pub mod guard;
mod lock;
pub mod server;
pub mod socket;
pub mod status;
#[cfg(test)]
mod tests;
pub mod tunnel;
pub mod view;

use super::{
    console::Console,
    error::{Exit, Failure},
};
use client::ControlError;
pub use socket::DEFAULT_PATH;

/// What was asked for, or a failure of the command.
async fn ask<T>(asking: impl Future<Output = Result<T, ControlError>>) -> Result<T, Failure> {
    asking.await.map_err(|error| Failure::Control(error.to_string()))
}

async fn print(console: &mut Console, bytes: &[u8]) -> Result<(), Failure> {
    console.output.write_all(bytes).await.map_err(to_stdout)
}

async fn flush(console: &mut Console) -> Result<(), Failure> {
    console.output.flush().await.map_err(to_stdout)
}

fn to_stdout(source: std::io::Error) -> Failure {
    Failure::Write { destination: "standard output".into(), source }
}

/// Tells a failure, and how the process ends.
fn conclude(result: Result<(), Failure>, console: &Console) -> Exit {
    match result {
        Ok(()) => Exit::Success,
        Err(failure) => {
            console.diagnostics.line(&failure.line());
            failure.exit()
        }
    }
}
