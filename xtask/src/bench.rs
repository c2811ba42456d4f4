//! `cargo xtask bench`: measures, and prints figures with the ratio to what they are compared with.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::build::cargo_as_root;
use crate::process::exit_code;
use crate::setup;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum)]
    what: Benchmark,
    /// What the benchmark gets; `--help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The benchmarks.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Benchmark {
    /// Goodput over a long path with losses, beside the kernel's TCP
    Wan,
    /// Goodput between two hosts next to each other, by MTU, beside the kernel's TCP
    Jumbo,
    /// A million connections between two stacks in memory: what each takes, idle and busy
    Conns,
    /// One stream between two stacks in memory, beside smoltcp's and the copies and sums alone; what a segment costs, part by part
    Memory,
}

/// Runs a benchmark. Its exit code is ours.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Test)?;
    let name = match args.what {
        Benchmark::Wan => "wan",
        Benchmark::Jumbo => "jumbo",
        Benchmark::Conns => "conns",
        Benchmark::Memory => "memory",
    };
    let mut command = cargo_as_root("bench");
    command.args(["--package", "stack-user", "--bench", name, "--quiet", "--"]).args(&args.arguments);
    Ok(exit_code(command.status().context("cannot start cargo")?))
}
