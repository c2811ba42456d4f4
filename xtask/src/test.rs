//! `cargo xtask test`: all there is to check, in one go, with what was skipped and why.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result};

use crate::build::{self, cargo, cargo_as_root};
use crate::process::describe;
use crate::progress::Step;
use crate::sim::simulator;
use crate::{fuzz, paths, setup};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// The end-to-end tests at full size, with an optimised xstack
    #[arg(long)]
    full: bool,
    /// Only these steps, by name
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Runs every step, also after one has failed.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Test)?;
    let steps = steps(args)?;
    if let Some(unknown) = args.only.iter().find(|name| !steps.iter().any(|step| step.name == **name)) {
        let names: Vec<_> = steps.iter().map(|step| step.name).collect();
        anyhow::bail!("there is no step {unknown:?}; there are {}", names.join(", "));
    }
    let mut reports = Vec::new();
    for step in steps {
        if args.only.is_empty() || args.only.iter().any(|name| name == step.name) {
            reports.push(perform(step)?);
        }
    }
    Ok(summarise(&reports))
}

/// One thing to run, and how to read what it prints.
struct TestStep {
    name: &'static str,
    command: Command,
    /// A test harness counts its tests itself; any other program is one test.
    counts_tests: bool,
}

/// What became of it.
#[derive(Debug, Default)]
struct Report {
    name: &'static str,
    took: Duration,
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
}

fn steps(args: &Args) -> Result<Vec<TestStep>> {
    const OURS: [&str; 5] = ["--workspace", "--exclude", "stack-ebpf", "--features", "xtask/lab-server"];
    let whole = |name, command| TestStep { name, command, counts_tests: false };
    let tests = |name, command| TestStep { name, command, counts_tests: true };
    let this = env::current_exe().context("cannot find the xtask binary itself")?;

    let mut format = cargo();
    format.args(["fmt", "--all", "--check", "--"]).args(fuzz::entry_files()?);
    let mut tidy = Command::new(&this);
    tidy.arg("tidy");
    let mut conformance = Command::new(&this);
    conformance.args(["conformance", "--check"]);
    let mut clippy = cargo();
    clippy.args(["clippy", "--all-targets"]).args(OURS).args(["--", "-D", "warnings"]);
    // As a program has it that wants no command.
    let mut library = cargo();
    library.args(["check", "--package", "stack-user", "--lib", "--no-default-features"]);
    let mut unit = cargo_as_root("test");
    unit.args(OURS).args(["--no-fail-fast", "--", "--show-output"]);
    let mut end_to_end = cargo_as_root("test");
    end_to_end.args(["--package", "stack-user", "--test", "e2e", "--no-fail-fast"]);
    // The lab's own server, which the tests start as an ordinary user would.
    end_to_end.env("XSTACK_LAB_SERVER", build::lab_server()?);
    end_to_end.env("XSTACK_EXAMPLES", build::examples()?);
    if args.full {
        end_to_end.arg("--release").env("XSTACK_E2E_FULL", "1");
    }
    // One at a time: they measure, and each has a network of its own on the same two or four cores.
    end_to_end.args(["--", "--show-output", "--test-threads=1"]);
    let mut many = cargo_as_root("bench");
    many.args(["--package", "stack-user", "--bench", "conns", "--quiet", "--"]);
    let mut instructions = cargo_as_root("bench");
    instructions.args(["--package", "stack-user", "--bench", "instructions", "--quiet"]);
    let mut simulation = simulator();
    simulation.args(["--seeds", if args.full { "5000" } else { "300" }]);
    let mut table = simulator();
    table.arg("--table");
    let mut vm = Command::new(&this);
    vm.args(["vm-test", "--or-skip"]).args((!args.full).then_some("--short"));
    let mut ebpf = Command::new(&this);
    ebpf.args(["build-ebpf", "--check"]);

    let mut steps = vec![
        whole("format", format),
        whole("tidy", tidy),
        whole("conformance", conformance),
        whole("clippy", clippy),
        whole("library", library),
        tests("tests", unit),
        tests("instructions", instructions),
        tests("sim", simulation),
        tests("sim-table", table),
        tests("e2e", end_to_end),
        tests("vm", vm),
        whole("build-ebpf", ebpf),
    ];
    if args.full {
        steps.push(whole("conns", many));
    }
    Ok(steps)
}

