//! `cargo xtask bench instructions [-- --update] [--json]`: how many instructions a segment takes, by callgrind, compared with
//! what is kept in `instructions.txt`. Unlike time, that is the same on a busy machine and on any other, so a change that
//! makes the stack slower is seen when it is made.
//!
//! valgrind runs this program once for each case, and counts what is executed in the functions of that case. It shows
//! programs a CPU with AVX2 where the machine has it, and with nothing newer, so that the counts are those of any CPU of
//! the last ten years; on one without AVX2 nothing is compared. Nor is it for another compiler than the one that made the
//! counts that are kept.

#![allow(missing_docs)]

#[path = "../tests/counting/mod.rs"]
#[allow(dead_code, reason = "bytes do not matter here")]
mod counting;
#[path = "../tests/crowd/mod.rs"]
#[allow(dead_code, reason = "one part of it does")]
mod crowd;
mod in_memory;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use crowd::Crowd;
use in_memory::{BURST, Stream, many, ours::Ours};
use stack_user::{frame::RxFrame, tcp::Config, time::Duration};

/// How far a count may be from the one that is kept. Lower, and another linker or C library makes the check fail; higher, and
/// a slowdown of that size goes unseen each time.
const TOLERANCE: f64 = 0.03;

#[derive(Parser)]
struct Arguments {
    /// Keeps what was counted, to be compared with from now on
    #[arg(long)]
    update: bool,
    /// Figures for a script
    #[arg(long)]
    json: bool,
    /// Runs one case, and prints how often it was done: what valgrind is asked to run
    #[arg(long, hide = true)]
    case: Option<String>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Something that is counted.
struct Case {
    name: &'static str,
    /// The functions whose instructions are counted, with all that they call; as callgrind names them.
    functions: &'static [&'static str],
    /// Does it, and returns how often.
    run: fn() -> usize,
}

const fn case(name: &'static str, functions: &'static [&'static str], run: fn() -> usize) -> Case {
    Case { name, functions, run }
}

/// All that there is to count.
const CASES: [Case; 12] = [
    // Parts of what a full segment of a stream takes.
    case("write", &["*Ours*::write"], segments),
    case("send", &["*Ours*::send"], segments),
    case("complete", &["*Ours*::complete"], segments),
    case("receive", &["*Ours*::receive"], segments),
    case("read", &["*Ours*::read"], segments),
    // For each ACK. The one that is heard is one of a whole burst of segments, which it frees.
    case("acknowledge", &["*Ours*::acknowledge"], acks),
    case("hear", &["*Ours*::hear"], acks),
    // A full segment of a stream, both ends, ACKs and all: everything but the wire.
    case(
        "bulk",
        &[
            "*Ours*::write",
            "*Ours*::send",
            "*Ours*::complete",
            "*Ours*::receive",
            "*Ours*::read",
            "*Ours*::acknowledge",
            "*Ours*::complete_acks",
            "*Ours*::hear",
            "*Ours*::pass_time",
        ],
        segments,
    ),
    // A segment of one byte to one of a thousand connections: mostly, to find it.
    case("demux", &["*many::receive"], demux),
    // The same of so many that memory is asked for ahead of time.
    case("demux-ahead", &["*receive_ahead"], demux_ahead),
    case("timer-set", &["*many::set_timers"], timers),
    case("timer-expired", &["*many::expire"], timers),
];

fn segments() -> usize {
    stream().segments
}

fn acks() -> usize {
    stream().acks
}

/// A stream from its beginning: what does not repeat itself is little of it.
fn stream() -> Ours {
    let mut ours = Ours::open(Some(256 << 10));
    ours.carry(8 << 20);
    ours
}

const CONNECTIONS: usize = 1000;
const MANY_CONNECTIONS: usize = 3000;

fn demux() -> usize {
    demux_among(CONNECTIONS, many::receive)
}

fn demux_ahead() -> usize {
    demux_among(MANY_CONNECTIONS, receive_ahead)
}

/// The same by another name: counts are found by it.
#[inline(never)]
fn receive_ahead(crowd: &mut Crowd, frames: &mut Vec<RxFrame>) {
    many::receive(crowd, frames);
}

fn demux_among(connections: usize, receive: fn(&mut Crowd, &mut Vec<RxFrame>)) -> usize {
    let mut crowd = Crowd::new(&Config::default(), connections);
    crowd.open(connections);
    let flows = many::some(&crowd.clients, connections);
    crowd.ask(&flows);
    // What acknowledges the answers is not to leave among the segments that are counted.
    crowd.run(Duration::from_millis(100));
    let mut frames = Vec::new();
    for burst in flows.chunks(BURST) {
        many::questions(&mut crowd, burst, &mut frames);
        receive(&mut crowd, &mut frames);
        crowd.run(Duration::from_millis(3));
    }
    flows.len()
}

fn timers() -> usize {
    let mut crowd = Crowd::new(&Config::default(), CONNECTIONS);
    crowd.open(CONNECTIONS);
    let flows = crowd.clients.clone();
    crowd.ask(&flows);
    many::set_timers(&mut crowd, &flows);
    many::wait(&mut crowd);
    many::expire(&mut crowd);
    flows.len()
}

fn main() -> Result<ExitCode> {
    let Arguments { update, json, case, bench: _ } = Arguments::parse();
    if let Some(name) = case {
        let case = CASES.iter().find(|case| case.name == name).context("no such case")?;
        println!("{}", (case.run)());
        return Ok(ExitCode::SUCCESS);
    }
    let compiler = output(Command::new("rustc").arg("--version"))?.0.trim().to_owned();
    if let Some(reason) = obstacle() {
        println!("SKIP instructions: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut known = BTreeMap::new();
    let counted: BTreeMap<&str, f64> =
        CASES.iter().map(|case| Ok((case.name, count(case, &mut known)?))).collect::<Result<_>>()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    if update {
        keep(&path, &compiler, &counted)?;
    }
    if json {
        println!("{}", serde_json::json!({ "benchmark": "instructions", "per_segment": counted }));
        return Ok(ExitCode::SUCCESS);
    }
    let kept = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(compare(&kept, &compiler, &counted))
}

/// Why nothing can be counted here, if so.
fn obstacle() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        let has_valgrind = Command::new("valgrind").arg("--version").output().is_ok();
        return (!has_valgrind).then_some("valgrind is not installed");
    }
    Some("the CPU is none with AVX2, which the counts that are kept are for")
}

/// Instructions that a case takes, each time that it is done. Those of functions that another case has are `known`.
fn count(case: &Case, known: &mut BTreeMap<&'static str, (u32, u32)>) -> Result<f64> {
    let mut sum = 0.0;
    for &function in case.functions {
        let (instructions, mut times) = match known.get(function) {
            Some(&counts) => counts,
            None => *known.entry(function).or_insert(count_function(case, function)?),
        };
        // What is told for each segment may be known from what is told for each ACK.
        if case.functions.len() > 1 {
            times = segments() as u32;
        }
        sum += f64::from(instructions) / f64::from(times);
    }
    Ok(sum)
}

fn count_function(case: &Case, function: &str) -> Result<(u32, u32)> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    valgrind.arg(format!("--toggle-collect={function}"));
    let (stdout, stderr) = output(valgrind.arg(program).args(["--case", case.name]))?;
    let collected = stderr.lines().find_map(|line| line.split("Collected : ").nth(1));
    let collected: Option<u32> = collected.and_then(|number| number.trim().parse().ok());
    let times: u32 = stdout.trim().parse().context("the case does not say how often it was done")?;
    match collected {
        Some(instructions @ 1..) => Ok((instructions, times)),
        _ => {
            bail!("valgrind does not say what it counted in {function}, or found no such function: {stderr}")
        }
    }
}

