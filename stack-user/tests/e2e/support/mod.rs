//! What the tests stand on: labs, the programs in them, and xstack itself.

mod lab;
mod programs;
mod relay;
mod server;
mod ssh;
mod xstack;

pub(crate) use lab::{Host, TestLab, address, server_binary};
pub(crate) use programs::{Dnsmasq, Nginx, Running, Tcpdump};
pub(crate) use relay::{ADDRESS_TOLD, Dialogue, OURS, Relay};
pub(crate) use server::Server;
pub(crate) use ssh::{PROGRAMS as SSH_PROGRAMS, Sshd};
pub(crate) use xstack::{Outcome, XSTACK, run_for};

/// Whether counts and sizes are those of a release.
pub(crate) fn full() -> bool {
    std::env::var("XSTACK_E2E_FULL").is_ok_and(|value| value == "1")
}

/// `ordinary` in an everyday run, `release` in a full one.
pub(crate) fn sized<T>(ordinary: T, release: T) -> T {
    if full() { release } else { ordinary }
}

/// Fails on the first byte that differs, and says which: printing megabytes helps nobody.
#[track_caller]
pub(crate) fn assert_same_bytes(got: &[u8], expected: &[u8], what: &str) {
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert!(differs.is_none(), "{what}: byte {} differs", differs.unwrap_or_default());
    assert_eq!(got.len(), expected.len(), "{what}: length");
}
