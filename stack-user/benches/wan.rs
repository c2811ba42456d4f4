//! `cargo xtask bench wan`: goodput over a long path with losses, the kernel's CUBIC and ours through the same relay.
//!
//! Each run of one is followed by the same run of the others, with the same faults from the same seed; what is compared
//! are the medians. Data goes to stdout, progress to stderr.

#![allow(missing_docs)]

#[path = "../tests/wan/mod.rs"]
mod wan;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use serde_json::json;
use stack_user::{device::fault::FaultSpec, tcp::congestion::Algorithm};
use wan::{Amount, Direction, Path, Tcp, transfer};

/// Goodput over a long path with losses, the kernel's TCP and ours through the same relay.
#[derive(Parser)]
#[command(name = "wan")]
struct Args {
    /// Percentages of frames that are lost on their way to the receiver, each by itself
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,1,3")]
    loss: Vec<f64>,
    /// What the link carries, as in 100mbit
    #[arg(long, default_value = "100mbit")]
    rate: String,
    /// Milliseconds there and back
    #[arg(long, default_value_t = 100)]
    rtt: u64,
    /// Seconds that the sender of each run sends
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// Number of the first run, which is what its losses are drawn from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Our congestion control algorithm; the kernel's is CUBIC
    #[arg(long, default_value_t = Algorithm::default())]
    congestion: Algorithm,
    /// One JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ours = Tcp::Ours(args.congestion);
    let pairs = [
        ("kernel → kernel", Tcp::Kernel, Tcp::Kernel),
        ("ours → kernel", ours, Tcp::Kernel),
        ("kernel → ours", Tcp::Kernel, ours),
        ("ours → ours", ours, ours),
    ];
    if !args.json {
        let Args { rate, rtt, seconds, runs, congestion, .. } = &args;
        println!(
            "{rate}, {rtt} ms, queue of one bandwidth-delay product; sender → receiver; ours is {congestion}, the \
             kernel's is CUBIC; Mbit/s of payload, median of {runs} runs of {seconds} s; in brackets the ratio to \
             kernel → kernel"
        );
        println!("\n| loss | {} |", pairs.map(|(name, ..)| name).join(" | "));
        println!("|---|---|---|---|---|");
    }
    for &loss in &args.loss {
        let mut results = [const { Vec::new() }; 4];
        for run in 0..args.runs {
            for ((name, sender, receiver), results) in pairs.iter().zip(&mut results) {
                eprintln!("wan: loss {loss} %, run {} of {}, {name}", run + 1, args.runs);
                let spec = match faults(&args, loss, args.seed.wrapping_add(run)) {
                    Ok(spec) => spec,
                    Err(error) => return fail(&error),
                };
                let Some(path) = Path::new("wan", spec) else {
                    return fail("this needs root, `ip` and `ethtool`");
                };
                let amount = Amount::For(Duration::from_secs(args.seconds));
                let mbits = transfer(&path, *sender, *receiver, Direction::Up, amount).mbits();
                eprintln!("wan: {mbits:.2} Mbit/s");
                results.push(mbits);
            }
        }
        let medians = results.map(median);
        if args.json {
            for ((name, ..), mbits) in pairs.iter().zip(medians) {
                println!(
                    "{}",
                    json!({ "loss_percent": loss, "rtt_ms": args.rtt, "pair": name, "mbits": mbits, "ratio": mbits / medians[0] })
                );
            }
        } else {
            let cells = medians.map(|mbits| format!("{mbits:.1} ({:.2})", mbits / medians[0]));
            println!("| {loss} % | {} |", cells.join(" | "));
        }
    }
    ExitCode::SUCCESS
}

/// The delay in equal parts both ways; losses and the bottleneck on the way of the data only.
fn faults(args: &Args, loss: f64, seed: u64) -> Result<FaultSpec, String> {
    let Args { rate, rtt, .. } = args;
    let probe: FaultSpec = format!("rate={rate}").parse().map_err(|error| format!("{error}"))?;
    let queue = (u128::from(probe.tx.rate) * u128::from(*rtt) / 8000).max(20_000);
    let half = rtt * 500;
    format!("delay={half}us,tx.loss={loss}%,tx.rate={rate},tx.queue={queue},seed={seed}")
        .parse()
        .map_err(|error| format!("{error}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("wan: {reason}");
    ExitCode::FAILURE
}
