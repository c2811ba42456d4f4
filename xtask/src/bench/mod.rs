//! `cargo xtask bench`: the ruler. It runs what is compared in turns, in a lab of its own, and tells medians, ratios and whether
//! targets are reached.
//!
//! A bench reports and does not judge: a target that is missed is no failure. The exit code is 0 unless a run could not be done.
//!
//! [`cases`] are data: what runs at both ends of which link, where in its output the figures are, and what they should come to.
//! The [`engine`] runs them, [`table`], [`plot`] and [`page`] tell what came of it, [`results`] keeps it in target/bench/.
//! Measuring needs root; a process that has it does that and nothing else, while building and writing is done by whoever called.

mod case;
mod cases;
pub mod empty_program;
mod engine;
mod machine;
mod metric;
mod network;
mod page;
mod plot;
mod results;
mod running;
mod statistics;
mod stop;
mod table;
mod target;
mod tools;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use self::case::{Case, Plan};
use self::engine::{Engine, Tools};
use self::results::Outcome;
use self::stop::Stop;
use crate::build::cargo_as_root;
use crate::process::{as_root, exit_code, is_root};
use crate::progress::Steps;
use crate::{paths, setup};

/// Runs of each, unless told otherwise: the median of five does not mind two accidents.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 1;

/// Seconds that a run is measured for: long enough for slow start to be forgotten, short enough for a matrix of hundreds of runs.
const SECONDS: u32 = 4;
const QUICK_SECONDS: u32 = 1;

