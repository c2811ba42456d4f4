//! `xstack bench`: what a stack is worth, measured from end to end, and the kernel's by the same program.
//!
//! `server` answers all benchmarks on one port and tells them apart by their first bytes: [`iperf3`]'s protocol, so that the
//! real iperf3 may be the other end, and [`rpc`], ours. Every benchmark is written against the network's trait, which
//! `--kernel` makes the kernel's sockets: then nothing differs between two runs but the stack.
//!
//! Application and shard run on one thread, unless `--threads` says otherwise.

mod dial;
mod iperf3;
mod pump;
mod rpc;
mod server;
mod transport;

use std::{pin::pin, sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use tokio::time::timeout;

pub use self::transport::{Datagrams, Fares, Flow, Transport};
pub use self::{iperf3::ClientOptions, pump::PumpOptions, server::ServerOptions};
use super::{
    console::Console,
    error::{Exit, Failure},
    kernel::KernelNetwork,
    privileges::Profile,
};

/// How long the network may take to end in order, as for the other commands: this is for FINs and the like.
const NETWORK_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What `xstack bench` can be told.
#[derive(Args, Debug)]
pub struct BenchOptions {
    /// Which benchmark.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// The benchmarks.
#[derive(Subcommand, Debug)]
#[non_exhaustive]
pub enum BenchCommand {
    /// Be the other end of the benchmarks, and of the real iperf3
    Server(ServerOptions),
    /// Send or receive as much as possible: iperf3, as its client
    Client(Box<ClientOptions>),
    /// Measure how long an answer takes, on connections that stay
    Rr(rpc::rr::RrOptions),
    /// Measure connections that are opened for one request and closed
    Crr(rpc::crr::CrrOptions),
    /// Measure what idle connections cost, and how soon each of them answers
    Conns(rpc::conns::ConnsOptions),
    /// Measure what bulk does to small requests, and they to it
    Mix(rpc::mix::MixOptions),
    /// Move frames without a protocol, which is the most that any stack over the device can reach
    Pump(PumpOptions),
}

/// What each of them can be told.
#[derive(Args, Clone, Copy, Debug)]
pub struct Common {
    /// Use the kernel's stack in place of ours: the same program, so that stacks are compared and not programs
    #[arg(long)]
    pub kernel: bool,

    /// Tell what happens, on stderr
    #[arg(short = 'v', long)]
    pub verbose: bool,
}

impl BenchOptions {
    /// Over which stack, and how talkative.
    pub fn common(&self) -> Common {
        match &self.command {
            BenchCommand::Server(options) => options.common,
            BenchCommand::Client(options) => options.common,
            BenchCommand::Rr(options) => options.target.common,
            BenchCommand::Crr(options) => options.target.common,
            BenchCommand::Conns(options) => options.target.common,
            BenchCommand::Mix(options) => options.target.common,
            BenchCommand::Pump(options) => Common { kernel: false, verbose: options.verbose },
        }
    }
}

/// Runs a benchmark over the network that `open` brings up, or over the kernel's sockets, until it is done or told to stop.
pub async fn run<N: Transport>(
    options: BenchOptions,
    console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let diagnostics = console.diagnostics.clone();
    let done = if options.common().kernel {
        run_over(options, console, async || Ok(KernelNetwork), stop).await
    } else {
        run_over(options, console, open, stop).await
    };
    done.unwrap_or_else(|failure| {
        diagnostics.line(&failure.line());
        failure.exit()
    })
}

/// Opens the network, gives up what that needed, runs the benchmark, and closes it.
async fn run_over<N: Transport>(
    options: BenchOptions,
    console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Result<Exit, Failure> {
    let mut stop = pin!(stop);
    let network = tokio::select! {
        biased;
        exit = &mut stop => return Ok(exit),
        opened = open() => Arc::new(opened?),
    };
    let done = match network.give_up_privileges(Profile::Bench) {
        Ok(()) => match options.command {
            BenchCommand::Server(options) => server::run(options, console, &network, stop).await,
            BenchCommand::Client(options) => iperf3::run(*options, console, &*network, stop).await,
            BenchCommand::Rr(options) => rpc::rr::run(options, console, &network, stop).await,
            BenchCommand::Crr(options) => rpc::crr::run(options, console, &network, stop).await,
            BenchCommand::Conns(options) => rpc::conns::run(options, console, &network, stop).await,
            BenchCommand::Mix(options) => rpc::mix::run(options, console, &network, stop).await,
            BenchCommand::Pump(options) => pump::run(options, console, &*network, stop).await,
        },
        Err(failure) => Err(failure),
    };
    if let Some(network) = Arc::into_inner(network) {
        let _ = timeout(NETWORK_CLOSE_TIMEOUT, network.close()).await;
    }
    done
}
