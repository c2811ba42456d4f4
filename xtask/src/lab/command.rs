//! `cargo xtask lab …`.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::topology::Host;
use super::{Brought, Lab, Options, Status, netns};
use crate::process::{is_root, reexec_as_root};
use crate::progress::Step;
use crate::{build, setup};

/// Arguments of `cargo xtask lab`.
#[derive(clap::Args)]
pub struct Args {
    /// A lab of your own beside the usual one; its namespaces are xs-NAME-host and so on
    #[arg(long, global = true)]
    name: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the lab up
    Up {
        /// Queues of the host's interface
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
        queues: u32,
        /// The built lab-server; built when not given
        #[arg(long, hide = true)]
        server: Option<PathBuf>,
    },
    /// Take it down, with all that belongs to it
    Down,
    /// Say how it is; exit code 1 if it is not up
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Run a command on one of its hosts: host, peer, router or web
    Exec {
        /// host, peer, router or web
        host: String,
        /// What to run there
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Runs a `lab` command, as root through sudo where that is needed.
pub fn run(args: &Args) -> Result<ExitCode> {
    let lab = Lab::named(args.name.as_deref())?;
    match &args.command {
        Command::Up { queues, server } => {
            let server = match server {
                Some(server) => server.clone(),
                None => {
                    setup::ensure(setup::Level::Build)?;
                    build::lab_server()?
                }
            };
            if !is_root() {
                let arguments = up_arguments(args.name.as_deref(), *queues, &server);
                return reexec_as_root(arguments);
            }
            bring_up(&lab, &Options { queues: *queues, server: Some(server) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Down if !is_root() => reexec_as_root(env::args_os().skip(1)),
        Command::Down => {
            let step = Step::start("taking the lab down");
            lab.down()?;
            step.done("done");
            Ok(ExitCode::SUCCESS)
        }
        Command::Status { json } => {
            let status = lab.status()?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&status)?);
            } else {
                print_status(&status);
            }
            Ok(if status.up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Exec { .. } if !is_root() => reexec_as_root(env::args_os().skip(1)),
        Command::Exec { host, command } => exec(&lab, host, command),
    }
}

/// Brings a lab up and tells it.
pub(crate) fn bring_up(lab: &Lab, options: &Options) -> Result<Brought> {
    let step = Step::start("bringing the lab up");
    let brought = lab.up(options)?;
    step.done(match brought {
        Brought::Up => "up, its servers answer",
        Brought::AlreadyUp => "it was up already",
    });
    Ok(brought)
}

/// The words that make an xtask run as root bring up the same lab.
pub(crate) fn up_arguments(
    name: Option<&str>,
    queues: u32,
    server: &std::path::Path,
) -> Vec<std::ffi::OsString> {
    let mut words: Vec<std::ffi::OsString> = vec!["lab".into(), "up".into()];
    words.extend([format!("--queues={queues}").into(), "--server".into(), server.into()]);
    words.extend(name.map(|name| format!("--name={name}").into()));
    words
}

fn exec(lab: &Lab, host: &str, command: &[String]) -> Result<ExitCode> {
    let known = Host::ALL.into_iter().find(|&known| known.name() == host || lab.namespace(known) == host);
    let Some(known) = known else {
        bail!("the lab has no host {host:?}; it has host, peer, router and web");
    };
    let namespace = lab.namespace(known);
    if !netns::exists(&namespace) {
        bail!("this lab is not up: bring it up first, by `lab up` with the same --name if it has one");
    }
    let (program, arguments) = command.split_first().context("no command to run")?;
    let error = netns::command(&namespace, program).args(arguments).exec();
    Err(error).context("cannot start ip")
}

fn print_status(status: &Status) {
    println!("{}", if status.up { "The lab is up." } else { "The lab is not up." });
    for one in status.namespaces.iter().filter(|one| one.exists) {
        println!("  {:<16} {}", one.namespace, one.addresses);
    }
    if status.queues > 1 {
        println!("  xs0 has {} queues", status.queues);
    }
    for server in &status.servers {
        println!(
            "  {} (process {}) {}",
            server.name,
            server.pid,
            if server.alive { "runs" } else { "is gone" }
        );
    }
    if status.up {
        println!("Try: cargo xtask run --lab -- curl http://example.com/");
    }
}
