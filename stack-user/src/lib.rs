//! A TCP/IP stack in user space that shares a NIC with the Linux kernel.
#![deny(unsafe_code)]

pub mod api;
pub mod cli;
#[allow(unsafe_code)]
pub mod device;
pub mod frame;
pub mod net;
pub mod rng;
pub mod runtime;
pub mod stack;
pub mod tcp;
pub mod telemetry;
pub mod time;
pub mod wire;
