//! Formats on the wire: parse any bytes into a type once, write a type as bytes. No state, no policy.

pub mod checksum;
