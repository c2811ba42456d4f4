//! The lab's own web and name server: started so that it outlives the command, ended only if it is still the
//! process that we started.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::topology::{Host, address};
use super::{Lab, netns};
use crate::process::capture;

/// Servers start within milliseconds; a machine that is busy compiling needs more.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// A server that ignores SIGTERM for so long is killed.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

/// A process that we started. Its start time tells it from another one that got the same pid later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerHandle {
    pub(super) name: String,
    pub(super) pid: i32,
    started: u64,
}

impl ServerHandle {
    /// Takes down what is needed to find the process again.
    pub(super) fn of(name: &str, pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).context("a pid that is no pid")?;
        let started = start_time(pid).with_context(|| format!("{name} ended at once"))?;
        Ok(Self { name: name.into(), pid, started })
    }

    /// Whether that very process still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Ends it, politely first.
    pub(super) fn end(&self) -> Result<()> {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let deadline = Instant::now() + ENDED_WITHIN;
            if !self.is_alive() {
                return Ok(());
            }
            // It may have ended between the look and the signal.
            let _ = kill(Pid::from_raw(self.pid), signal);
            while self.is_alive() && Instant::now() < deadline {
                sleep(Duration::from_millis(5));
            }
        }
        if self.is_alive() {
            bail!("{} (process {}) does not end", self.name, self.pid);
        }
        Ok(())
    }
}

/// Starts the server on the web host.
pub(super) fn start(lab: &Lab, binary: &Path) -> Result<ServerHandle> {
    let path = lab.directory().join("server.log");
    let log = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let child = lab
        .on(Host::Web, binary)
        .arg("serve")
        .arg(format!("--web={}:80", address::WEB))
        .arg(format!("--dns={}:53", address::DNS))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its own process group: Ctrl-C at the terminal is not meant for it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    ServerHandle::of("lab-server", child.id())
}

/// Waits until page and name can be had from the host, through the router: then all of the lab works.
pub(super) fn wait_until_ready(lab: &Lab, binary: &Path, server: &ServerHandle) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let probe = capture(
            netns::command(&lab.namespace(Host::Host), binary)
                .arg("probe")
                .arg(format!("--web={}:80", address::WEB))
                .arg(format!("--dns={}:53", address::DNS)),
        );
        let Err(error) = probe else { return Ok(()) };
        if !server.is_alive() || Instant::now() > deadline {
            let log = fs::read_to_string(lab.directory().join("server.log")).unwrap_or_default();
            return Err(error.context(format!("the lab's server does not answer; its log: {}", log.trim())));
        }
        sleep(Duration::from_millis(20));
    }
}

/// When a process started, in clock ticks since boot; None for one that has ended, be it reaped or not.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain spaces and parentheses; the fields after the last one are plain.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // Field 22 of the line, so the 19th after the state.
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z").then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_while_it_runs_and_no_longer() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let handle = ServerHandle::of("sleep", child.id()).unwrap();
        assert!(handle.is_alive());
        handle.end().unwrap();
        assert!(!handle.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn another_process_with_the_same_pid_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut handle = ServerHandle::of("sleep", child.id()).unwrap();
        handle.started += 1;
        assert!(!handle.is_alive());
        handle.end().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it was ended though it is not ours");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
