//! What both sides of the kernel line read, and nothing else.
//!
//! [`steer`] decides for each received frame whether it is ours or the kernel's; [`abi`] says how the maps look
//! through which user space tells the XDP program what is ours, and [`index`] the one among them that makes it quick; [`numbers`] has
//! those of the wire. No allocation, no `std`, no `unsafe`.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod index;
pub mod numbers;
pub mod steer;
