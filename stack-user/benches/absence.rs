//! `cargo xtask bench mix`: what a request would wait for if no stack took any time: moments in which a core is somebody else's, the
//! kernel's or that of another guest of the same host. On a quiet machine that is next to nothing.
//!
//! Two threads look at the clock and at nothing else, each on a core of its own, and note when they could not. Requests that are due
//! at a steady rate need one core, then the other, then the first again, all for no time at all.

#![allow(missing_docs)]

#[path = "../tests/absence/mod.rs"]
mod absence;

use std::{
    thread,
    time::{Duration, Instant},
};

use absence::{Gap, delays, quantile};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

#[derive(Parser)]
struct Arguments {
    /// Seconds
    #[arg(long, default_value_t = 4)]
    time: u64,
    /// Requests a second
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Half a second
    #[arg(long)]
    quick: bool,
    /// JSON it is in any case
    #[arg(long)]
    json: bool,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Two looks at the clock that are farther apart than this were not made one after the other.
const LOOK: Duration = Duration::from_micros(2);

/// The most that is noted of one core: 128 MiB. Whose core is away as often as that has nothing to measure.
const MOST: usize = 1 << 22;

fn main() -> Result<()> {
    let Arguments { time, rate, quick, json: _, bench: _ } = Arguments::parse();
    ensure!(rate > 0 && time > 0, "a time and a rate of more than zero are needed");
    let [first, second] = two_cores()?;
    let time = if quick { Duration::from_millis(500) } else { Duration::from_secs(time) };
    let began = Instant::now();
    // One core for both ends is away for both.
    let other = (second != first).then(|| thread::spawn(move || watch(second, began, time)));
    let client = watch(first, began, time)?;
    let server = match other.map(thread::JoinHandle::join) {
        Some(server) => server.ok().context("the thread that looks at the clock has ended")??,
        None => client.clone(),
    };
    let mut delays = delays(&client, &server, time, rate);
    delays.sort();
    let figures = serde_json::json!({
        "latency_ns": {
            "p50": quantile(&delays, 0.5).as_nanos() as u64,
            "p99": quantile(&delays, 0.99).as_nanos() as u64,
        },
    });
    println!("{figures}");
    Ok(())
}

/// The first two that this process may use; one twice, if there is no other.
fn two_cores() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot tell which cores there are")?;
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    let first = cores.next().context("there is no core for this")?;
    Ok([first, cores.next().unwrap_or(first)])
}

/// Looks at the clock on that core, and notes when it could not.
fn watch(core: usize, began: Instant, time: Duration) -> Result<Vec<Gap>> {
    let mut only = CpuSet::new();
    only.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &only).context("cannot stay on a core")?;
    let (mut gaps, mut before) = (Vec::with_capacity(1 << 16), began.elapsed());
    while before < time {
        let now = began.elapsed();
        if now - before > LOOK {
            ensure!(gaps.len() < MOST, "core {core} is away all the time");
            gaps.push((before, now));
        }
        before = now;
    }
    Ok(gaps)
}
