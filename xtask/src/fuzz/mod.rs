//! `cargo xtask fuzz`: the fuzz targets of `stack-user/fuzz`, under libFuzzer.
//!
//! What libFuzzer needs of the compiler is no secret of a nightly one: coverage is counted by flags that every
//! toolchain takes. Only a sanitizer is unstable, and `RUSTC_BOOTSTRAP=1` lets the active toolchain have it.

mod build;
mod campaign;
mod corpus;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::exit_code;
use crate::{paths, setup};
use campaign::Outcome;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// The targets to run, one after the other; all if none is named
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    time: u64,
    /// How many processes share a target's work; one for each core by default
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Also check memory accesses (slower by half): `address` is all that `unsafe` of ours needs
    #[arg(long, value_name = "NAME")]
    sanitizer: Option<String>,
    /// Then put the inputs that matter most into the repository's corpus, in place of those that do not
    #[arg(long)]
    minimize: bool,
    /// Run one input through one target, telling each step
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

/// An input that is longer takes longer and finds no more: most steps are written in less than ten bytes.
const MAX_INPUT: usize = 2048;

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let all = targets()?;
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown:?}; there are {}", all.join(", "));
    }
    let chosen = if args.targets.is_empty() { &all } else { &args.targets };
    setup::ensure(setup::Level::Build)?;
    let binaries = build::build(args.sanitizer.as_deref())?;
    if let Some(file) = &args.replay {
        ensure!(args.targets.len() == 1, "name the one target that {} is for", file.display());
        return replay(&binaries.join(&args.targets[0]), file);
    }
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let mut outcomes = Vec::new();
    for target in chosen {
        let binary = binaries.join(target);
        outcomes.push(campaign::run(target, &binary, jobs.max(1), Duration::from_secs(args.time))?);
        if args.minimize {
            corpus::minimize(target, &binary)?;
        }
    }
    Ok(summarise(&outcomes))
}

/// The names of the targets: their files'.
fn targets() -> Result<Vec<String>> {
    let stem = |path: PathBuf| path.file_stem()?.to_str().map(str::to_owned);
    Ok(entry_files()?.into_iter().filter_map(stem).collect())
}

/// The targets' files. They are no part of the workspace, so whoever looks after that has to name them.
pub(crate) fn entry_files() -> Result<Vec<PathBuf>> {
    let directory = home().join("fuzz_targets");
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    Ok(files)
}

/// Where the targets and the inputs that are kept for good are.
fn home() -> PathBuf {
    paths::workspace().join("stack-user/fuzz")
}

/// Where programs, the growing corpora, findings and logs are.
fn work() -> PathBuf {
    paths::target().join("fuzz")
}

fn replay(binary: &Path, file: &Path) -> Result<ExitCode> {
    let status = Command::new(binary)
        .arg(file)
        .env("XSTACK_FUZZ_TELL", "1")
        .status()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    Ok(exit_code(status))
}

fn summarise(outcomes: &[Outcome]) -> ExitCode {
    println!();
    println!(
        "{:<12} {:>12} {:>8} {:>9} {:>7}  findings",
        "target", "executions", "exec/s", "coverage", "inputs"
    );
    for outcome in outcomes {
        let Outcome { target, executions, took, coverage, inputs, findings } = outcome;
        let rate = *executions as f64 / took.as_secs_f64().max(1.0);
        let findings = findings.len();
        println!("{target:<12} {executions:>12} {rate:>8.0} {coverage:>9} {inputs:>7}  {findings}");
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.findings.is_empty()) {
        println!("\n{}:", outcome.target);
        for finding in &outcome.findings {
            let path = finding.input.strip_prefix(paths::workspace()).unwrap_or(&finding.input);
            println!("  {}", finding.message);
            println!("    replay: cargo xtask fuzz {} --replay {}", outcome.target, path.display());
        }
    }
    if outcomes.iter().all(|outcome| outcome.findings.is_empty()) {
        ExitCode::SUCCESS
    } else {
        println!(
            "\nA finding's input belongs into stack-user/fuzz/corpus/TARGET/regression-WHAT, before it is fixed."
        );
        ExitCode::FAILURE
    }
}
