//! What the tests stand on: labs, the programs in them, and xstack itself.

mod lab;
mod programs;
mod relay;
mod server;
mod ssh;
mod xstack;

pub(crate) use lab::{Host, TestLab, address, server_binary};
pub(crate) use programs::{Dnsmasq, Nginx, Tcpdump};
pub(crate) use relay::{ADDRESS_TOLD, Dialogue, OURS, Relay};
pub(crate) use server::Server;
pub(crate) use ssh::{PROGRAMS as SSH_PROGRAMS, Sshd};
pub(crate) use xstack::XSTACK;

pub(crate) use crate::process::{Outcome, Running, assert_same_bytes, run_for};

/// Whether counts and sizes are those of a release.
pub(crate) fn full() -> bool {
    std::env::var("XSTACK_E2E_FULL").is_ok_and(|value| value == "1")
}

/// `ordinary` in an everyday run, `release` in a full one.
pub(crate) fn sized<T>(ordinary: T, release: T) -> T {
    if full() { release } else { ordinary }
}
