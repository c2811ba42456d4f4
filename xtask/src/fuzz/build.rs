//! Building the targets with what libFuzzer needs: counters of coverage, and the operands of comparisons.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::cargo;
use crate::process::{capture, find_program, run_visibly};

/// As cargo-fuzz has them. The last keeps branches apart that are one instruction otherwise, and so invisible.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// Builds all targets; returns the directory that they are in.
pub(super) fn build(sanitizer: Option<&str>) -> Result<PathBuf> {
    ensure!(
        ["c++", "g++", "clang++"].iter().any(|name| find_program(name).is_some()),
        "libFuzzer is C++ and there is no compiler for it here; install g++"
    );
    let version = capture(Command::new("rustc").arg("-vV"))?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let target_dir = super::work().join(sanitizer.unwrap_or("plain"));
    let mut flags = FLAGS.join("\x1f");
    let mut command = cargo();
    if let Some(sanitizer) = sanitizer {
        flags.push_str(&format!("\x1f-Zsanitizer={sanitizer}"));
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    // A target that is named keeps the flags away from build scripts and macros.
    command
        .current_dir(super::home())
        .args(["build", "--release", "--locked", "--bins", "--target", host, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTFLAGS");
    eprintln!("xtask: building the targets; the first time takes some minutes");
    run_visibly(&mut command).with_context(|| match sanitizer {
        Some(name) => format!(
            "the targets can't be built with the sanitizer {name}: if this toolchain lacks it, get one that has it by \
             `rustup toolchain install nightly` and `RUSTUP_TOOLCHAIN=nightly cargo xtask fuzz …`, or leave --sanitizer out"
        ),
        None => "the targets can't be built; the compiler's output above says why".to_owned(),
    })?;
    Ok(target_dir.join(host).join("release"))
}
