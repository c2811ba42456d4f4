//! Very many connections of the kernel's TCP to an echo server: opened, used and closed at once, or held.
//!
//! What it is told to do bounds it: the number of connections and rounds, and the time. A process has a limit of open
//! files, so several processes share the work; they start each step together.

mod kernel;
mod worker;

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// Connections of one process: less than the files that it may open where nobody has raised the limit's limit.
const PER_PROCESS: usize = 15_000;

/// The most that may be asked for: more is no load any more but an accident.
const MAX_CONNECTIONS: usize = 1_000_000;

#[derive(Clone, Parser)]
struct Arguments {
    /// The echo server
    #[arg(long)]
    server: IpAddr,
    /// Its first port
    #[arg(long)]
    port: u16,
    /// How many ports it has: the kernel has some 28,000 of its own to each
    #[arg(long, default_value_t = 1)]
    ports: u16,
    /// Connections that are open at the same time
    #[arg(long)]
    connections: usize,
    /// How often all of them are opened, used and closed
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Seconds for which they are held before they are used once more
    #[arg(long, default_value_t = 0)]
    hold: u64,
    /// Seconds after which it gives up
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// One of the processes that do the work, and the number of its first connection
    #[arg(long, hide = true)]
    worker: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.worker {
        Some(first) => worker::run(&arguments, first),
        None => lead(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Has workers do each step, and prints a line of JSON after each: what was done, and what it took of the kernel.
fn lead(arguments: &Arguments) -> Result<()> {
    let Arguments { connections, rounds, hold, .. } = *arguments;
    ensure!(connections <= MAX_CONNECTIONS, "at most {MAX_CONNECTIONS} connections");
    let shares = connections.div_ceil(PER_PROCESS);
    let mut workers = Vec::new();
    for share in 0..shares {
        let first = connections * share / shares;
        workers.push(Worker::start(arguments, first, connections * (share + 1) / shares - first)?);
    }
    let before = kernel::Memory::now()?;
    for round in 0..rounds {
        let started = Instant::now();
        all(&mut workers, "open")?;
        let opened = started.elapsed();
        all(&mut workers, "use")?;
        if hold > 0 {
            let taken = kernel::Memory::now()?.since(&before);
            say(&serde_json::json!({
                "held": connections,
                "opened_s": opened.as_secs_f64(),
                "kernel_slab_bytes": taken.slab / connections.max(1) as i64,
                "kernel_available_bytes": -taken.available / connections.max(1) as i64,
                "kernel_sockets": taken.sockets,
            }))?;
            std::thread::sleep(Duration::from_secs(hold));
            all(&mut workers, "use")?;
        }
        all(&mut workers, "close")?;
        let seconds = started.elapsed().as_secs_f64();
        say(&serde_json::json!({ "round": round, "connections": connections, "seconds": seconds }))?;
    }
    for worker in workers {
        worker.finish()?;
    }
    Ok(())
}

fn say(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// All begin a step, and then all have done it.
fn all(workers: &mut [Worker], step: &str) -> Result<()> {
    for worker in &mut *workers {
        let pipe = worker.child.stdin.as_mut().context("a worker without input")?;
        writeln!(pipe, "{step}").context("a worker has gone")?;
    }
    for worker in workers {
        let mut answer = String::new();
        worker.answers.read_line(&mut answer)?;
        ensure!(answer == "done\n", "{step}: a worker says {answer:?}");
    }
    Ok(())
}

/// A process that has a share of the connections. It ends with its input.
struct Worker {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(arguments: &Arguments, first: usize, connections: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--server", &arguments.server.to_string(), "--port", &arguments.port.to_string()]);
        command.args(["--ports", &arguments.ports.to_string(), "--limit", &arguments.limit.to_string()]);
        command.args(["--connections", &connections.to_string(), "--worker", &first.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(child.stdout.take().context("a worker without output")?);
        Ok(Self { child, answers })
    }

    fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "a worker ended with {status}");
        Ok(())
    }
}
