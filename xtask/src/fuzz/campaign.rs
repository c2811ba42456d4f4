//! One target under libFuzzer, in as many processes as there are cores, with one corpus between them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::Step;

/// An input that takes longer hangs: the slowest takes some milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Memory that no input may make a process use: a target's pool has some hundred kilobytes.
const MEMORY_MB: usize = 1024;

/// What became of a target.
pub(super) struct Outcome {
    pub(super) target: String,
    pub(super) executions: u64,
    pub(super) took: Duration,
    /// Edges of the program that some input has reached.
    pub(super) coverage: u64,
    /// Inputs in the growing corpus.
    pub(super) inputs: usize,
    pub(super) findings: Vec<Finding>,
}

/// An input that made a target panic, hang, or use too much memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) input: PathBuf,
    pub(super) message: String,
}

/// What one process has said.
#[derive(Debug, Default)]
struct Said {
    executions: u64,
    coverage: u64,
    panic: Option<String>,
    input: Option<PathBuf>,
}

/// Runs a target for some time.
pub(super) fn run(target: &str, binary: &Path, jobs: usize, time: Duration) -> Result<Outcome> {
    let growing = super::work().join("corpus").join(target);
    let artifacts = super::work().join("artifacts").join(target);
    let logs = super::work().join("logs");
    let kept = super::home().join("corpus").join(target);
    for directory in [&growing, &artifacts, &logs] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let step = Step::start(format!("{target} on {jobs} cores"));
    let started = Instant::now();
    let said = Mutex::new(Vec::<Said>::new());
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..jobs)
            .map(|job| {
                let mut command = Command::new(binary);
                command
                    .args([&growing, &kept])
                    .arg(format!("-max_total_time={}", time.as_secs()))
                    .arg(format!("-max_len={}", super::MAX_INPUT))
                    // Else inputs grow so slowly that no connection gets far in minutes.
                    .arg("-len_control=0")
                    .arg(format!("-timeout={}", TIMEOUT.as_secs()))
                    .arg(format!("-rss_limit_mb={MEMORY_MB}"))
                    .arg(format!("-artifact_prefix={}/", artifacts.display()))
                    .arg("-print_final_stats=1");
                let log = logs.join(format!("{target}-{job}.log"));
                let (said, step) = (&said, &step);
                scope.spawn(move || {
                    let one = follow(&mut command, &log, step)?;
                    said.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    anyhow::Ok(())
                })
            })
            .collect();
        runs.into_iter().try_for_each(|run| match run.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread of ours panicked"),
        })
    })?;
    let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
    let findings = findings(&said);
    step.done(if findings.is_empty() { "nothing found" } else { "FOUND" });
    Ok(Outcome {
        target: target.to_owned(),
        executions: said.iter().map(|one| one.executions).sum(),
        took: started.elapsed(),
        coverage: said.iter().map(|one| one.coverage).max().unwrap_or(0),
        inputs: fs::read_dir(&growing)?.count(),
        findings,
    })
}

/// Runs one process to its end, and keeps what it says.
fn follow(command: &mut Command, log: &Path, step: &Step) -> Result<Said> {
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut said = Said::default();
    let mut lines = BufReader::new(child.stderr.take().context("no pipe")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        file.write_all(&line)?;
        let text = String::from_utf8_lossy(&line);
        if said.hear(text.trim_end()) {
            step.detail(text.trim());
        }
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() && said.input.is_none() {
        bail!(
            "{} ended without a finding ({status}); {} says why",
            command.get_program().display(),
            log.display()
        );
    }
    Ok(said)
}

impl Said {
    /// Takes a line in; returns whether it is about progress.
    fn hear(&mut self, line: &str) -> bool {
        let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
        if let Some(rest) = line.strip_prefix('#') {
            if let Some(coverage) = line.split_once(" cov: ").and_then(|(_, rest)| number(rest)) {
                self.coverage = coverage;
            }
            self.executions = self.executions.max(number(rest).unwrap_or(0));
            return true;
        }
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:").and_then(number) {
            self.executions = count;
        } else if let Some((_, input)) = line.split_once("Test unit written to ") {
            self.input = Some(input.trim().into());
        } else if line.contains(" panicked at ") {
            self.panic =
                Some(line.trim_end_matches(':').split_once(" panicked at ").map_or("", |(_, at)| at).into());
        } else if let Some(panic) = self.panic.as_mut().filter(|panic| !panic.contains(": ")) {
            // The message is on the line behind the place.
            panic.push_str(": ");
            panic.push_str(line);
        } else if let Some((_, error)) = line.split_once("ERROR: libFuzzer: ") {
            self.panic.get_or_insert_with(|| error.to_owned());
        }
        false
    }
}

/// One finding for each message: two processes often meet the same one.
fn findings(said: &[Said]) -> Vec<Finding> {
    let mut known = BTreeSet::new();
    said.iter()
        .filter_map(|one| {
            let input = one.input.clone()?;
            let message = one.panic.clone().unwrap_or_else(|| "it ended badly".to_owned());
            known.insert(message.clone()).then_some(Finding { input, message })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let mut said = Said::default();
        for line in [
            "INFO: seed corpus: files: 3",
            "#8192\tpulse  cov: 120 ft: 480 corp: 30/900b lim: 64 exec/s: 4096 rss: 40Mb",
            "thread '<unnamed>' (7) panicked at src/segments.rs:9:5:",
            "the window shrinks",
            "stack backtrace:",
            "==7== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='a/'; Test unit written to a/crash-1",
            "stat::number_of_executed_units: 9000",
        ] {
            said.hear(line);
        }
        assert_eq!((said.executions, said.coverage), (9000, 120));
        let finding =
            Finding { input: "a/crash-1".into(), message: "src/segments.rs:9:5: the window shrinks".into() };
        assert_eq!(findings(&[said]), [finding]);
    }

    #[test]
    fn a_hang_is_a_finding_without_a_panic() {
        let mut said = Said::default();
        said.hear("==7== ERROR: libFuzzer: timeout after 10 seconds");
        said.hear("artifact_prefix='a/'; Test unit written to a/timeout-1");
        assert_eq!(findings(&[said])[0].message, "timeout after 10 seconds");
    }
}
