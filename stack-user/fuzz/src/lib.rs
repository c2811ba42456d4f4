//! The bodies of the fuzz targets: bytes go in, a panic is a finding.
//!
//! They are here once for two users: libFuzzer, through `fuzz_targets/`, and the ordinary test
//! `stack-user/tests/fuzz_corpus.rs`, which replays what was found before and draws some inputs of its own.
//!
//! To see what an input does, step by step, set `XSTACK_FUZZ_TELL=1` when it is replayed.

pub mod congestion;
pub mod frames;
pub mod options;
pub mod reassembly;
pub mod scoreboard;
pub mod segments;
pub mod send_queue;

mod endpoint;
mod forge;
mod input;

/// A target's name and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("congestion", congestion::run),
    ("frames", frames::run),
    ("options", options::run),
    ("reassembly", reassembly::run),
    ("scoreboard", scoreboard::run),
    ("segments", segments::run),
    ("send_queue", send_queue::run),
];
