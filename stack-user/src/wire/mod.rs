//! Formats on the wire: parse any bytes into a type once, write a type as bytes. No state, no policy.
//!
//! Every `parse` takes bytes from outside and never panics; it gives back a small `Copy` struct that can only
//! say what makes sense, and where the payload lies. Every `emit` writes into a buffer of ours, which has to be
//! long enough.

pub mod arp;
pub mod checksum;
mod ecn;
pub mod ethernet;
pub mod icmpv4;
mod ip_fields;
pub mod ipv4;
mod mac;
pub mod tcp;
pub mod udp;

pub use ecn::Ecn;
pub use ip_fields::IpFields;
pub use mac::{MacAddr, ParseMacError};
pub use stack_common::numbers::protocol;

/// Two bytes of `bytes` at `offset`, in network order.
fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|&two| u16::from_be_bytes(two))
}
