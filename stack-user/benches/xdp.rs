//! `cargo xtask bench xdp-frames`: what the XDP program takes for a frame, verdict by verdict, as the kernel measures it when it
//! runs a program many times on one frame (BPF_PROG_TEST_RUN). Beside it an empty program, whose time is that of the measurement
//! itself.
//!
//! Nobody has a socket on the queue, so that what is ours is counted and then passed, too: looking up the socket is in the
//! figures, handing the frame to it is not.

#![allow(missing_docs)]

#[path = "../tests/steering/frames.rs"]
#[allow(dead_code)]
mod frames;
#[path = "../tests/steering/kernel.rs"]
#[allow(dead_code)]
mod kernel;
#[path = "../tests/steering/table.rs"]
mod table;

use std::process::ExitCode;

use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use clap::Parser;
use kernel::{Kernel, SHORTEST};
use stack_common::steer::Verdict;
use xtask::bench::empty_program;

/// What the XDP program takes for a frame.
#[derive(Parser)]
#[command(name = "xdp")]
struct Args {
    /// How often the kernel runs the program on a frame
    #[arg(long, default_value_t = 3_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// One JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let [object, _] = kernel::objects();
    let mut ours = match Kernel::load(&object, &table::claims()) {
        Ok(ours) => ours,
        Err(reason) => {
            eprintln!("xdp: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let mut empty = empty();
    let empty: &Xdp = program(&mut empty);
    // The first run finds caches cold and the core asleep.
    time(empty, &[0; SHORTEST], args.repeat);
    tell(&args, None, "any", time(empty, &[0; SHORTEST], args.repeat));
    let frames: Vec<_> = frames().collect();
    // First each once, because who counts verdicts counts in ones.
    for (verdict, name, frame) in &frames {
        assert_eq!(ours.decide(frame, *verdict), *verdict, "{name}");
    }
    for (verdict, name, frame) in frames {
        tell(&args, Some(verdict), &name, time(ours.program(), &frame, args.repeat));
    }
    ExitCode::SUCCESS
}

/// For each verdict the first frame of the table that gets it and that the kernel takes.
fn frames() -> impl Iterator<Item = (Verdict, String, Vec<u8>)> {
    let cases = table::cases();
    Verdict::ALL.into_iter().filter_map(move |verdict| {
        let case = cases.iter().find(|case| case.verdict == verdict && case.frame.len() >= SHORTEST)?;
        Some((verdict, case.name.clone(), case.frame.clone()))
    })
}

/// The empty program, loaded.
fn empty() -> Ebpf {
    let object = empty_program::object().expect("two instructions");
    let mut empty = Ebpf::load(&object).expect("an object that aya reads");
    let program: &mut Xdp =
        empty.program_mut(empty_program::NAME).expect("its program").try_into().expect("XDP");
    program.load().expect("two instructions that the kernel takes");
    empty
}

fn program(empty: &mut Ebpf) -> &Xdp {
    empty.program(empty_program::NAME).expect("its program").try_into().expect("XDP")
}

/// Nanoseconds of a run, on average.
fn time(program: &Xdp, frame: &[u8], repeat: u32) -> f64 {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    let result = program.test_run(options).unwrap_or_else(|error| panic!("{} bytes: {error:?}", frame.len()));
    result.duration.as_nanos() as f64
}

fn tell(args: &Args, verdict: Option<Verdict>, frame: &str, nanoseconds: f64) {
    let verdict = verdict.map(Verdict::name);
    if args.json {
        println!("{}", serde_json::json!({ "verdict": verdict, "frame": frame, "nanoseconds": nanoseconds }));
    } else {
        println!("{:<20} {nanoseconds:>4} ns   {frame}", verdict.unwrap_or("an empty program"));
    }
}
