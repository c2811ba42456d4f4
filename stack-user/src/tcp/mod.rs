//! TCP (RFC 9293), without input or output: segments, time and calls go in, segments, points in time and events come
//! out.
//!
//! A [`Connection`] is driven like this:
//!
//! ```text
//!   handle_segment ─┐                    ┌─▶ poll_transmit   until None: the segments to send
//!   handle_timeout ─┼─▶  Connection  ────┼─▶ poll_timeout    when to call handle_timeout
//!   read, write, …  ┘                    └─▶ poll_event      until None: what the application should know
//! ```
//!
//! After anything went in, whoever drives it polls all three; behind a full segment, it asks for
//! [those that may follow](Connection::transmit_followers) in one go. The bytes themselves stay in the frames that the NIC
//! reads and writes; [`handle_completion`](Connection::handle_completion) brings a sent frame back, to be sent again
//! if need be.
#![forbid(unsafe_code)]

pub mod ack;
pub mod autotune;
pub mod block;
pub mod config;
pub mod congestion;
pub mod connection;
pub mod delivery_rate;
mod ecn;
pub mod error;
pub mod event;
pub mod half_open;
pub mod idle;
mod in_place;
pub mod info;
mod input;
pub mod isn;
pub mod keepalive;
pub mod nagle;
pub mod options;
mod output;
mod pacing;
pub mod payload;
pub mod persist;
pub mod pmtud;
pub mod ports;
pub mod reassembly;
pub mod recovery;
pub mod recv_queue;
pub mod rtt;
pub mod segment;
pub mod send_queue;
pub mod seq;
pub mod state;
pub mod syn_cookie;
pub mod time_wait;
mod timeout;
pub mod timer;
pub mod timestamps;
mod touch;
pub mod trace;
mod unreachable;
mod urgent;
mod user;
pub mod user_timeout;
pub mod window;

#[cfg(test)]
mod testing;

pub use config::{Config, PathMtuProbing};
pub use connection::Connection;
pub use error::{Error, ReadError, Unreachable, WriteError};
pub use event::Event;
pub use half_open::{Arrival, HalfOpen};
pub use idle::{Idle, View};
pub use in_place::Reserved;
pub use info::Info;
pub use input::listen::{Knock, on_segment_in_listen};
pub use isn::{SecretKey, Secrets};
pub use keepalive::KeepAlive;
pub use output::Transmit;
pub use ports::EphemeralPorts;
pub use segment::Segment;
pub use seq::SeqNumber;
pub use state::State;
pub use time_wait::{Revisit, TimeWait};
pub use timeout::R1;
pub use user_timeout::{UserTimeout, UserTimeoutLimits};
