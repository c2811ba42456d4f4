//! End to end: the built `xstack` in a lab of its own, against the kernel's TCP and real programs.
//!
//! Run by `cargo xtask test`. Each test brings up a private lab, so none sees another's traffic, and takes it down
//! again however it ends. A test that can't run here prints `SKIP name: reason`. `XSTACK_E2E_FULL=1` (which is
//! `cargo xtask test --full`) turns the counts and sizes up to those of a release.

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

mod addresses;
mod bad_input;
mod bench;
mod bench_rpc;
mod beside_the_kernel;
mod busy_poll;
mod capture;
mod conflict;
mod daemon;
mod differential;
mod doctor;
mod examples;
mod fetch;
#[path = "../figures/mod.rs"]
mod figures;
mod forward;
#[path = "../huge_pages/mod.rs"]
mod huge_pages;
mod jumbo;
mod kill;
mod link;
mod load;
mod operator_program;
mod privileges;
#[path = "../process/mod.rs"]
mod process;
mod proxy;
mod queues;
mod serve;
mod support;
mod transfer;
#[path = "../wan/mod.rs"]
mod wan;
