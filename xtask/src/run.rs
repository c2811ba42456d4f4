//! `cargo xtask run`: builds xstack and runs it as root, with its input, output and exit code its own.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::lab::topology::Host;
use crate::lab::{Brought, Lab, Options, command as lab_command};
use crate::process::{as_root, exit_code, is_root};
use crate::{build, process};

/// Arguments of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Args {
    /// Run it on the lab's host; the lab is brought up for it, and down again if it was not up
    #[arg(long)]
    lab: bool,
    /// Build quickly instead of building a quick program
    #[arg(long)]
    debug: bool,
    /// What xstack gets
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs xstack. Its exit code is ours.
pub fn run(args: &Args) -> Result<ExitCode> {
    let profile = if args.debug { build::Profile::Debug } else { build::Profile::Release };
    let binary = build::xstack(profile)?;
    let needs_root = needs_root(&args.arguments);
    if args.lab && needs_root {
        return in_lab(&binary, &args.arguments);
    }
    let mut command = if needs_root { as_root(&binary)? } else { Command::new(&binary) };
    command.args(&args.arguments);
    Ok(exit_code(supervise(command)?))
}

fn in_lab(binary: &Path, arguments: &[String]) -> Result<ExitCode> {
    let server = build::lab_server()?;
    // From here on a signal may only end what runs in the lab: we stay to take the lab down.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    let lab = Lab::named(None)?;
    let brought = match bring_up(&lab, &server) {
        Ok(brought) => brought,
        // Ctrl-C also ends the commands that bring it up; what they did is undone by then.
        Err(error) => return stopped_by(&mut signals).ok_or(error),
    };
    let outcome = match stopped_by(&mut signals) {
        Some(code) => Ok(code),
        None => run_on_host(&lab, binary, arguments, signals).map(exit_code),
    };
    if brought == Brought::Up {
        take_down(&lab)?;
    }
    outcome
}

/// The exit code for a signal that came before there was anybody to pass it on to.
fn stopped_by(signals: &mut Signals) -> Option<ExitCode> {
    let signal = signals.pending().next()?;
    Some(ExitCode::from(128 + u8::try_from(signal).unwrap_or_default()))
}

fn bring_up(lab: &Lab, server: &Path) -> Result<Brought> {
    if lab.status().is_ok_and(|status| status.up) {
        return Ok(Brought::AlreadyUp);
    }
    if is_root() {
        return lab_command::bring_up(lab, &Options { queues: 1, server: Some(server.into()) });
    }
    process::run_visibly(
        as_root(std::env::current_exe()?)?.args(lab_command::up_arguments(None, 1, server)),
    )?;
    Ok(Brought::Up)
}

fn take_down(lab: &Lab) -> Result<()> {
    if is_root() {
        return lab.down();
    }
    process::run_visibly(as_root(std::env::current_exe()?)?.args(["lab", "down"]))
}

fn run_on_host(lab: &Lab, binary: &Path, arguments: &[String], signals: Signals) -> Result<ExitStatus> {
    let on_host = lab.on(Host::Host, binary);
    let mut command = as_root(on_host.get_program())?;
    command.args(on_host.get_args()).args(arguments);
    supervise_with(command, signals)
}

fn supervise(command: Command) -> Result<ExitStatus> {
    supervise_with(command, Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?)
}

/// Waits for a child and passes on to it the signals that only we got.
fn supervise_with(mut command: Command, mut signals: Signals) -> Result<ExitStatus> {
    let mut child =
        command.spawn().with_context(|| format!("cannot start `{}`", process::describe(&command)))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid that is no pid")?);
    let handle = signals.handle();
    let (ended, has_ended) = mpsc::channel::<()>();
    let forwarder = thread::spawn(move || {
        for signal in signals.forever() {
            // The terminal sends Ctrl-C to the whole foreground group: the child has it already.
            let has_it_already = signal == SIGINT && std::io::stdin().is_terminal();
            let gone = has_ended.try_recv() != Err(mpsc::TryRecvError::Empty);
            if let (Ok(signal), false, false) = (Signal::try_from(signal), has_it_already, gone) {
                let _ = kill(pid, signal);
            }
        }
    });
    let status = child.wait();
    drop(ended);
    handle.close();
    let _ = forwarder.join();
    status.context("cannot wait for the program")
}

/// What only prints is run as who we are; everything else attaches a program and opens AF_XDP sockets.
fn needs_root(arguments: &[String]) -> bool {
    let only_prints = |word: &String| matches!(word.as_str(), "--help" | "-h" | "--version" | "-V");
    // As a later word, `help` is somebody's file or data.
    let asks_for_help = arguments.first().is_none_or(|first| first == "help");
    !asks_for_help && !arguments.iter().any(only_prints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_signal_that_comes_while_the_lab_is_brought_up_is_not_lost() {
        let mut signals = Signals::new([SIGHUP]).expect("signals");
        assert_eq!(stopped_by(&mut signals), None);
        nix::sys::signal::raise(Signal::SIGHUP).expect("a signal to ourselves");
        assert_eq!(stopped_by(&mut signals), Some(ExitCode::from(129)));
    }

    #[test]
    fn root_is_for_what_needs_it() {
        assert!(needs_root(&words("curl http://example.com/")));
        assert!(needs_root(&words("curl -o help http://example.com/")));
        assert!(!needs_root(&words("help curl")));
        assert!(!needs_root(&words("--help")));
        assert!(!needs_root(&words("curl --help")));
        assert!(!needs_root(&words("--version")));
        assert!(!needs_root(&words("")));
    }
}
