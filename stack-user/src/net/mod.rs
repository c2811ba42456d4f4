//! The Internet layer, and UDP above it: sans-IO pieces that the stack puts together.
//!
//! A frame in: [`arp`] answers and learns, and tells [`acd`] who else uses our address; [`ipv4`] checks a
//! datagram, [`reassembly`] puts its fragments together, [`icmp`] answers pings and reads errors, [`udp`] queues
//! data for sockets. A datagram out: [`routes`] has our addresses, [`route`] names the next hop, [`link`] writes the headers, and
//! [`neighbour`] finds the next hop's link-layer address, while the frame waits.
#![forbid(unsafe_code)]

pub mod acd;
pub mod arp;
pub mod candidates;
pub mod icmp;
pub mod ipv4;
pub mod link;
pub mod neighbour;
pub mod reassembly;
pub mod route;
pub mod routes;
pub mod rss;
pub mod token_bucket;
pub mod udp;
