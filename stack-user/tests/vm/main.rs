//! In a guest under QEMU: the built `xstack` on the driver of a real card, against the guest kernel's TCP.
//!
//! `cargo xtask vm-test` builds this program, boots guests and runs it in each. By itself it does nothing but skip.
//!
//! # How to add a scenario
//!
//! A file for each subject, and one `mod` line here. A scenario is a `#[test]` that begins with
//! `let Some(guest) = Guest::new("its_name") else { return };`. The [fixture](guest) has the card under test as
//! [`NIC`](guest::NIC), set back to how the kernel had it, and its peer, which the guest's kernel has, in a network
//! namespace. It runs xstack and other programs, makes the wire worse, reads counters and keeps captures; all that it
//! changed is undone before the next scenario. One that can't be in this guest says why by [`Guest::skip`](guest::Guest::skip)
//! or [`Guest::require_zero_copy`](guest::Guest::require_zero_copy), and returns.
//!
//! Scenarios run one after the other, by software emulation on a machine that may be busy: sizes are those of megabytes,
//! time limits are generous, and nothing asserts how long something took. Every scenario adds to both guests of a short run: what takes more than a few seconds is marked
//! `#[ignore = "long"]`, and is run by `cargo xtask vm-test` without `--short`. What would show no more on igb than on virtio-net
//! begins with [`Guest::long_on_igb`](guest::Guest::long_on_igb).
//!
//! ```console
//! $ cargo xtask vm-test --nic igb --kernel newest --queues 2 transfer   # some, in one guest
//! $ cargo xtask vm-test --nic igb --kernel newest --queues 2 --shell    # a shell in that guest
//! ```

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

mod guest;
#[path = "../process/mod.rs"]
mod process;

mod bind;
mod busy_poll;
mod coexist;
mod doctor;
mod jumbo;
mod kill;
mod lossy;
mod queues;
mod transfer;
mod traps;
