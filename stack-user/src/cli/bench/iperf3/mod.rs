//! iperf3's protocol, so that the real one may be the other end, in either role.
//!
//! A test's life, at the client: [`options`] → the control connection ([`control`]) → [`parameters`] are told → streams are
//! connected, each with the test's cookie → they run ([`running`]: bytes by [`stream`], datagrams by [`udp`], kept to a rate by [`pace`], measured by
//! [`meter`]) → [`results`] are exchanged → and told, for people ([`report`], with [`units`]) or for programs ([`json`]). The
//! [`server`] does the same as a client bids it.
//!
//! What a peer says is parsed into a type once, with every number in its bounds.

mod client;
mod control;
mod json;
mod meter;
mod options;
mod pace;
mod parameters;
mod report;
mod results;
mod running;
mod server;
mod stream;
mod udp;
mod units;

pub use self::options::ClientOptions;
pub(super) use self::{client::run, options::interval, server::Server};

/// Whether a test's cookie may have it.
pub(super) fn is_of_a_cookie(byte: u8) -> bool {
    control::Cookie::has(byte)
}
