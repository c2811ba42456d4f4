//! A TCP/IP stack in user space that shares a NIC with the Linux kernel.
//!
//! An XDP program steers the frames of claimed addresses into AF_XDP sockets; everything else is the kernel's. A
//! program claims an address, and then has streams that are tokio's `AsyncRead + AsyncWrite`:
//!
//! ```no_run
//! use stack_user::api::{Resolver, Stack, TcpStream};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn fetch() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = Stack::builder().interface(Some("eth1".into())).start().await?;
//! let address = Resolver::new(&stack, &[])?.lookup("example.com").await?[0];
//! let mut stream = TcpStream::connect(&stack, (address, 80).into()).await?;
//! stream.write_all(b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n").await?;
//! let mut page = Vec::new();
//! stream.read_to_end(&mut page).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A frame's journey
//!
//! Imports only point down this list, and a frame that arrives goes up it:
//!
//! 1. [`stack_common::steer`] decides, in the kernel, whose the frame is. [`device::xdp`] takes it off an RX ring as a
//!    [`frame::RxFrame`], a handle of a chunk of the [`device::Umem`] that cannot be copied.
//! 2. [`runtime`] holds the shard's lock, knows the time, and passes the frame to the [`stack`].
//! 3. [`stack`] has [`wire`] parse the headers and [`net`] answer ARP, judge IP and put fragments together.
//! 4. [`tcp`] finds the frame's place in the connection's data, where it stays until it is read.
//! 5. [`api`] wakes the task that waits, whose read copies the bytes out, once, and the chunk is free again.
//!
//! A write goes the same way down: it is copied into a chunk once, is sent from there, and is retransmitted from
//! there until it is acknowledged. [`cli`] is the `xstack` command, a user of [`api`] as any other program.
#![deny(unsafe_code)]
// Whoever reads the sources follows these links; in the published pages they are plain words.
#![allow(rustdoc::private_intra_doc_links)]

/// The README's examples are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub mod api;
#[cfg(feature = "cli")]
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