fn perform(step: TestStep) -> Result<Report> {
    let TestStep { name, mut command, counts_tests } = step;
    let progress = Step::start(name);
    let started = Instant::now();
    let (succeeded, output) = run_and_read(&mut command, &progress)?;
    let mut report = Report { name, ..Report::default() };
    if counts_tests {
        read_counts(&output, &mut report);
    }
    let counted = report.passed + report.failed > 0;
    match (succeeded, counts_tests && counted) {
        (true, false) => report.passed += usize::from(!counts_tests),
        // A harness that ends badly without a failed test did not compile, or crashed.
        (false, _) if report.failed == 0 => report.failed = 1,
        _ => {}
    }
    report.took = started.elapsed();
    if report.failed > 0 {
        progress.done_quietly();
        eprintln!("{}", if report.passed > 0 { failures(&output) } else { output.clone() });
        eprintln!("xtask: {name}: FAILED; all of its output is in target/test-{name}.log; run it alone by");
        eprintln!("       {}", describe(&command));
    } else {
        progress.done("passed");
    }
    let _ = fs::write(paths::target().join(format!("test-{name}.log")), output);
    Ok(report)
}

/// Runs a command; its output is shown as progress, line by line, and kept.
fn run_and_read(command: &mut Command, progress: &Step) -> Result<(bool, String)> {
    // One pipe for both, so that lines keep their order.
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", describe(command)))?;
    // The command holds the writing end: as long as it does, the pipe would not end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        progress.detail(text.trim());
        output.push_str(&text);
        line.clear();
    }
    Ok((child.wait()?.success(), output))
}

/// Reads libtest's own counts, and the `SKIP name: reason` lines that tests print which could not run here.
fn read_counts(output: &str, report: &mut Report) {
    let mut ignored = 0;
    for line in output.lines() {
        if let Some(counts) = line.strip_prefix("test result: ") {
            report.passed += count_before(counts, " passed");
            report.failed += count_before(counts, " failed");
            ignored += count_before(counts, " ignored");
        }
        if let Some(skip) = line.trim_start().strip_prefix("SKIP ")
            && !report.skipped.iter().any(|known| known == skip)
        {
            report.skipped.push(skip.to_owned());
        }
    }
    // For libtest a test that returned early has passed.
    report.passed = report.passed.saturating_sub(report.skipped.len());
    // The attribute's own reason is not printed.
    report.skipped.extend((0..ignored).map(|_| "ignored: marked #[ignore]".to_owned()));
}

/// The parts of a harness's output that are about failed tests, without what the good ones printed.
fn failures(output: &str) -> String {
    let mut kept = String::new();
    let mut is_about_failures = false;
    for line in output.lines() {
        match line {
            "failures:" => is_about_failures = true,
            "successes:" => is_about_failures = false,
            _ => {}
        }
        let is_error = line.starts_with("error") || line.starts_with("test result: FAILED");
        if is_about_failures || is_error || line.trim_start().starts_with("Running ") {
            kept.push_str(line);
            kept.push('\n');
        }
        is_about_failures &= !line.starts_with("test result:");
    }
    kept
}

fn count_before(text: &str, word: &str) -> usize {
    text.split(word)
        .next()
        .filter(|before| before.len() < text.len())
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn summarise(reports: &[Report]) -> ExitCode {
    let in_ci = env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    println!();
    for Report { name, took, passed, failed, skipped } in reports {
        let verdict = if *failed > 0 { "FAILED" } else { "ok" };
        let counts = format!("{passed} passed, {failed} failed, {} skipped", skipped.len());
        println!("{name:<12} {verdict:<7} {:>6.1} s  {counts}", took.as_secs_f64());
    }
    let skipped: Vec<_> = reports.iter().flat_map(|report| &report.skipped).collect();
    if !skipped.is_empty() {
        println!("\nSkipped:");
        for skip in &skipped {
            println!("  {skip}");
        }
    }
    let (passed, mut failed) =
        reports.iter().fold((0, 0), |(passed, failed), one| (passed + one.passed, failed + one.failed));
    // Setting up a CI machine is our own business: what is missing there is a failure of ours.
    let missing = skipped.iter().filter(|skip| skip.contains("not installed")).count();
    if in_ci && missing > 0 {
        println!("\n{missing} skipped because of a missing package; under CI that counts as failed.");
        failed += missing;
    }
    println!("\n{passed} passed, {failed} failed, {} skipped", skipped.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_shown_and_what_did_not_is_not() {
        let output = "\
     Running unittests src/lib.rs
test a ... ok
successes:
---- a stdout ----
chatter
failures:
---- b stdout ----
panicked
failures:
    b
test result: FAILED. 1 passed; 1 failed; 0 ignored
trailing
";
        let shown = failures(output);
        assert!(
            shown.contains("panicked") && shown.contains("Running") && shown.contains("FAILED"),
            "{shown}"
        );
        assert!(!shown.contains("chatter") && !shown.contains("trailing"), "{shown}");
    }

    #[test]
    fn counts_and_skips_are_read_from_what_tests_print() {
        let output = "\
running 3 tests
test a ... ok
SKIP b: not root
test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
SKIP b: not root
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let mut report = Report::default();
        read_counts(output, &mut report);
        assert_eq!((report.passed, report.failed), (6, 1));
        assert_eq!(report.skipped, ["b: not root", "ignored: marked #[ignore]"]);
    }
}
