//! The `xstack` command: one file or folder per subcommand, over any [`Network`](network::Network).
//!
//! [`main`] parses the command line, sets up logging, runs the subcommand until it is done or a signal ends it,
//! and returns its exit code. The network is opened by the subcommand, and only once it has something to send, so
//! that a mistake on the command line costs nothing and touches no interface.

pub mod attach;
pub mod bench;
pub mod console;
pub mod control;
pub mod curl;
pub mod daemon;
pub mod date;
pub mod dispatcher_guard;
pub mod doctor;
pub mod error;
pub mod forward;
pub mod global;
pub mod http_server;
pub mod kernel;
pub mod logging;
pub mod network;
pub mod ours;
pub mod privileges;
pub mod proxy;
pub mod relay;
pub mod serve;
pub mod service;
pub mod several;
pub mod socket_file;
pub mod threads;
pub mod tls;

use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;

use bench::Transport;
use console::Console;
use error::{Exit, Failure};
use global::GlobalOptions;

use crate::device::unprivileged;

/// A TCP/IP stack in user space, beside the kernel's own, on the same network card
#[derive(Parser, Debug)]
#[command(name = "xstack", version, after_long_help = exit_codes(), max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// With which network.
    #[command(flatten)]
    pub global: GlobalOptions,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Transfer a URL, with curl's options and curl's exit codes
    Curl(Box<curl::CurlOptions>),
    /// Serve the files of a directory over HTTP, with ranges, listings, gzip and TLS
    Serve(Box<serve::ServeOptions>),
    /// Pass connections on between our stack and the kernel's, in either direction
    Forward(Box<forward::ForwardOptions>),
    /// Be a SOCKS and HTTP proxy: for programs of this host through our stack, or the other way round
    Proxy(Box<proxy::ProxyOptions>),
    /// Hold addresses, connections and forwards for as long as the machine is up
    Daemon(daemon::DaemonOptions),
    /// Load the XDP program onto an interface to stay, so that programs join and leave without reattaching
    Attach(attach::AttachOptions),
    /// Take the XDP program that `attach` left off an interface
    Detach(attach::DetachOptions),
    /// Show what a running daemon does, and which interfaces have a program attached to stay
    Status(control::status::StatusOptions),
    /// List the connections of a running daemon, in the manner of ss
    Connections(Box<control::connections::ConnectionsOptions>),
    /// Look for what is in the way on this machine and its interfaces, and name the command that helps
    Doctor(doctor::DoctorOptions),
    /// Measure this stack, or the kernel's by the same program; speaks iperf3's protocol
    Bench(Box<bench::BenchOptions>),
}

impl Command {
    /// Whether the story is to be told.
    fn is_verbose(&self) -> bool {
        match self {
            Self::Curl(options) => options.verbose,
            Self::Serve(options) => options.verbose,
            Self::Forward(options) => options.relay.verbose,
            Self::Proxy(options) => options.relay.verbose,
            Self::Daemon(options) => options.verbose,
            Self::Bench(options) => options.common().verbose,
            Self::Attach(_) | Self::Detach(_) | Self::Status(_) | Self::Connections(_) | Self::Doctor(_) => {
                false
            }
        }
    }
}

impl Command {
    /// Whether it attaches a program for as long as it runs.
    fn brings_up_a_network(&self) -> bool {
        match self {
            Self::Curl(_) | Self::Serve(_) | Self::Forward(_) | Self::Proxy(_) | Self::Daemon(_) => true,
            Self::Bench(options) => !options.common().kernel,
            Self::Attach(_) | Self::Detach(_) | Self::Status(_) | Self::Connections(_) | Self::Doctor(_) => {
                false
            }
        }
    }

