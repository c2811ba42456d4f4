//! Our own protocol, for what iperf3 does not measure: requests and responses, connections, and both beside bulk.
//!
//! [`protocol`] says what goes over the wire. A client's way through the files: [`options`] (what it is told) → [`client`] (a
//! connection on which the server agrees) → [`rr`], [`crr`], [`conns`] or [`mix`] (what is done with it) over [`payload`]
//! (bytes), [`open_loop`] (at a fixed rate) and [`bulk`] (a flow beside) → [`course`] (when it counts and ends), [`histogram`] and [`faults`] (what has
//! happened) → [`report`] (what is told). [`server`] is the other end.
//!
//! Every transaction is a task's own work: nothing is allocated for it, and no other task is asked. The tasks are spawned, and
//! not polled by the future that the runtime blocks on: a runtime polls that one only after it has asked the kernel for events,
//! which would be a system call for each transaction.

mod broken;
mod bulk;
mod client;
pub(super) mod conns;
mod course;
pub(super) mod crr;
mod faults;
mod histogram;
mod memory;
pub(super) mod mix;
mod open_loop;
pub(super) mod options;
mod payload;
mod protocol;
mod report;
pub(super) mod rr;
mod server;

pub(super) use self::{
    protocol::{MAGIC, MAX_PORTS},
    server::serve,
};