/// What is said about a machine on which others have more than this share of a core.
const QUIET_LOAD: f64 = 0.5;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Which cases, by name or by the beginning of their names, as `bulk` is of `bulk-1500`; all of them if none is named
    names: Vec<String>,
    /// Less of everything: the whole of it in some minutes
    #[arg(long)]
    quick: bool,
    /// Results as JSON on stdout, one object for each case, instead of tables
    #[arg(long)]
    json: bool,
    /// Say which cases there are, and measure nothing
    #[arg(long)]
    list: bool,
    /// How often each way is run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: Option<u64>,
    /// How long a run is measured for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// Put what was measured, now and before, into docs/performance.md and its plots
    #[arg(long)]
    write_docs: bool,
    /// With --write-docs: take what was measured before, and measure nothing
    #[arg(long, requires = "write_docs", conflicts_with_all = ["quick", "names"])]
    kept: bool,
    /// What is built already; the process that measures gets it from the one that has built
    #[arg(long, hide = true, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// For one of stack-user's own benches, which is then run alone: its arguments; `--help` lists them
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Measures what is asked for.
pub fn run(args: &Args) -> Result<ExitCode> {
    let plan = plan(args);
    if !args.arguments.is_empty() {
        return run_alone(&args.names, &args.arguments);
    }
    let mut all = cases::all(&plan);
    if args.kept {
        return write_docs(&all).map(|()| ExitCode::SUCCESS);
    }
    // Benches that are no case have its plainest options all the same.
    if let [name] = &args.names[..]
        && select(&all, &args.names).is_err()
        && tools::benches()?.contains(name)
    {
        let flags = [(args.quick, "--quick"), (args.json, "--json")];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag.to_owned());
        return run_alone(&args.names, &flags.collect::<Vec<_>>());
    }
    let wanted = select(&all, &args.names)?;
    if args.list {
        for case in all.iter().filter(|case| wanted.contains(&case.name)) {
            println!("{:<14} {}", case.name, case.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    all.retain(|case| wanted.contains(&case.name));
    if let Some(tools) = &args.worker {
        return work(&all, plan, tools);
    }
    setup::ensure(setup::Level::Test)?;
    let tools = tools::build(&all)?;
    let done = measure(args, &all, plan, &tools)?;
    if args.write_docs {
        write_docs(&cases::all(&plan))?;
    }
    Ok(done)
}

fn plan(args: &Args) -> Plan {
    let rounds = if args.quick { QUICK_ROUNDS } else { ROUNDS };
    let seconds = if args.quick { QUICK_SECONDS } else { SECONDS };
    Plan {
        rounds: args.rounds.and_then(|rounds| rounds.try_into().ok()).unwrap_or(rounds),
        seconds: args.seconds.unwrap_or(seconds),
        warm_up: 1,
        quick: args.quick,
    }
}

/// The cases that are named, by their names.
fn select(all: &[Case], names: &[String]) -> Result<Vec<&'static str>> {
    let mut wanted = Vec::new();
    for name in names {
        let before = wanted.len();
        let is_named = |case: &&Case| {
            case.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        wanted.extend(all.iter().filter(is_named).map(|case| case.name));
        if wanted.len() == before {
            let known: Vec<_> = all.iter().map(|case| case.name).collect();
            bail!("there is no case {name:?}; there are {}", known.join(", "));
        }
    }
    Ok(if names.is_empty() { all.iter().map(|case| case.name).collect() } else { wanted })
}

/// Measures, as root, and tells each case once it is done.
fn measure(args: &Args, cases: &[Case], plan: Plan, tools: &Tools) -> Result<ExitCode> {
    let mut has_failed = false;
    let mut take = |outcome: Outcome| -> Result<()> {
        results::save(&results::directory(), &outcome)?;
        has_failed |= !outcome.failures.is_empty();
        if args.json {
            println!("{}", serde_json::to_string(&outcome)?);
        } else {
            print!("{}", table::tell(&outcome));
        }
        Ok(())
    };
    let stop = Stop::by_signals()?;
    if is_root() {
        measure_here(cases, plan, tools, &stop, &mut take)?;
    } else {
        measure_as_root(tools, &mut take)?;
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure_here(
    cases: &[Case],
    plan: Plan,
    tools: &Tools,
    stop: &Stop,
    take: &mut dyn FnMut(Outcome) -> Result<()>,
) -> Result<()> {
    let load = machine::load();
    if load > QUIET_LOAD {
        eprintln!("xtask: bench: the load of this machine is {load}: what else runs will be in the figures");
    }
    let engine = Engine { plan, tools, stop, cores: engine::cores()? };
    let runs = cases.iter().map(|case| case.entries.len() * engine::rounds(case, plan)).sum();
    let progress = Steps::start("bench", runs);
    for case in cases {
        let outcome = engine.run(case, &progress)?;
        progress.aside(|| take(outcome))?;
    }
    Ok(())
}

/// Has another process measure, which is root; what it tells comes through a pipe.
fn measure_as_root(tools: &Tools, take: &mut dyn FnMut(Outcome) -> Result<()>) -> Result<()> {
    let file = results::directory().join("tools.json");
    fs::create_dir_all(results::directory()).context("cannot make target/bench")?;
    fs::write(&file, serde_json::to_vec(tools)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let this = env::current_exe().context("cannot find the xtask binary itself")?;
    let mut command = as_root(this)?;
    let mut words = env::args_os().skip(1);
    command.args(words.next()).arg(with_value("--worker=", &file)).args(words);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start sudo")?;
    let stdout = child.stdout.take().context("a pipe")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read from the process that measures")?;
        take(serde_json::from_str(&line).with_context(|| format!("the process that measures says {line}"))?)?;
    }
    let status = child.wait().context("cannot wait for the process that measures")?;
    if !status.success() {
        bail!("the process that measures failed ({status})");
    }
    Ok(())
}

/// Is the process that measures.
fn work(cases: &[Case], plan: Plan, tools: &Path) -> Result<ExitCode> {
    let tools = fs::read(tools).with_context(|| format!("cannot read {}", tools.display()))?;
    let tools = serde_json::from_slice(&tools).context("what was built is not told as it should be")?;
    let mut tell = |outcome: Outcome| -> Result<()> {
        println!("{}", serde_json::to_string(&outcome)?);
        Ok(())
    };
    measure_here(cases, plan, &tools, &Stop::by_signals()?, &mut tell)?;
    Ok(ExitCode::SUCCESS)
}

fn with_value(option: &str, value: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(value);
    word
}

fn write_docs(cases: &[Case]) -> Result<()> {
    let outcomes = results::load(&results::directory(), cases.iter().map(|case| case.name))?;
    page::write(paths::workspace(), &outcomes)
}

/// Runs one of stack-user's benches by itself, with arguments of its own. Its exit code is ours.
fn run_alone(names: &[String], arguments: &[String]) -> Result<ExitCode> {
    let known = tools::benches()?;
    let [name] = names else {
        bail!("arguments behind -- are for one of {}: name it", known.join(", "));
    };
    if !known.contains(name) {
        bail!("{name} has no arguments of its own; {} have", known.join(", "));
    }
    setup::ensure(setup::Level::Test)?;
    let mut command = cargo_as_root("bench");
    command.args(["--package", "stack-user", "--bench", name, "--quiet", "--"]).args(arguments);
    Ok(exit_code(command.status().context("cannot start cargo")?))
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

    fn args(line: &str) -> Args {
        Line::parse_from(format!("bench {line}").split_whitespace()).args
    }

    fn selected(line: &str) -> Result<Vec<&'static str>> {
        let args = args(line);
        select(&cases::all(&plan(&args)), &args.names)
    }

    #[test]
    fn cases_are_selected_by_name_or_family() {
        assert_eq!(selected("bulk-1500").unwrap(), ["bulk-1500"]);
        let bulk = selected("bulk").unwrap();
        assert!(bulk.len() >= 3 && bulk.iter().all(|name| name.starts_with("bulk-")), "{bulk:?}");
        assert_eq!(selected("").unwrap().len(), cases::all(&plan(&args(""))).len());
        let error = selected("bul").unwrap_err().to_string();
        assert!(error.contains("\"bul\"") && error.contains("bulk-1500"), "{error}");
    }

    #[test]
    fn quick_is_less_of_everything_and_numbers_win() {
        let full = plan(&args(""));
        let quick = plan(&args("--quick"));
        assert!(quick.rounds < full.rounds && quick.seconds < full.seconds && quick.quick);
        let told = plan(&args("--quick --rounds 7 --seconds 9"));
        assert_eq!((told.rounds, told.seconds), (7, 9));
    }

    #[test]
    fn arguments_of_a_bench_need_its_name() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let error = run_alone(&[], &words("--loss 1")).unwrap_err().to_string();
        assert!(error.contains("wan"), "{error}");
        assert!(run_alone(&words("bulk"), &words("-x")).unwrap_err().to_string().contains("bulk has no"));
    }
}
