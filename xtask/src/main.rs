//! `cargo xtask`: everything that one does with this repository, each a subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, build, build_ebpf, conformance, fuzz, lab, run, setup, sim, test, tidy, vm_test};

/// Set up, build, run and test xstack.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find what is missing on this machine and install it
    Setup(setup::Args),
    /// Build the xstack binary
    Build(build::Args),
    /// Build the XDP program, or check that the kept one is what its sources say
    BuildEbpf(build_ebpf::Args),
    /// Build xstack and run it, as root where it needs to be
    Run(run::Args),
    /// A small internet of network namespaces, to try things in
    Lab(lab::command::Args),
    /// Many stacks on an in-memory internet with faults, from seeds; or a table of what gets through
    Sim(sim::Args),
    /// Check everything: format, lints, rules of the house, tests, the XDP program
    Test(test::Args),
    /// Run xstack on the drivers of real cards, in guests under QEMU
    VmTest(vm_test::Args),
    /// Write docs/conformance.md: every rule of the RFCs, its code and its tests
    Conformance(conformance::Args),
    /// Throw arbitrary input at the protocols, for as long as you like
    Fuzz(fuzz::Args),
    /// Measure, and print figures with their ratios
    Bench(bench::Args),
    /// Check the rules of the house: layers, file lengths, unsafe, links
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Lab(args) => lab::command::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Test(args) => test::run(&args),
        Command::VmTest(args) => vm_test::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tidy => tidy::run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
