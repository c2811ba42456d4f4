//! `cargo xtask bench conns [-- --connections N] [--json]`: very many connections between two stacks in memory, on virtual
//! time. What an idle one takes, what a busy one does, and what a segment costs among a thousand and among all of them.
//! Fails if an idle one costs work, or takes more than it may.

#![allow(missing_docs)]

#[path = "../tests/counting/mod.rs"]
mod counting;
#[path = "../tests/crowd/mod.rs"]
mod crowd;

use std::time::Instant as Clock;

use clap::Parser;
use crowd::{Crowd, bytes_per_end};
use stack_user::{tcp::Config, time::Duration};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Connections that stand for few.
const FEW: usize = 1000;

/// As in the test of the same, which has the reasons; and as much again for tables that have just grown.
const MAX_IDLE_BYTES: usize = 640;

#[derive(Parser)]
struct Arguments {
    /// How many connections
    #[arg(long, default_value_t = 1_000_000)]
    connections: usize,
    /// Figures for a script
    #[arg(long)]
    json: bool,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let Arguments { connections, json, .. } = Arguments::parse();
    let connections = connections.max(FEW);
    let mut crowd = Crowd::new(&Config::default(), connections);
    let before = counting::held();
    crowd.open(FEW);
    let few = crowd.clients.clone();
    let among_few = crowd.cost(&few);
    let started = Clock::now();
    crowd.open(connections);
    let opened = started.elapsed();
    crowd.run(Duration::from_secs(600));
    assert!(crowd.all_rest(), "nothing happens, and not all connections rest");
    assert_eq!(crowd.due(), None, "nothing happens, and something is due");
    let idle = bytes_per_end(before, connections);

    let (frames, calls) = (crowd.frames, counting::calls());
    crowd.run(Duration::from_secs(86_400));
    assert_eq!((crowd.frames, counting::calls()), (frames, calls), "an idle day costs something");

    let spread: Vec<_> = crowd.clients.iter().copied().step_by(connections / FEW).take(FEW).collect();
    let among_all = crowd.cost(&spread);
    crowd.run(Duration::from_secs(600));
    let clients = crowd.clients.clone();
    let listed = std::mem::size_of_val(&clients[..]) as isize;
    let started = Clock::now();
    // In parts, so that those which have answered rest while others are asked, as idle connections do.
    for part in clients.chunks(50_000) {
        crowd.ask(part);
        crowd.run(Duration::from_secs(3));
    }
    let answered = started.elapsed();
    crowd.run(Duration::from_secs(600));
    assert!(crowd.all_rest(), "some do not rest again");
    let again = bytes_per_end(before + listed, connections);
    crowd.ask(&spread);
    let busy = bytes_per_end(before + listed, connections) as isize - again as isize;
    let busy = again + busy.max(0) as usize * connections / FEW;

    let micros = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
    if json {
        let figures = serde_json::json!({
            "connections": connections,
            "idle_bytes": idle,
            "idle_again_bytes": again,
            "busy_bytes": busy,
            "echo_among_few_us": micros(among_few),
            "echo_among_all_us": micros(among_all),
            "opened_s": opened.as_secs_f64(),
            "answered_s": answered.as_secs_f64(),
        });
        println!("{figures}");
    } else {
        println!("{connections} connections, both ends in this process");
        println!("| an end of a connection | bytes |");
        println!("|---|---|");
        println!("| idle since it was opened | {idle} |");
        println!("| idle after a question and its answer | {again} |");
        println!("| busy | {busy} |");
        println!();
        println!("| a question and its answer, both ends | µs |");
        println!("|---|---|");
        println!("| among {FEW} connections | {:.2} |", micros(among_few));
        println!("| among {connections}, asked for the first time in a while | {:.2} |", micros(among_all));
        println!();
        println!("opened in {:.1} s, each answered in {:.1} s", opened.as_secs_f64(), answered.as_secs_f64());
    }
    assert!(idle.max(again) <= MAX_IDLE_BYTES, "an idle end takes {idle} bytes, and {again} after some use");
}