fn output(command: &mut Command) -> Result<(String, String)> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success(), "{command:?} failed: {stderr}");
    Ok((stdout, stderr))
}

fn keep(path: &Path, compiler: &str, counted: &BTreeMap<&str, f64>) -> Result<()> {
    let mut text = format!(
        "# Instructions for each segment, ACK or timer. `cargo xtask bench instructions -- --update` writes this file.\n\
         compiler {compiler}\n"
    );
    for case in &CASES {
        text += &format!("{} {:.1}\n", case.name, counted[case.name]);
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Prints what was counted beside what is kept, in the words of a test harness.
fn compare(kept: &str, compiler: &str, counted: &BTreeMap<&str, f64>) -> ExitCode {
    let kept: BTreeMap<&str, &str> = kept.lines().filter_map(|line| line.split_once(' ')).collect();
    let is_comparable = kept.get("compiler") == Some(&compiler);
    let mut failed = 0;
    println!("| case | instructions | kept | ratio |\n|---|---|---|---|");
    for case in &CASES {
        let now = counted[case.name];
        let before: Option<f64> = kept.get(case.name).and_then(|count| count.parse().ok());
        let (before, ratio) = before.map_or((f64::NAN, f64::INFINITY), |before| (before, now / before));
        let is_far = (ratio - 1.0).abs() > TOLERANCE;
        failed += usize::from(is_far);
        let verdict = if is_far && is_comparable { " **" } else { "" };
        println!("| {} | {now:.1} | {before:.1} | {ratio:.3}{verdict} |", case.name);
    }
    if !is_comparable {
        println!("SKIP instructions: the counts that are kept are of another compiler, not of {compiler}");
        return ExitCode::SUCCESS;
    }
    let passed = CASES.len() - failed;
    if failed == 0 {
        println!("test result: ok. {passed} passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    println!(
        "Those marked are more than 3 % off. If more: find out why. If that has its reason, or if it is less:"
    );
    println!("cargo xtask bench instructions -- --update");
    println!("test result: FAILED. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::FAILURE
}
