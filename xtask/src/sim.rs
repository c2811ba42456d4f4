//! `cargo xtask sim`: many stacks on an in-memory internet with faults, each scenario from one seed.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::build::cargo;
use crate::{process, setup};

/// Arguments of `cargo xtask sim`.
#[derive(clap::Args)]
pub struct Args {
    /// How many seeds to run
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed; without --seeds, the only one
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Threads; as many as there are cores unless told otherwise
    #[arg(long, value_name = "J")]
    jobs: Option<u64>,
    /// Tell every frame, and how everybody stands when it fails
    #[arg(long)]
    verbose: bool,
    /// Go on after a failure
    #[arg(long)]
    all: bool,
    /// Run every seed twice, and compare what happened
    #[arg(long)]
    check_determinism: bool,
    /// Measure goodput and fairness, and compare with what is kept
    #[arg(long)]
    table: bool,
    /// With --table: keep what was measured
    #[arg(long, requires = "table")]
    bless: bool,
}

/// Seeds that are run unless told otherwise: some seconds' worth.
const DEFAULT_SEEDS: u64 = 1_000;

/// Builds the simulator and runs it. Its exit code is ours.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Build)?;
    let mut command = simulator();
    command.args(words(args));
    let status =
        command.status().with_context(|| format!("cannot start `{}`", process::describe(&command)))?;
    Ok(process::exit_code(status))
}

/// The simulator, optimised and with all assertions on; its arguments follow.
pub(crate) fn simulator() -> Command {
    let mut command = cargo();
    command.args(["test", "--quiet", "--profile", "sim", "--package", "stack-user", "--test", "sim", "--"]);
    command
}

fn words(args: &Args) -> Vec<String> {
    let number = |name: &str, value: Option<u64>| value.map(|value| [format!("--{name}"), value.to_string()]);
    let flag = |name: &str, set: bool| set.then(|| format!("--{name}"));
    // One seed that is named is meant alone.
    let seeds = args.seeds.or(args.seed.is_none().then_some(DEFAULT_SEEDS));
    let numbers = [number("seeds", seeds), number("seed", args.seed), number("jobs", args.jobs)];
    let flags = [
        flag("verbose", args.verbose),
        flag("all", args.all),
        flag("check-determinism", args.check_determinism),
        flag("table", args.table),
        flag("bless", args.bless),
    ];
    numbers.into_iter().flatten().flatten().chain(flags.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn passed_on(line: &str) -> String {
        words(&Line::parse_from(format!("sim {line}").split_whitespace()).args).join(" ")
    }

    #[test]
    fn a_seed_that_is_named_is_run_alone_unless_more_are_asked_for() {
        assert_eq!(passed_on(""), "--seeds 1000");
        assert_eq!(passed_on("--seed 7 --verbose"), "--seed 7 --verbose");
        assert_eq!(passed_on("--seed 7 --seeds 2 --jobs 1"), "--seeds 2 --seed 7 --jobs 1");
        assert_eq!(passed_on("--table --bless"), "--seeds 1000 --table --bless");
    }
}