    /// How many threads shards may have: all that run at once for those that serve many; one that serves itself has enough
    /// with one, and what one core can do is what benchmarks ask first.
    fn threads(&self) -> NonZeroUsize {
        match self {
            Self::Curl(_) | Self::Bench(_) => NonZeroUsize::MIN,
            _ => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// How long the runtime may take to end after a command has: a thread may still sit in a write to a stuck pipe.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);

/// Runs the command line of this process over the network that `open` brings up.
pub fn main<N: Transport>(open: impl AsyncFnOnce(&GlobalOptions) -> Result<N, Failure>) -> ExitCode {
    let mut cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    if cli.command.brings_up_a_network()
        && let Err(error) = dispatcher_guard::stand_by()
    {
        eprintln!("xstack: ({}) Could not start another process: {error}", Exit::Interface.code());
        return Exit::Interface.into();
    }
    if let Err(failure) = privileges::begin() {
        eprintln!("{}", failure.line());
        return failure.exit().into();
    }
    match &mut cli.command {
        Command::Curl(options) => options.daemon.automatic = true,
        Command::Daemon(options) if cli.global.log == LevelFilter::WARN => {
            cli.global.log = options.log_level().unwrap_or(LevelFilter::WARN);
        }
        _ => {}
    }
    let (console, runtime) = match start() {
        Ok(started) => started,
        Err(error) => {
            eprintln!("xstack: ({}) Could not start: {error}", Exit::Usage.code());
            return Exit::Usage.into();
        }
    };
    let subscriber = logging::subscriber(&console.diagnostics, cli.global.log, cli.command.is_verbose());
    // Nothing else in this process sets one. It also takes the records of the `log` crate, by which the XDP program's
    // own come.
    let _ = subscriber.try_init();
    let exit = runtime.block_on(run(cli, console, open, stopped()));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    exit.into()
}

fn start() -> io::Result<(Console, Runtime)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(unprivileged::thread_begins)
        .build()?;
    Ok((Console::standard()?, runtime))
}

/// Parses a command line, its first word being the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(arguments)
}

/// Runs a parsed command line. When `stop` returns, so does this, with its exit code and after cleaning up.
pub async fn run<N: Transport>(
    cli: Cli,
    console: Console,
    open: impl AsyncFnOnce(&GlobalOptions) -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let Cli { command, mut global } = cli;
    global.threads.get_or_insert_with(|| command.threads());
    let open = async || open(&global).await;
    match command {
        Command::Curl(options) => match options.daemon.choose(&global).await {
            Ok(Some(daemon)) => curl::run(*options, console, async || Ok(daemon), stop).await,
            Ok(None) => curl::run(*options, console, open, stop).await,
            Err(failure) => {
                console.diagnostics.line(&failure.line());
                failure.exit()
            }
        },
        Command::Serve(options) => serve::run(*options, console, open, stop).await,
        Command::Forward(options) => forward::run(*options, console, open, stop).await,
        Command::Proxy(options) => proxy::run(*options, console, open, stop).await,
        Command::Daemon(options) => daemon::run(options, global, console, stop).await,
        Command::Attach(options) => attach::attach(options, &global, console).await,
        Command::Detach(options) => attach::detach(options, &global, console).await,
        Command::Status(options) => control::status::run(options, console, stop).await,
        Command::Connections(options) => control::connections::run(*options, console, stop).await,
        Command::Bench(options) => bench::run(*options, console, open, stop).await,
        Command::Doctor(options) => doctor::run(options, &global, console, stop).await,
    }
}

/// Returns when a signal asks the process to stop.
async fn stopped() -> Exit {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals keep their default action, which stops the process as well.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}

fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        text.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::congestion::Algorithm;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_global_option_is_an_environment_variable_of_the_same_name() {
        let command = Cli::command();
        let globals: Vec<_> = command.get_arguments().filter(|argument| argument.is_global_set()).collect();
        assert!(globals.len() >= 12);
        for argument in globals {
            let long = argument.get_long().expect("global options are long");
            let expected = format!("XSTACK_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
        }
    }

    #[test]
    fn global_options_may_stand_before_and_after_the_subcommand() {
        let words =
            ["xstack", "--vlan", "7", "curl", "http://a/", "--interface", "xs-a", "--dns", "10.0.0.1"];
        let more = ["--congestion", "reno", "--ecn"];
        let cli = parse(words.into_iter().chain(more).map(OsString::from)).expect("parses");
        assert_eq!((cli.global.congestion, cli.global.ecn), (Algorithm::NewReno, true));
        assert_eq!(cli.global.vlan, Some(7));
        assert_eq!(cli.global.interface.as_deref(), Some("xs-a"));
        assert_eq!(cli.global.dns.len(), 1);
    }

    #[test]
    fn bad_values_are_usage_errors() {
        for words in [
            &["curl"][..],
            &["--vlan", "4095", "curl", "a"],
            &["--address", "10.0.0.300", "curl", "a"],
            &["--program", "here", "curl", "a"],
            &["--log", "loud", "curl", "a"],
            &["--mode", "magic", "curl", "a"],
            &["--fault", "loss=2", "curl", "a"],
            &["--congestion", "hope", "curl", "a"],
            &["curl", "--max-time", "-1", "a"],
            &["curl", "--max-time", "soon", "a"],
            &["frobnicate"],
        ] {
            let words = std::iter::once("xstack").chain(words.iter().copied()).map(OsString::from);
            let error = parse(words).expect_err("must not parse");
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()));
        }
    }
}
