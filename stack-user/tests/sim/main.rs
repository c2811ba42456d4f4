//! Many real stacks on an in-memory internet, with faults, all from one seed.
//!
//! `cargo xtask sim --seeds 5000` runs that many scenarios; `cargo xtask sim --seed 42 --verbose` replays one of them,
//! frame by frame. `cargo test` runs a few. `--table` measures goodput and fairness.
//!
//! A scenario is drawn from its seed ([`scenario`]); hosts ([`host`]) with real stacks and their applications ([`app`])
//! talk over switches, routers and links ([`network`], [`link`]) on virtual time ([`world`]). A referee at each host
//! ([`referee`]) looks whether every segment keeps the rules that can be told from the wire, and an oracle ([`oracle`])
//! says whether what came of it all may be.

mod app;
mod arguments;
mod draw;
mod host;
mod jobs;
mod link;
mod network;
mod oracle;
mod referee;
mod scenario;
mod table;
mod trace;
mod world;

use std::process::ExitCode;

use arguments::Arguments;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) if arguments.lists => {
            println!("seeds: test\n\n1 test, 0 benchmarks");
            ExitCode::SUCCESS
        }
        Ok(arguments) if arguments.table => table::run(arguments.bless),
        Ok(arguments) => jobs::run(&arguments),
        Err(message) => {
            eprintln!("sim: {message}");
            ExitCode::from(2)
        }
    }
}
