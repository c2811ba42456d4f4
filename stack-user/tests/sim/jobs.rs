//! Runs seeds on all cores and counts them as a test harness counts its tests.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::IsTerminal,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{arguments::Arguments, oracle, scenario::Scenario};

/// Seeds of which every run checks that they repeat themselves.
const REPEATED: u64 = 3;

/// How often the progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What one seed came to.
struct Outcome {
    digest: u64,
    frames: u64,
    /// What is wrong.
    failure: Option<String>,
}

/// Runs the seeds that were asked for.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { first, seeds, jobs, .. } = *arguments;
    let started = Instant::now();
    let what = if seeds == 1 { "seed" } else { "seeds" };
    println!("\nrunning {seeds} {what} from {first}");
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = format!("{} at {place}", panic.payload_as_str().unwrap_or("a panic"));
        PANIC.with_borrow_mut(|slot| *slot = Some(message));
    }));
    let next = AtomicU64::new(0);
    let (done, frames) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let failures = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= seeds {
                            return;
                        }
                        let seed = first + number;
                        let outcome = run_checked(arguments, seed, number);
                        frames.fetch_add(outcome.frames, Ordering::Relaxed);
                        done.fetch_add(1, Ordering::Relaxed);
                        if let Some(failure) = outcome.failure {
                            eprintln!("seed {seed}: {failure}");
                            failures.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, failure);
                            // Those that run are finished, so that the smallest failing seed is told.
                            stop.fetch_or(!arguments.all, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        tell_progress(started, &done, seeds, || workers.iter().all(thread::ScopedJoinHandle::is_finished));
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(started, done.into_inner(), frames.into_inner(), &failures)
}

fn tell_progress(started: Instant, done: &AtomicU64, seeds: u64, is_over: impl Fn() -> bool) {
    let shows = std::io::stderr().is_terminal();
    let mut told = Instant::now();
    while !is_over() {
        thread::sleep(Duration::from_millis(2));
        if shows && told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let done = done.load(Ordering::Relaxed);
            let rate = done as f64 / started.elapsed().as_secs_f64();
            eprint!("\r{done} of {seeds} seeds, {rate:.1} a second ");
        }
    }
    if shows {
        eprintln!();
    }
}

fn report(started: Instant, done: u64, frames: u64, failures: &BTreeMap<u64, String>) -> ExitCode {
    let seconds = started.elapsed().as_secs_f64();
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (seed, failure) in failures {
            println!("seed {seed}: {failure}");
            println!("    to replay: cargo xtask sim --seed {seed} --verbose");
        }
        println!();
    }
    let failed = failures.len() as u64;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("{:.1} seeds and {:.0} frames a second", done as f64 / seconds, frames as f64 / seconds);
    println!(
        "test result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s\n",
        done - failed,
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a seed, or does so twice to see whether it repeats itself.
fn run_checked(arguments: &Arguments, seed: u64, number: u64) -> Outcome {
    let mut outcome = run_seed(seed, arguments.verbose);
    let repeats = arguments.check_determinism || number < REPEATED && arguments.seeds > 1;
    if repeats && outcome.failure.is_none() {
        let again = run_seed(seed, false);
        if (again.digest, again.frames) != (outcome.digest, outcome.frames) {
            outcome.failure = Some("the same seed went another way the second time".into());
        }
    }
    outcome
}

fn run_seed(seed: u64, verbose: bool) -> Outcome {
    PANIC.with_borrow_mut(|slot| *slot = None);
    let run = || {
        let scenario = Scenario::new(seed);
        if verbose {
            eprintln!("{scenario:#?}");
        }
        let mut world = scenario.build(seed);
        world.is_verbose = verbose;
        world.network.is_verbose = verbose;
        let failure = oracle::judge(&mut world, &scenario.faults).err();
        if verbose && failure.is_some() {
            world.tell();
        }
        Outcome { digest: world.digest.value(), frames: world.frames, failure }
    };
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let failure = PANIC.with_borrow_mut(Option::take).unwrap_or_else(|| "a panic".into());
        Outcome { digest: 0, frames: 0, failure: Some(failure) }
    })
}
